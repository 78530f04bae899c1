export type { Connection as EmitConnection } from '../adapters/index.ts'
export { JsonText } from '../core/index.ts'
export { emit, type OutboxEvent } from './emit.ts'
export { Inbox, inboxCleanStep } from './inbox.ts'

import type { Pool } from 'pg'
import { guardAgainstHugeValues } from './huge-values.ts'

/**
 * Keeps connections of a pool from ending the process, for as long as they live. The pool listens for their errors only while they
 * are idle, and one that breaks in the moment in which it is handed over tells nobody: "ready" and "terminated" arrive together,
 * and whoever has asked for it hears of it a moment later. Its statements fail then, which tells him.
 */
export function guardPool(pool: Pool): void {
  pool.on('connect', (client) => {
    client.on('error', ignore)
    guardAgainstHugeValues(client)
  })
}

function ignore(): void {
  // Nothing to do.
}

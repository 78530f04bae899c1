export { type Connection, toQueryable } from './connection.ts'

import type { Pool } from 'pg'

/**
 * Listens for the errors of all connections of a pool, for as long as they live. The pool listens only while they are idle, and one
 * that breaks in the moment in which it is handed over would end the process: "ready" and "terminated" arrive together, and whoever
 * has asked for it hears of it a moment later. Its statements fail then, which tells him.
 */
export function hearErrors(pool: Pool): void {
  pool.on('connect', (client) => client.on('error', ignore))
}

function ignore(): void {
  // Nothing to do.
}

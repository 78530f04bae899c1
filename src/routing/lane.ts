import type { PoolClient, QueryArrayConfig } from 'pg'
import { knowledge, type Node } from './node.ts'
import { replayStatement } from './probe.ts'
import { type Replay, untilReplayed, type Wanted } from './replay.ts'
import { within } from './wire.ts'

/** How connections to a server are had: pg's here, slonik's in slonik.ts. Where they lead is the router's business. */
export interface Lane<Client> {
  /** Most connections to one server. */
  max(node: Node, isGuarded: boolean): number
  /** `isGuarded`: one that cannot write, though the server could. */
  connect(node: Node, isGuarded: boolean): Promise<Client>
  /** Gives it back; with an error it is closed. */
  release(node: Node, client: Client, error?: Error): void
  /** Waits until the server of this connection has replayed what is wanted. */
  verify(client: Client, wanted: Wanted): Promise<Replay>
  /** The row of a look at the server; fails when it is not there in time. */
  ask(client: Client, statement: string, timeoutMs: number): Promise<readonly unknown[]>
  /** True when this connection is known to lead to a standby. */
  isStandby(client: Client): boolean
}

export const pgLane: Lane<PoolClient> = {
  max: (node, isGuarded) => (isGuarded ? node.guardedPool : node.pool).options.max,
  connect: async (node, isGuarded) => node.connect(isGuarded),
  release: (node, client, error) => node.release(client, error),
  verify: async (client, wanted) =>
    untilReplayed(client, async (timeoutMs) => ask(client, replayStatement, timeoutMs), wanted),
  ask,
  isStandby: (client) => {
    const { inHotStandby, isPooled } = knowledge(client)
    return inHotStandby === true && !isPooled
  },
}

async function ask(client: PoolClient, text: string, timeoutMs: number): Promise<readonly unknown[]> {
  // pg's own time-out leaves the connection as it is, with the answer still to come.
  const query = client.query<unknown[]>({ text, rowMode: 'array' } as QueryArrayConfig)
  const { rows } = await within(client, timeoutMs, query)
  return rows[0] ?? []
}

import { AsyncLocalStorage } from 'node:async_hooks'
import { subscribe } from 'node:diagnostics_channel'
import type { Socket } from 'node:net'

const opening = new AsyncLocalStorage<Set<Socket>>()
let isWatching = false

/**
 * Connects, and when that fails destroys the sockets that were made for it: @nats-io/transport-node 3.4 leaves them to a server that
 * says nothing, which would keep the process, and be one more with each attempt.
 */
export async function closingOnFailure<Connection>(connect: () => Promise<Connection>): Promise<Connection> {
  if (!isWatching) subscribe('net.client.socket', remember)
  isWatching = true
  const sockets = new Set<Socket>()
  try {
    return await opening.run(sockets, connect)
  } catch (error) {
    for (const socket of sockets) socket.destroy()
    throw error
  }
}

function remember(message: unknown): void {
  const { socket } = message as { readonly socket: Socket }
  opening.getStore()?.add(socket)
}

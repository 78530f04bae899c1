import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import type { Connection, Producer } from '@platformatic/kafka'
import type * as Client from '@platformatic/kafka'
import { guardData } from '../core/index.ts'

/** Instances of the client that are ours. */
const ours = new Set<number>()
let isWatching = false

/**
 * Keeps a connection from ending the process. @platformatic/kafka 2.12 emits `error` twice on one that breaks during the SASL
 * handshake, and only the first is heard; and it throws while it reads from a peer that speaks something else. Both are thrown in
 * nobody's stack. It offers no hook for its connections, but announces them on a diagnostics channel, with the instance that they
 * belong to.
 */
export function guardConnections(
  client: Pick<typeof Client, 'connectionsConnectsChannel'>,
  producer: Pick<Producer, 'instanceId'>,
): void {
  ours.add(producer.instanceId)
  if (isWatching) return
  isWatching = true
  client.connectionsConnectsChannel.start.subscribe((message) => {
    const { connection } = message as { connection?: Connection }
    if (connection?.ownerId === undefined || !ours.has(connection.ownerId)) return
    connection.on('error', ignore)
    // Its socket is made after this, in the same turn of the event loop.
    queueMicrotask(() => guardSocket(connection.socket))
  })
}

export function endGuard(producer: Pick<Producer, 'instanceId'>): void {
  ours.delete(producer.instanceId)
}

function guardSocket(socket: Socket | undefined): void {
  // The client's own listener came first, and has begun to listen for data.
  socket?.once(socket instanceof TLSSocket ? 'secureConnect' : 'connect', () =>
    guardData(socket, (thrown) => thrown as Error),
  )
}

function ignore(): void {
  // The request on that connection fails too, and is heard.
}

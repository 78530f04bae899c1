import type { Connection, Producer } from '@platformatic/kafka'
import type * as Client from '@platformatic/kafka'

/** Instances of the client that are ours. */
const ours = new Set<number>()
let isWatching = false

/**
 * Keeps a lost connection from ending the process. @platformatic/kafka 2.12 emits `error` twice on a connection that breaks
 * during the SASL handshake, and only the first is heard: the second is thrown in nobody's stack. It offers no hook for its
 * connections, but announces them on a diagnostics channel, with the instance that they belong to.
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
    if (connection?.ownerId !== undefined && ours.has(connection.ownerId)) connection.on('error', ignore)
  })
}

export function endGuard(producer: Pick<Producer, 'instanceId'>): void {
  ours.delete(producer.instanceId)
}

function ignore(): void {
  // The request on that connection fails too, and is heard.
}

import type { Socket } from 'node:net'
import type { Connection } from 'rabbitmq-client'

/** More than any frame that a broker sends us, in bytes. */
const readBytesMax = 16 * 1024 * 1024

/**
 * Keeps a peer that does not speak AMQP from ending the process (an HTTP server, say). rabbitmq-client 5 asks its socket for as many
 * bytes as the peer seems to announce; above 1 GiB Node throws at that, the second time in nobody's stack.
 */
export function guardReading(connection: Connection): void {
  const { _socket: socket } = connection as unknown as { readonly _socket: Socket }
  const read = socket.read.bind(socket)
  socket.read = (size?: number): unknown => {
    if (size === undefined || size <= readBytesMax) return read(size)
    socket.destroy(new Error('the peer does not speak AMQP'))
    return null
  }
}

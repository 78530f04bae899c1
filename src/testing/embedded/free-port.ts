import { createServer } from 'node:net'

/**
 * Ports are drawn from below the range that the system uses for outgoing connections. A server that comes back on its
 * old port must find it free: inside that range, any client's connection can have taken it, and a client that keeps
 * dialling a closed port of the loopback interface can even connect to itself.
 */
const PORT_MIN = 15_000
const PORT_MAX = 32_000
const ATTEMPTS_MAX = 50

/** A TCP port of 127.0.0.1 that nobody listens on right now. */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
    const port = PORT_MIN + Math.floor(Math.random() * (PORT_MAX - PORT_MIN))
    if (await isFree(port)) return port
  }
  throw new Error(`Expected a free port between ${PORT_MIN} and ${PORT_MAX}, found none in ${ATTEMPTS_MAX} attempts.`)
}

function isFree(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>()
  const server = createServer()
  server.once('error', () => resolve(false))
  server.listen({ port, host: '127.0.0.1', exclusive: true }, () => server.close(() => resolve(true)))
  return promise
}

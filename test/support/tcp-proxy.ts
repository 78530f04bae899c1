import { once } from 'node:events'
import { type Server, type Socket, connect, createServer } from 'node:net'
import { freePort } from '../../src/testing/embedded/free-port.ts'

/** A TCP proxy in front of a server, to lose its network on purpose. */
export interface TcpProxy extends AsyncDisposable {
  readonly port: number
  /** The target's URL through the proxy. */
  readonly url: string
  /** The same for another URL of the same server, for example another role's. */
  through(url: string): string
  /** Connections that clients have open now. */
  readonly connectionCount: number
  /** Times that a client sent something after it was answered, or first: what a latency of the network would count. */
  readonly roundTrips: number
  /** Resets all connections (RST) and goes on to accept new ones. */
  reset(): void
  /** Resets all connections (RST) and refuses new ones, until `resume()`. */
  cut(): Promise<void>
  /** Keeps connections open and accepts new ones, but forwards no byte and no end, until `resume()`. */
  stall(): void
  /** Ends a cut or a stall; what was held back by a stall arrives now. */
  resume(): Promise<void>
  /** New connections lead to another server from now on. */
  redirect(targetUrl: string): void
  /** Resets all connections and closes the port for good. */
  stop(): Promise<void>
}

/** Starts a proxy before the server of a URL. */
export async function startTcpProxy(targetUrl: string): Promise<TcpProxy> {
  const proxy = new Proxy(targetUrl, await freePort())
  await proxy.resume()
  return proxy
}

class Proxy implements TcpProxy {
  readonly port: number
  readonly url: string
  #target: { host: string; port: number }
  readonly #connections = new Set<Connection>()
  #server: Server | undefined
  #isStalled = false
  roundTrips = 0

  constructor(targetUrl: string, port: number) {
    this.#target = addressOf(targetUrl)
    this.port = port
    this.url = this.through(targetUrl)
  }

  through(url: string): string {
    const through = new URL(url)
    through.hostname = '127.0.0.1'
    through.port = String(this.port)
    return through.href
  }

  get connectionCount(): number {
    return this.#connections.size
  }

  reset(): void {
    for (const connection of this.#connections) connection.reset()
  }

  async cut(): Promise<void> {
    const server = this.#server
    this.#server = undefined
    const closed = server === undefined ? undefined : once(server, 'close')
    server?.close()
    this.reset()
    await closed
  }

  stall(): void {
    this.#isStalled = true
    for (const connection of this.#connections) connection.hold()
  }

  async resume(): Promise<void> {
    this.#isStalled = false
    for (const connection of this.#connections) connection.flow()
    this.#server ??= await this.#listen()
  }

  redirect(targetUrl: string): void {
    this.#target = addressOf(targetUrl)
  }

  stop(): Promise<void> {
    return this.cut()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  async #listen(): Promise<Server> {
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (client) => this.#accept(client))
    server.listen({ port: this.port, host: '127.0.0.1' })
    await once(server, 'listening')
    return server
  }

  #accept(client: Socket): void {
    const connection = new Connection(client, this.#target, {
      onClosed: () => this.#connections.delete(connection),
      onTurn: () => (this.roundTrips += 1),
    })
    this.#connections.add(connection)
    if (!this.#isStalled) connection.flow()
  }
}

function addressOf(url: string): { host: string; port: number } {
  const { hostname, port } = new URL(url)
  return { host: hostname, port: Number(port || 5432) }
}

/** One client and its way to the target, which is first connected when bytes may flow. */
class Connection {
  readonly #client: Socket
  readonly #target: { host: string; port: number }
  readonly #onClosed: () => void
  readonly #onTurn: () => void
  #isAnswered = true
  #upstream: Socket | undefined
  #isHeld = true
  #isBroken = false

  constructor(
    client: Socket,
    target: { host: string; port: number },
    { onClosed, onTurn }: { onClosed: () => void; onTurn: () => void },
  ) {
    this.#client = client
    this.#target = target
    this.#onClosed = onClosed
    this.#onTurn = onTurn
    this.#watch(client)
  }

  flow(): void {
    this.#isHeld = false
    if (this.#isBroken) return this.reset()
    this.#upstream ??= this.#connectUpstream()
    this.#client.resume()
    this.#upstream.resume()
  }

  hold(): void {
    this.#isHeld = true
    this.#client.pause()
    this.#upstream?.pause()
  }

  reset(): void {
    this.#client.resetAndDestroy()
    this.#upstream?.resetAndDestroy()
    this.#onClosed()
  }

  #connectUpstream(): Socket {
    const upstream = connect({ ...this.#target, allowHalfOpen: true })
    this.#watch(upstream)
    this.#forward(this.#client, upstream)
    this.#forward(upstream, this.#client)
    return upstream
  }

  #forward(from: Socket, to: Socket): void {
    from.on('data', (chunk: Buffer) => {
      if (from === this.#client && this.#isAnswered) this.#onTurn()
      this.#isAnswered = from !== this.#client
      if (to.write(chunk)) return
      from.pause()
      to.once('drain', () => void (this.#isHeld || from.resume()))
    })
    from.on('end', () => to.end())
  }

  /** An end or a failure of one side reaches the other, but not during a stall. */
  #watch(socket: Socket): void {
    socket.setNoDelay(true)
    socket.on('error', () => {})
    socket.on('close', (hadError) => {
      if (this.#isHeld) this.#isBroken = true
      else if (hadError) this.reset()
      else if (this.#client.destroyed && this.#upstream?.destroyed !== false) this.#onClosed()
    })
  }
}

import { once } from 'node:events'
import {
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
  createServer,
} from 'node:http'
import { onTestFinished } from 'vitest'
import { freePort } from '../../src/testing/embedded/free-port.ts'

export interface ReceivedRequest {
  readonly method: string
  readonly path: string
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
}

type Answer = (request: ReceivedRequest, response: ServerResponse) => void

/** An HTTP server that keeps what it gets and answers 204, or what a test wants. */
export class WebhookReceiver {
  readonly port: number
  readonly requests: ReceivedRequest[] = []
  /** Connections it has accepted in all. */
  connectionCount = 0
  answer: Answer = (_request, response) => void response.writeHead(204).end()
  #server: Server | undefined

  private constructor(port: number) {
    this.port = port
  }

  static async start(): Promise<WebhookReceiver> {
    const receiver = new WebhookReceiver(await freePort())
    await receiver.start()
    onTestFinished(() => receiver.stop())
    return receiver
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}/hooks/orders`
  }

  async start(): Promise<void> {
    this.#server = createServer((request, response) => {
      void readBody(request).then(
        (body) => {
          const { method = '', url = '', headers } = request
          const received = { method, path: url, headers, body }
          this.requests.push(received)
          this.answer(received, response)
        },
        () => response.destroy(),
      )
    })
    this.#server.on('connection', () => (this.connectionCount += 1))
    this.#server.listen(this.port, '127.0.0.1')
    await once(this.#server, 'listening')
  }

  async stop(): Promise<void> {
    const server = this.#server
    this.#server = undefined
    if (server === undefined) return
    const closed = once(server, 'close')
    server.close()
    server.closeAllConnections()
    await closed
  }
}

async function readBody(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

import { WebhookReceiver } from '../../sinks/webhook-receiver.ts'
import { startTcpProxy } from '../../support/index.ts'
import type { Receiver } from './receiver.ts'

export async function openWebhook(): Promise<Receiver> {
  const server = await WebhookReceiver.start()
  const proxy = await startTcpProxy(server.url)
  return {
    sinkUrl: proxy.url,
    proxy,
    server,
    count: () => Promise.resolve(server.requests.length),
    bodies: () => Promise.resolve(server.requests.map(({ body }) => body.toString())),
    [Symbol.asyncDispose]: async () => {
      await proxy.stop()
      await server.stop()
    },
  }
}

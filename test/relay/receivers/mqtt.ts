import { connectAsync } from 'mqtt'
import { brokerPassword, brokerUser, startMosquitto, startTcpProxy } from '../../support/index.ts'
import type { Receiver } from './receiver.ts'

const topic = 'campaign'

/** A subscriber whose session outlives its connections, and the broker's restarts. */
export async function openMqtt(): Promise<Receiver> {
  const mosquitto = await startMosquitto()
  const proxy = await startTcpProxy(`mqtt://127.0.0.1:${mosquitto.port}`)
  const bodies: string[] = []
  const client = await connectAsync({
    protocol: 'mqtt',
    host: '127.0.0.1',
    port: mosquitto.port,
    username: brokerUser,
    password: brokerPassword,
    protocolVersion: 5,
    clientId: 'campaign',
    clean: false,
    properties: { sessionExpiryInterval: 3_600 },
    reconnectPeriod: 100,
  })
  client.on('error', () => {})
  client.on('message', (_topic, payload) => bodies.push(payload.toString()))
  await client.subscribeAsync(topic, { qos: 1 })
  return {
    sinkUrl: `mqtt://${brokerUser}:${brokerPassword}@127.0.0.1:${proxy.port}/${topic}`,
    proxy,
    server: mosquitto,
    count: () => Promise.resolve(bodies.length),
    bodies: () => Promise.resolve([...bodies]),
    [Symbol.asyncDispose]: async () => {
      await client.endAsync(true)
      await proxy.stop()
      await mosquitto.dispose()
    },
  }
}

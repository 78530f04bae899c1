import { randomUUID } from 'node:crypto'
import { type IPublishPacket, type MqttClient, connectAsync } from 'mqtt'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { type Delivery, type Sink, sinkFromUrl } from '../../src/index.ts'
import { mqttPacketBytes } from '../../src/sinks/mqtt-size.ts'
import type { SinkReceiver } from '../../src/testing/index.ts'
import { deliveryOf } from '../../src/testing/sink-contract/deliveries.ts'
import {
  type BrokerProcess,
  type TcpProxy,
  brokerPassword,
  brokerUser,
  eventually,
  lacksMosquitto,
  messageBytesMax,
  startMosquitto,
  startTcpProxy,
} from '../support/index.ts'
import { enlarged, runSinkContract } from './run-contract.ts'

const { signal } = new AbortController()

/** A consumer whose session outlives its connections. */
class Subscriber {
  readonly #client: MqttClient
  readonly #topic: string
  readonly #packets: IPublishPacket[] = []

  private constructor(client: MqttClient, topic: string) {
    this.#client = client
    this.#topic = topic
    client.on('error', () => {})
    client.on('message', (_topic, _payload, packet) => this.#packets.push(packet))
  }

  static async start(port: number, topic: string): Promise<Subscriber> {
    const client = await connectAsync({
      protocol: 'mqtt',
      host: '127.0.0.1',
      port,
      username: brokerUser,
      password: brokerPassword,
      protocolVersion: 5,
      clientId: `test-${randomUUID()}`,
      clean: false,
      properties: { sessionExpiryInterval: 3_600 },
      reconnectPeriod: 100,
    })
    const subscriber = new Subscriber(client, topic)
    await client.subscribeAsync(topic, { qos: 1 })
    return subscriber
  }

  /** All that came before now: what it sends itself comes behind that. */
  async packets(): Promise<IPublishPacket[]> {
    const mark = randomUUID()
    await this.#client.publishAsync(this.#topic, mark, { qos: 1 })
    await eventually(() => this.#packets.some(({ payload }) => payload.toString() === mark), {
      what: 'the mark is back',
    })
    return this.#packets.filter(({ payload }) => !/^[\da-f-]{36}$/.test(payload.toString()))
  }

  stop(): Promise<void> {
    return this.#client.endAsync(true)
  }
}

describe.skipIf(lacksMosquitto())('the MQTT sink', () => {
  let mosquitto: BrokerProcess
  let proxy: TcpProxy

  beforeAll(async () => {
    mosquitto = await startMosquitto()
    proxy = await startTcpProxy(`mqtt://127.0.0.1:${mosquitto.port}`)
  })
  afterAll(async () => {
    await proxy.stop()
    await mosquitto.dispose()
  })

  const urlOf = (topic: string, password = brokerPassword): string =>
    `mqtt://${brokerUser}:${password}@127.0.0.1:${proxy.port}/${topic}`

  const open = async (): Promise<SinkReceiver> => {
    const topic = `test/${randomUUID()}`
    const subscriber = await Subscriber.start(mosquitto.port, topic)
    return {
      network: proxy,
      server: mosquitto,
      createSink: () => sinkFromUrl(urlOf(topic), { timeoutMs: 1_000 }),
      received: async () => (await subscriber.packets()).map(({ payload }) => Buffer.from(payload)),
      refused: (delivery) => enlarged(delivery, messageBytesMax + 1),
      close: async () => {
        await proxy.resume()
        await subscriber.stop()
      },
    }
  }

  runSinkContract({
    open,
    has: { network: true, server: true, refused: true },
    deliverMsMax: 3_000,
    secrets: [brokerPassword],
  })

  const started = async (sink: Sink): Promise<Sink> => {
    await sink.start()
    onTestFinished(() => sink.stop())
    return sink
  }

  test('sends QoS 1 with content type, message id as correlation data, and headers as user properties', async () => {
    const topic = `test/${randomUUID()}`
    const subscriber = await Subscriber.start(mosquitto.port, topic)
    const sink = await started(sinkFromUrl(urlOf(topic)))
    const delivery = deliveryOf('k', 1)
    expect(await sink.deliver([delivery], signal)).toEqual([undefined])
    const packets = await subscriber.packets()
    await subscriber.stop()
    expect(packets).toMatchObject([
      {
        qos: 1,
        topic,
        properties: {
          contentType: 'application/json',
          correlationData: Buffer.from(delivery.messageId),
          userProperties: delivery.headers,
        },
      },
    ])
  })

  test('without a topic in its URL it delivers to the destination', async () => {
    const destination = `outbox.event.${randomUUID()}`
    const subscriber = await Subscriber.start(mosquitto.port, destination)
    const sink = await started(sinkFromUrl(urlOf('')))
    expect(await sink.deliver([{ ...deliveryOf('k', 1), destination }], signal)).toEqual([undefined])
    expect(await subscriber.packets()).toHaveLength(1)
    await subscriber.stop()
  })

  test('what nobody subscribes to has failed, unless that is allowed', async () => {
    const topic = `test/${randomUUID()}`
    const sink = await started(sinkFromUrl(urlOf(topic)))
    const outcomes = await sink.deliver([deliveryOf('k', 1), deliveryOf('k', 2)], signal)
    expect(outcomes).toMatchObject([{ code: 'no_subscriber', retryable: true }, { code: 'not_attempted' }])
    const lax = await started(sinkFromUrl(urlOf(topic), { mqtt: { requireSubscriber: false } }))
    expect(await lax.deliver([deliveryOf('k', 1)], signal)).toEqual([undefined])
  })

  test('a topic with wildcards is refused for good', async () => {
    const sink = await started(sinkFromUrl(urlOf('')))
    const outcomes = await sink.deliver([{ ...deliveryOf('k', 1), destination: 'a/+/b' }], signal)
    expect(outcomes).toMatchObject([{ code: 'invalid_topic', retryable: false }])
  })

  test('headers that are too large fail their own delivery for good', async () => {
    const sink = await started(sinkFromUrl(urlOf(`test/${randomUUID()}`), { mqtt: { requireSubscriber: false } }))
    const large = { ...deliveryOf('large', 1), headers: { 'x-large': 'y'.repeat(65_536) } }
    const below = { ...deliveryOf('below', 1), headers: { 'x-large': 'y'.repeat(65_535) } }
    const batch = [large, below, deliveryOf('other', 1)]
    for (let attempt = 0; attempt < 2; attempt += 1) {
      expect(await sink.deliver(batch, signal)).toMatchObject([
        { code: 'message_too_large', retryable: false },
        undefined,
        undefined,
      ])
    }
  })

  test('a packet of the size that the broker takes is delivered, and one byte more fails alone and for good', async () => {
    const sink = await started(sinkFromUrl(urlOf('t'), { mqtt: { requireSubscriber: false } }))
    const sized = (key: string, bytes: number): Delivery => {
      const empty = enlarged(deliveryOf(key, 1), 0)
      // The length of a large packet takes three bytes instead of two.
      return enlarged(empty, bytes - mqttPacketBytes('t', empty) - 1)
    }
    const batch = [sized('k', messageBytesMax), sized('large', messageBytesMax + 1), deliveryOf('other', 1)]
    expect(mqttPacketBytes('t', sized('k', messageBytesMax))).toBe(messageBytesMax)
    for (let attempt = 0; attempt < 2; attempt += 1) {
      expect(await sink.deliver(batch, signal)).toMatchObject([
        undefined,
        { code: 'message_too_large', retryable: false },
        undefined,
      ])
    }
  })

  test('wrong credentials are told, and not shown', async () => {
    const sink = sinkFromUrl(urlOf('t', 'wr0ng-s3cret'), { timeoutMs: 3_000 })
    await expect(sink.start()).rejects.toMatchObject({
      code: 'connection_failed',
      retryable: true,
      message: expect.not.stringContaining('wr0ng') as string,
    })
  })
})

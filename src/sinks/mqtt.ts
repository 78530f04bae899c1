import { randomUUID } from 'node:crypto'
import type { IConnackPacket, MqttClient } from 'mqtt'
import { type Delivery, DeliveryError, type DeliveryOutcome } from '../relay/index.ts'
import { BaseSink } from './base-sink.ts'
import { type BrokerUrl, parseBrokerUrl } from './broker-url.ts'
import { deliverByKey } from './by-key.ts'
import { checkedCount } from './checked-options.ts'
import { Deadline } from './deadline.ts'
import { loadClient } from './load-client.ts'
import { mqttPacketBytes } from './mqtt-size.ts'
import { Places } from './places.ts'
import { SharedConnection } from './shared-connection.ts'

export interface MqttSinkOptions {
  /** `mqtt://user:password@host:port/TOPIC`, `mqtts:` for TLS. Without a topic the delivery's destination is it. */
  readonly url: string
  /** Milliseconds that a call may take. Default 30,000. */
  readonly timeoutMs?: number | undefined
  /** What no subscriber (present or with a session) takes has failed, instead of being forgotten by the broker. Default true. */
  readonly requireSubscriber?: boolean | undefined
  /** Own certificates of an `mqtts:` URL. */
  readonly tls?: { readonly ca?: string; readonly cert?: string; readonly key?: string } | undefined
}

interface Session {
  readonly client: MqttClient
  /** Messages that the broker takes before it has confirmed one. */
  readonly places: Places
  readonly packetBytesMax: number
  /** Packet ids whose acknowledgement says that nobody subscribes. */
  readonly unheard: Set<number>
}

const scheme = { plain: 'mqtt', secure: 'mqtts', defaultPort: 1883, defaultSecurePort: 8883 }
const mqttBatchSizeMax = 100
/** On their way at most, whatever more the broker would take. */
const placesMax = 200
/** Of the protocol. */
const packetBytesMaxOfAll = 268_435_455
/** Reason codes of PUBACK in MQTT 5. */
const reason = { noMatchingSubscribers: 0x10, notAuthorized: 0x87, topicNameInvalid: 0x90, packetTooLarge: 0x95 }

/** MQTT 5 with QoS 1. Confirmed when the broker has taken it over (PUBACK) for its subscribers. */
export class MqttSink extends BaseSink {
  readonly name: string
  readonly transport = 'mqtt'
  readonly batchSizeMax: number = mqttBatchSizeMax
  readonly #url: BrokerUrl
  readonly #options: MqttSinkOptions
  readonly #timeoutMs: number
  readonly #connection: SharedConnection<Session>

  constructor(options: MqttSinkOptions) {
    super()
    this.#url = parseBrokerUrl(options.url, scheme)
    this.name = this.#url.name
    this.#options = options
    this.#timeoutMs = checkedCount('timeoutMs', options.timeoutMs, 30_000)
    this.#connection = new SharedConnection({
      sinkName: this.name,
      secrets: this.#url.secrets,
      open: () => this.#open(),
      close: ({ client }) => void client.end(true),
    })
  }

  protected async onStart(): Promise<void> {
    using deadline = new Deadline(this.name, this.#timeoutMs, this.stopSignal)
    await this.#connection.use(deadline, async () => {})
  }

  protected async onDeliver(batch: readonly Delivery[], signal: AbortSignal): Promise<readonly DeliveryOutcome[]> {
    using deadline = new Deadline(this.name, this.#timeoutMs, signal)
    return await deliverByKey(batch, deadline, async (delivery) => {
      await this.#connection.use(deadline, (session) => this.#send(session, delivery, deadline))
    })
  }

  protected async onRelease(): Promise<void> {
    await this.#connection.close()
  }

  async #send(session: Session, delivery: Delivery, deadline: Deadline): Promise<void> {
    const topic = this.#url.place ?? delivery.destination
    if (/[+#\0]/.test(topic) || Buffer.byteLength(topic) > 65_535) throw this.#invalidTopic(topic)
    // What the client cannot encode, or the broker does not take, would end the connection of all.
    if (mqttPacketBytes(topic, delivery) > session.packetBytesMax) throw this.#tooLarge()
    using _place = await session.places.take(deadline.signal)
    const code = await publish(session, topic, delivery)
    if (code === reason.packetTooLarge) throw this.#tooLarge()
    if (code === reason.topicNameInvalid) throw this.#invalidTopic(topic)
    if (code === reason.noMatchingSubscribers) {
      if (this.#options.requireSubscriber !== false) throw this.#noSubscriber(topic)
    } else if (code !== 0) {
      throw this.#refused(topic, code)
    }
  }

  #tooLarge(): DeliveryError {
    return new DeliveryError(`${this.name}: the message is too large for the broker.`, {
      code: 'message_too_large',
      retryable: false,
      hint: 'Raise its limit (max_packet_size), or send less: a reference instead of the whole, headers below 64 kB.',
    })
  }

  #invalidTopic(topic: string): DeliveryError {
    return new DeliveryError(`${this.name}: "${topic}" is no topic that can be published to.`, {
      code: 'invalid_topic',
      retryable: false,
      hint: 'Name a topic in the URL of the sink, or topics without + and #.',
    })
  }

  #noSubscriber(topic: string): DeliveryError {
    return new DeliveryError(`${this.name}: nobody subscribes to ${topic}, so the broker keeps nothing.`, {
      code: 'no_subscriber',
      retryable: true,
      hint: 'Let the consumer subscribe with a session that lasts, or set requireSubscriber: false.',
    })
  }

  #refused(topic: string, code: number): DeliveryError {
    const found = code === reason.notAuthorized ? 'this user may not publish to it' : `reason code ${code}`
    return new DeliveryError(`${this.name}: the broker refused a message to ${topic}: ${found}.`, {
      code: code === reason.notAuthorized ? 'not_authorized' : 'refused_by_broker',
      retryable: true,
    })
  }

  async #open(): Promise<Session> {
    const { connect } = await loadClient('mqtt@^5.10', () => import('mqtt'))
    const { servers, username, password, isSecure } = this.#url
    const [{ host, port } = { host: 'localhost', port: scheme.defaultPort }] = servers
    const client = connect({
      protocol: isSecure ? 'mqtts' : 'mqtt',
      host,
      port,
      ...(username !== undefined && { username }),
      ...(password !== undefined && { password }),
      ...this.#options.tls,
      protocolVersion: 5,
      clientId: `trunkline-${randomUUID().slice(0, 13)}`,
      clean: true,
      reconnectPeriod: 0,
      connectTimeout: this.#timeoutMs,
    })
    try {
      const { properties } = await untilConnected(client)
      const session: Session = {
        client,
        places: new Places(Math.min(placesMax, properties?.receiveMaximum ?? placesMax)),
        packetBytesMax: properties?.maximumPacketSize ?? packetBytesMaxOfAll,
        unheard: new Set(),
      }
      client.on('close', () => this.#connection.discard(session))
      client.on('packetreceive', (packet) => {
        if (packet.cmd !== 'puback' || packet.reasonCode !== reason.noMatchingSubscribers) return
        if (packet.messageId !== undefined) session.unheard.add(packet.messageId)
      })
      return session
    } catch (error) {
      client.end(true)
      throw error
    }
  }
}

async function untilConnected(client: MqttClient): Promise<IConnackPacket> {
  const { promise, resolve, reject } = Promise.withResolvers<IConnackPacket>()
  client.on('connect', resolve)
  // It also keeps later errors from ending the process; whoever uses the connection hears of them.
  client.on('error', reject)
  client.on('close', () => reject(new Error('the broker closed the connection')))
  return promise
}

/** Resolves with the reason code of the acknowledgement. */
async function publish({ client, unheard }: Session, topic: string, delivery: Delivery): Promise<number> {
  const { messageId, contentType, headers, body } = delivery
  // User properties are the format's alone: CloudEvents takes each for an attribute.
  const properties = {
    contentType,
    correlationData: Buffer.from(messageId),
    // The client writes an empty object as a list without properties, which brokers take for a broken packet.
    ...(Object.keys(headers).length > 0 && { userProperties: { ...headers } }),
  }
  try {
    const sent = await client.publishAsync(topic, body, { qos: 1, properties })
    const id = sent?.messageId
    return id !== undefined && unheard.delete(id) ? reason.noMatchingSubscribers : 0
  } catch (error) {
    const { code } = error as { code?: unknown }
    if (typeof code === 'number' && code >= 0x80) return code
    throw error
  }
}

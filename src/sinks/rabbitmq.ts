import { setImmediate } from 'node:timers/promises'
import type { Channel, Connection } from 'rabbitmq-client'
import { messageOf } from '../core/index.ts'
import { type Delivery, DeliveryError, type DeliveryOutcome } from '../relay/index.ts'
import { BaseSink } from './base-sink.ts'
import { type BrokerUrl, parseBrokerUrl } from './broker-url.ts'
import { deliverByKey } from './by-key.ts'
import { checkedCount } from './checked-options.ts'
import { Deadline } from './deadline.ts'
import { loadClient } from './load-client.ts'
import { guardReading } from './rabbitmq-guard.ts'
import { serverNameOf } from './server-name.ts'
import { SharedConnection } from './shared-connection.ts'

export interface RabbitMqSinkOptions {
  /**
   * `amqp://user:password@host:port/EXCHANGE`, `amqps:` for TLS, `?vhost=NAME` for another virtual host than `/`. Without an
   * exchange the delivery's destination is it.
   */
  readonly url: string
  /** Milliseconds that a call may take. Default 30,000. */
  readonly timeoutMs?: number | undefined
  /** Own certificates of an `amqps:` URL. */
  readonly tls?: { readonly ca?: string; readonly cert?: string; readonly key?: string } | undefined
}

interface Session {
  readonly connection: Connection
  readonly channel: Channel
  /** Message ids that came back because no queue takes them; the confirmation follows. */
  readonly returned: Set<string>
  /** Exchanges that are known to be there. */
  readonly exchanges: Map<string, Promise<void>>
}

const scheme = { plain: 'amqp', secure: 'amqps', defaultPort: 5672, defaultSecurePort: 5671 }
const rabbitMqBatchSizeMax = 200

/** Bytes of a frame: what RabbitMQ takes by default. Properties and headers of a message have to fit into one. */
const frameMax = 131_072
/** Bytes of that for all but the headers. */
const otherPropertiesBytes = 1_024
/** Bytes of names in the protocol; the client would cut what is longer. */
const nameBytesMax = 255

/** Of the broker's answer to a message that is too large. */
const tooLarge = /message size (\d+).*max(?:imum)? (?:message )?size (\d+)/i

/**
 * RabbitMQ, with publisher confirms and persistent messages: confirmed when every queue that takes the message has it (a
 * quorum queue: a majority). The routing key is the topic. `mandatory`: a message that no queue takes has failed.
 */
export class RabbitMqSink extends BaseSink {
  readonly name: string
  readonly transport = 'amqp'
  readonly batchSizeMax: number = rabbitMqBatchSizeMax
  readonly #url: BrokerUrl
  readonly #tls: RabbitMqSinkOptions['tls']
  readonly #timeoutMs: number
  readonly #connection: SharedConnection<Session>
  /** Bytes that the broker takes at most, once it has said so. */
  #bodyBytesMax = Infinity

  constructor({ url, timeoutMs, tls }: RabbitMqSinkOptions) {
    super()
    this.#url = parseBrokerUrl(url, scheme)
    this.name = this.#url.name
    this.#tls = tls
    this.#timeoutMs = checkedCount('timeoutMs', timeoutMs, 30_000)
    this.#connection = new SharedConnection({
      sinkName: this.name,
      secrets: this.#url.secrets,
      open: () => this.#open(),
      close: ({ connection }) => connection.unsafeDestroy(),
    })
  }

  protected async onStart(): Promise<void> {
    using deadline = new Deadline(this.name, this.#timeoutMs, this.stopSignal)
    await this.#connection.use(deadline, async (session) => {
      if (this.#url.place !== undefined) await this.#findExchange(session, this.#url.place)
    })
  }

  protected async onDeliver(batch: readonly Delivery[], signal: AbortSignal): Promise<readonly DeliveryOutcome[]> {
    using deadline = new Deadline(this.name, this.#timeoutMs, signal)
    return await deliverByKey(batch, deadline, async (delivery) => {
      const isSent = await this.#connection.use(deadline, (session) => this.#send(session, delivery))
      // Another message, which was too large, took the channel with it.
      if (isSent || (await this.#connection.use(deadline, (session) => this.#send(session, delivery)))) return
      throw this.#channelLost()
    })
  }

  protected async onRelease(): Promise<void> {
    await this.#connection.close()
  }

  /** False: the channel was closed for another's sake. */
  async #send(session: Session, delivery: Delivery): Promise<boolean> {
    const exchange = this.#url.place ?? delivery.destination
    this.#checkSize(delivery)
    // What the client cannot encode would close the channel, for all that are on their way on it.
    this.#checkEncodable(delivery, exchange)
    await this.#findExchange(session, exchange)
    try {
      await session.channel.basicPublish(envelopeOf(exchange, delivery), delivery.body)
    } catch (error) {
      if (codeOf(error) === 'NACK') throw this.#refusedByQueue(exchange)
      const learnt = Number(tooLarge.exec(messageOf(error))?.[2] ?? Infinity)
      this.#bodyBytesMax = Math.min(this.#bodyBytesMax, learnt)
      // The broker's reason goes to one message of the channel, which need not be the large one; the others hear that it closed.
      const isAnothers = this.#bodyBytesMax < Infinity && codeOf(error) === 'CH_CLOSE'
      if (learnt === Infinity && !isAnothers) throw error
      this.#connection.discard(session)
      this.#checkSize(delivery)
      return false
    }
    // What no queue takes comes back before its confirmation, but the client tells it a turn of the loop later.
    await setImmediate()
    if (session.returned.delete(delivery.messageId)) throw this.#unroutable(exchange, delivery)
    return true
  }

  /** Asks on a channel of its own: a missing exchange closes the one that asked, and publishing would take all others along. */
  #findExchange({ connection, exchanges }: Session, exchange: string): Promise<void> {
    const known = exchanges.get(exchange)
    if (known !== undefined) return known
    const found = this.#askForExchange(connection, exchange)
    exchanges.set(exchange, found)
    found.catch(() => exchanges.delete(exchange))
    return found
  }

  async #askForExchange(connection: Connection, exchange: string): Promise<void> {
    const channel = await connection.acquire()
    try {
      await channel.exchangeDeclare({ exchange, passive: true })
    } catch (error) {
      const code = codeOf(error)
      if (code === 'NOT_FOUND') throw this.#exchangeMissing(exchange)
      if (code === 'ACCESS_REFUSED') throw this.#accessRefused(exchange)
      throw error
    } finally {
      if (channel.active) await channel.close()
    }
  }

  #checkSize({ body }: Delivery): void {
    if (body.length <= this.#bodyBytesMax) return
    throw new DeliveryError(
      `${this.name}: the message has ${body.length} bytes, and the broker takes ${this.#bodyBytesMax} at most.`,
      {
        code: 'message_too_large',
        retryable: false,
        hint: 'Raise max_message_size of the broker, or send less: a reference instead of the whole.',
      },
    )
  }

  #checkEncodable({ headers, change }: Delivery, exchange: string): void {
    const bytes = tableBytesOf(headers)
    if (bytes > frameMax - otherPropertiesBytes) {
      throw new DeliveryError(`${this.name}: the headers have ${bytes} bytes, and there is room for about 128 kB.`, {
        code: 'message_too_large',
        retryable: false,
        hint: 'Send less in headers: cloudevents-binary has the key in one.',
      })
    }
    const tooLong = [exchange, change.topic].find((name) => Buffer.byteLength(name) > nameBytesMax)
    if (tooLong === undefined) return
    throw new DeliveryError(`${this.name}: "${tooLong.slice(0, 50)}…" is longer than ${nameBytesMax} bytes.`, {
      code: 'invalid_topic',
      retryable: false,
      hint: 'Exchanges and routing keys (topics) can have no longer names.',
    })
  }

  #channelLost(): DeliveryError {
    return new DeliveryError(`${this.name}: the channel was closed twice, for other messages.`, {
      code: 'channel_lost',
      retryable: true,
    })
  }

  #unroutable(exchange: string, { change }: Delivery): DeliveryError {
    return new DeliveryError(`${this.name}: no queue takes what exchange ${exchange} gets for "${change.topic}".`, {
      code: 'unroutable',
      retryable: true,
      hint: 'Bind a queue to the exchange for this routing key.',
      details: { exchange, routingKey: change.topic },
    })
  }

  #refusedByQueue(exchange: string): DeliveryError {
    return new DeliveryError(`${this.name}: a queue behind exchange ${exchange} refused the message.`, {
      code: 'refused_by_queue',
      retryable: true,
      hint: 'Look whether it is full (x-max-length with reject-publish).',
    })
  }

  #exchangeMissing(exchange: string): DeliveryError {
    return new DeliveryError(`${this.name}: there is no exchange ${exchange}.`, {
      code: 'exchange_missing',
      retryable: true,
      hint: 'Declare it, durable, and bind queues to it.',
      details: { exchange },
    })
  }

  #accessRefused(exchange: string): DeliveryError {
    return new DeliveryError(`${this.name}: this user may not use exchange ${exchange}.`, {
      code: 'not_authorized',
      retryable: true,
      hint: 'Give it the permissions configure and write.',
    })
  }

  async #open(): Promise<Session> {
    const { Connection } = await loadClient('rabbitmq-client@^5', () => import('rabbitmq-client'))
    const { servers, username = 'guest', password = 'guest', parameters, isSecure } = this.#url
    const [first] = servers
    const connection = new Connection({
      hosts: servers.map(({ host, port }) => (host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`)),
      username,
      password,
      vhost: parameters.get('vhost') ?? '/',
      tls: isSecure && { ...(first !== undefined && serverNameOf(first.host)), ...this.#tls },
      connectionTimeout: this.#timeoutMs,
      acquireTimeout: this.#timeoutMs,
      frameMax,
      noDelay: true,
      connectionName: 'trunkline',
    })
    guardReading(connection)
    try {
      await untilConnected(connection)
      const channel = await connection.acquire({ emitErrorsFromChannel: true })
      const session: Session = { connection, channel, returned: new Set(), exchanges: new Map() }
      channel.on('error', ignore)
      channel.on('basic.return', ({ messageId }) => void (messageId !== undefined && session.returned.add(messageId)))
      channel.on('close', () => this.#connection.discard(session))
      await channel.confirmSelect()
      return session
    } catch (error) {
      connection.unsafeDestroy()
      throw error
    }
  }
}

/** The first failure is told at once; the client itself would try for ever. */
async function untilConnected(connection: Connection): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  connection.on('connection', resolve)
  // It also keeps later errors from ending the process; whoever uses the connection hears of them.
  connection.on('error', reject)
  await promise
}

function envelopeOf(exchange: string, delivery: Delivery): Parameters<Channel['basicPublish']>[0] {
  const { change, messageId, contentType, headers } = delivery
  return {
    exchange,
    routingKey: change.topic,
    mandatory: true,
    durable: true,
    messageId,
    contentType,
    headers: { ...headers },
    timestamp: Math.floor(Date.parse(change.createdAt) / 1000),
    ...(change.type !== null && Buffer.byteLength(change.type) < 256 && { type: change.type }),
  }
}

/** Of headers in a field table: each has a length, a type and a length before name and value. */
function tableBytesOf(headers: Readonly<Record<string, string>>): number {
  const sizes = Object.entries(headers).map(([name, value]) => 6 + Buffer.byteLength(name) + Buffer.byteLength(value))
  return sizes.reduce((sum, size) => sum + size, 4)
}

function codeOf(error: unknown): unknown {
  return (error as { code?: unknown } | null)?.code
}

function ignore(): void {
  // The requests on that channel fail too, and are heard.
}

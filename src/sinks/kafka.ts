import type { ConnectionOptions as TlsOptions } from 'node:tls'
import type { Producer } from '@platformatic/kafka'
import type { Delivery, DeliveryOutcome } from '../relay/index.ts'
import { BaseSink } from './base-sink.ts'
import { type BrokerUrl, parseBrokerUrl } from './broker-url.ts'
import { notAttempted } from './by-key.ts'
import { checkedCount } from './checked-options.ts'
import { Deadline } from './deadline.ts'
import { kafkaAnswer } from './kafka-answer.ts'
import { endGuard, guardConnections } from './kafka-guard.ts'
import { recordOf } from './kafka-record.ts'
import { KafkaTopic } from './kafka-topic.ts'
import { loadClient } from './load-client.ts'
import { Outcomes } from './outcomes.ts'
import { SharedConnection } from './shared-connection.ts'

export interface KafkaSinkOptions {
  /** `kafka://user:password@host:port,host:port/TOPIC`; `kafkas:` for TLS. Without a topic the delivery's destination is it. */
  readonly url: string
  /** Milliseconds that a call may take. Default 30,000. */
  readonly timeoutMs?: number | undefined
  /** Of a URL with user and password. Default `PLAIN`. */
  readonly saslMechanism?: 'PLAIN' | 'SCRAM-SHA-256' | 'SCRAM-SHA-512' | undefined
  /** Of a `kafkas:` URL: own certificates. */
  readonly tls?: TlsOptions | undefined
  /** Asks the brokers to make a topic that is missing, which they do if `auto.create.topics.enable` allows it. Default true. */
  readonly autoCreateTopics?: boolean | undefined
}

const scheme = { plain: 'kafka', secure: 'kafkas', defaultPort: 9092, defaultSecurePort: 9093 }
const kafkaBatchSizeMax = 1_000
/** Milliseconds to connect, within the time of the call. */
const connectTimeoutMs = 5_000

/**
 * Kafka, by an idempotent producer with `acks=all`. The delivery's key is the record's, and the partition is the one that Java's
 * producer would choose (murmur2). Confirmed when all in-sync replicas have it. Per topic one request is on its way at a
 * time, with whatever has come in meanwhile: nothing can overtake, and load makes the batches larger.
 */
export class KafkaSink extends BaseSink {
  readonly name: string
  readonly transport = 'kafka'
  readonly batchSizeMax: number = kafkaBatchSizeMax
  readonly #url: BrokerUrl
  readonly #options: KafkaSinkOptions
  readonly #timeoutMs: number
  readonly #connection: SharedConnection<Producer>
  readonly #topics = new Map<string, KafkaTopic>()

  constructor(options: KafkaSinkOptions) {
    super()
    this.#url = parseBrokerUrl(options.url, scheme)
    this.name = this.#url.name
    this.#options = options
    this.#timeoutMs = checkedCount('timeoutMs', options.timeoutMs, 30_000)
    this.#connection = new SharedConnection({
      sinkName: this.name,
      secrets: this.#url.secrets,
      open: () => this.#open(),
      close: async (producer) => {
        await producer.close(true)
        endGuard(producer)
      },
    })
  }

  protected async onStart(): Promise<void> {
    using deadline = new Deadline(this.name, this.#timeoutMs, this.stopSignal)
    const { place } = this.#url
    await this.#connection.use(deadline, async (producer) => {
      await this.#answered(place, producer.metadata({ topics: place === undefined ? [] : [place] }))
    })
  }

  protected async onDeliver(batch: readonly Delivery[], signal: AbortSignal): Promise<readonly DeliveryOutcome[]> {
    if (signal.aborted) return batch.map(() => notAttempted(false))
    using deadline = new Deadline(this.name, this.#timeoutMs, signal)
    const outcomes = new Outcomes(batch.length, deadline)
    const lanes = new Map<string, { failed: boolean }>()
    for (const [index, delivery] of batch.entries()) {
      const { key, destination } = delivery
      // Without a key nothing hangs on anything else.
      const lane = (key === null ? undefined : lanes.get(key)) ?? { failed: false }
      if (key !== null) lanes.set(key, lane)
      this.#topic(this.#url.place ?? destination).add({ delivery, lane, outcomes, index })
    }
    return await outcomes.settled()
  }

  protected async onRelease(): Promise<void> {
    this.#topics.clear()
    await this.#connection.close()
  }

  #topic(name: string): KafkaTopic {
    const known = this.#topics.get(name)
    if (known !== undefined) return known
    const topic = new KafkaTopic((messages, deadline) => this.#send(name, messages, deadline))
    this.#topics.set(name, topic)
    return topic
  }

  async #send(topic: string, deliveries: readonly Delivery[], deadline: Deadline): Promise<void> {
    await this.#connection.use(deadline, async (producer) => {
      const messages = deliveries.map((delivery) => recordOf(topic, delivery))
      await this.#answered(topic, producer.send({ messages }))
    })
  }

  /** Tells a clear answer of the brokers from a connection in doubt. */
  async #answered(topic: string | undefined, request: Promise<unknown>): Promise<void> {
    try {
      await request
    } catch (error) {
      throw kafkaAnswer(error, this.name, topic) ?? error
    }
  }

  async #open(): Promise<Producer> {
    const client = await loadClient('@platformatic/kafka@^2.12', () => import('@platformatic/kafka'))
    const { servers, username = '', password = '', isSecure } = this.#url
    const { saslMechanism = 'PLAIN', tls = {}, autoCreateTopics = true } = this.#options
    let turn = 0
    const producer = new client.Producer({
      clientId: 'trunkline',
      bootstrapBrokers: servers.map(({ host, port }) => ({ host, port })),
      idempotent: true,
      autocreateTopics: autoCreateTopics,
      // Few and quick: what lasts longer is the relay's to repeat, with its back-off and its count.
      retries: 5,
      retryDelay: 100,
      connectTimeout: Math.min(connectTimeoutMs, this.#timeoutMs),
      timeout: this.#timeoutMs,
      requestTimeout: this.#timeoutMs,
      partitioner: (message, key) => (key === undefined ? turn++ : client.compatibilityPartitioner(message, key)),
      ...(username !== '' && { sasl: { mechanism: saslMechanism, username, password } }),
      ...(isSecure && { tls, tlsServerName: true }),
    })
    guardConnections(client, producer)
    return producer
  }
}

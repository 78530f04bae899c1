import type { JetStreamClient } from '@nats-io/jetstream'
import type { MsgHdrs, NatsConnection, TlsOptions } from '@nats-io/transport-node'
import { messageOf } from '../core/index.ts'
import { type Delivery, DeliveryError, type DeliveryOutcome } from '../relay/index.ts'
import { BaseSink } from './base-sink.ts'
import { type BrokerUrl, parseBrokerUrl } from './broker-url.ts'
import { deliverByKey } from './by-key.ts'
import { checkedCount } from './checked-options.ts'
import { Deadline } from './deadline.ts'
import { loadClient } from './load-client.ts'
import { closingOnFailure } from './opened-sockets.ts'
import { SharedConnection } from './shared-connection.ts'

export interface NatsSinkOptions {
  /**
   * `nats://user:password@host:port/SUBJECT` (or `nats://token@…`), `nats+tls:` for TLS. Without a subject the delivery's
   * destination is it. A stream must take the subject.
   */
  readonly url: string
  /** Milliseconds that a call may take. Default 30,000. */
  readonly timeoutMs?: number | undefined
  /** Own certificates of a `nats+tls:` URL. */
  readonly tls?: TlsOptions | undefined
}

interface Session {
  readonly connection: NatsConnection
  readonly jetStream: JetStreamClient
  readonly newHeaders: () => MsgHdrs
}

const scheme = { plain: 'nats', secure: 'nats+tls', defaultPort: 4222, defaultSecurePort: 4222 }
const natsBatchSizeMax = 200
/** JetStream's error for a message above `max_msg_size` of its stream. */
const messageSizeExceeded = 10_054
/** JetStream's error for headers above 64 kB. */
const headersSizeExceeded = 10_097

/**
 * NATS JetStream. Confirmed by the stream's acknowledgement (with replicas: by their majority). The message id goes along as
 * `Nats-Msg-Id`, so a repetition within the stream's duplicate window is stored once.
 */
export class NatsSink extends BaseSink {
  readonly name: string
  readonly transport = 'nats'
  readonly batchSizeMax: number = natsBatchSizeMax
  readonly #url: BrokerUrl
  readonly #tls: TlsOptions | undefined
  readonly #timeoutMs: number
  readonly #connection: SharedConnection<Session>

  constructor({ url, timeoutMs, tls }: NatsSinkOptions) {
    super()
    this.#url = parseBrokerUrl(url, scheme)
    this.name = this.#url.name
    this.#tls = tls
    this.#timeoutMs = checkedCount('timeoutMs', timeoutMs, 30_000)
    this.#connection = new SharedConnection({
      sinkName: this.name,
      secrets: this.#url.secrets,
      open: () => this.#open(),
      close: ({ connection }) => connection.close(),
    })
  }

  protected async onStart(): Promise<void> {
    using deadline = new Deadline(this.name, this.#timeoutMs, this.stopSignal)
    await this.#connection.use(deadline, (session) => this.#findStream(session))
  }

  protected async onDeliver(batch: readonly Delivery[], signal: AbortSignal): Promise<readonly DeliveryOutcome[]> {
    using deadline = new Deadline(this.name, this.#timeoutMs, signal)
    return await deliverByKey(batch, deadline, async (delivery) => {
      await this.#connection.use(deadline, (session) => this.#send(session, delivery))
    })
  }

  protected async onRelease(): Promise<void> {
    await this.#connection.close()
  }

  async #findStream({ jetStream }: Session): Promise<void> {
    const manager = await jetStream.jetstreamManager(false)
    const { place } = this.#url
    try {
      if (place === undefined) await manager.getAccountInfo()
      else await manager.streams.find(place)
    } catch (error) {
      throw this.#answer(error, place ?? '')
    }
  }

  async #send({ jetStream, newHeaders }: Session, delivery: Delivery): Promise<void> {
    const subject = this.#url.place ?? delivery.destination
    this.#checkSubject(subject)
    const headers = newHeaders()
    headers.set('Content-Type', delivery.contentType)
    for (const [name, value] of Object.entries(delivery.headers)) {
      if (isHeaderName(name)) headers.set(name, value.replaceAll(/[\r\n]+/g, ' '))
    }
    try {
      await jetStream.publish(subject, delivery.body, {
        msgID: delivery.messageId,
        headers,
        timeout: this.#timeoutMs,
      })
    } catch (error) {
      throw this.#answer(error, subject)
    }
  }

  #checkSubject(subject: string): void {
    if (!/[\s*>]/.test(subject) && subject.split('.').every((token) => token !== '')) return
    throw new DeliveryError(`${this.name}: "${subject}" is no subject that can be published to.`, {
      code: 'invalid_subject',
      retryable: false,
      hint: 'Name a subject in the URL of the sink, or topics without spaces, * and >.',
    })
  }

  /** What the server has clearly answered; anything else as it is. */
  #answer(error: unknown, subject: string): unknown {
    const message = messageOf(error)
    const { name, code } = error as { readonly name?: string; readonly code?: unknown }
    if (message.includes('max_payload size exceeded')) return this.#tooLarge('the server', 'Raise its max_payload')
    // In the client's words, where nobody answers for this subject.
    if (name === 'JetStreamNotEnabled' || /no stream matches|stream not found/i.test(message)) {
      return this.#streamMissing(subject)
    }
    if (name !== 'JetStreamApiError') return error
    if (code === messageSizeExceeded) return this.#tooLarge('the stream', 'Raise its max_msg_size')
    if (code === headersSizeExceeded) return this.#tooLarge('the stream', 'Headers have 64 kB at most: shorten them')
    return new DeliveryError(`${this.name}: the stream of ${subject} refused the message: ${message}.`, {
      code: 'refused_by_stream',
      retryable: true,
      hint: 'Look at its limits, and whether it is sealed or its disk is full.',
    })
  }

  #streamMissing(subject: string): DeliveryError {
    return new DeliveryError(`${this.name}: no stream takes subject ${subject}.`, {
      code: 'stream_missing',
      retryable: true,
      hint: 'Add a stream for it, and look whether the server runs with JetStream (-js).',
      details: { subject },
    })
  }

  #tooLarge(whom: string, mend: string): DeliveryError {
    return new DeliveryError(`${this.name}: the message is too large for ${whom}.`, {
      code: 'message_too_large',
      retryable: false,
      hint: `${mend}, or send less: a reference instead of the whole.`,
    })
  }

  async #open(): Promise<Session> {
    const packages = '@nats-io/transport-node@^3.4 @nats-io/jetstream@^3.4'
    const { connect, headers } = await loadClient(packages, () => import('@nats-io/transport-node'))
    const { jetstream } = await loadClient(packages, () => import('@nats-io/jetstream'))
    const { servers, username, password, isSecure } = this.#url
    const connection = await closingOnFailure(() =>
      connect({
        servers: servers.map(({ host, port }) => (host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`)),
        name: 'trunkline',
        reconnect: false,
        timeout: this.#timeoutMs,
        ...(password === undefined
          ? username !== undefined && { token: username }
          : { user: username ?? '', pass: password }),
        ...(isSecure && { tls: this.#tls ?? {} }),
      }),
    )
    const session = {
      connection,
      jetStream: jetstream(connection, { timeout: this.#timeoutMs }),
      newHeaders: () => headers(),
    }
    void connection.closed().then(() => this.#connection.discard(session))
    return session
  }
}

/** `Nats-` is the server's own: a header so named would change what it does. */
function isHeaderName(name: string): boolean {
  return /^[\x21-\x39\x3b-\x7e]+$/.test(name) && !/^nats-/i.test(name)
}

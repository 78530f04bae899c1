import type { RedisClientType } from '@redis/client'
import { messageOf } from '../core/index.ts'
import { type Delivery, DeliveryError, type DeliveryOutcome } from '../relay/index.ts'
import { BaseSink } from './base-sink.ts'
import { type BrokerUrl, parseBrokerUrl } from './broker-url.ts'
import { deliverByKey } from './by-key.ts'
import { checkedCount } from './checked-options.ts'
import { Deadline } from './deadline.ts'
import { loadClient } from './load-client.ts'
import { serverNameOf } from './server-name.ts'
import { SharedConnection } from './shared-connection.ts'

export interface RedisSinkOptions {
  /**
   * `redis://user:password@host:port/STREAM`, `rediss:` for TLS, `?db=1` for another database than 0. Without a stream the
   * delivery's destination is it.
   */
  readonly url: string
  /** Milliseconds that a call may take. Default 30,000. */
  readonly timeoutMs?: number | undefined
  /** Entries that a stream keeps, about (`MAXLEN ~`). Default: all; something else must trim then. */
  readonly lengthMax?: number | undefined
  /** Own certificates of a `rediss:` URL. */
  readonly tls?: { readonly ca?: string; readonly cert?: string; readonly key?: string } | undefined
}

interface Session {
  readonly client: RedisClientType
  /** Bytes of one value, at most. */
  readonly valueBytesMax: number
}

const scheme = { plain: 'redis', secure: 'rediss', defaultPort: 6379, defaultSecurePort: 6379 }
const redisBatchSizeMax = 200
/** Redis's own default of proto-max-bulk-len, for servers that do not tell theirs. */
const valueBytesMaxDefault = 512 * 1024 * 1024

/** Answers that say what to do; by their first word. */
const answers: Readonly<Record<string, { readonly code: string; readonly hint: string }>> = {
  OOM: { code: 'out_of_memory', hint: 'Trim streams (lengthMax) or raise maxmemory.' },
  WRONGTYPE: { code: 'not_a_stream', hint: 'Name another stream, or remove what has this name.' },
  NOPERM: { code: 'not_authorized', hint: 'Grant the user XADD on the stream.' },
  NOAUTH: { code: 'not_authorized', hint: 'Write user and password into the URL.' },
  MISCONF: { code: 'server_cannot_save', hint: 'Look at the disk and the log of the Redis server.' },
}

/**
 * Redis streams: an entry a delivery, with the fields `message-id`, `key`, `content-type`, its headers and `body`. Confirmed when
 * the server has added it; how safe it is then, `appendfsync` and the replicas say.
 */
export class RedisSink extends BaseSink {
  readonly name: string
  readonly transport = 'redis'
  readonly batchSizeMax: number = redisBatchSizeMax
  readonly #url: BrokerUrl
  readonly #options: RedisSinkOptions
  readonly #timeoutMs: number
  readonly #connection: SharedConnection<Session>

  constructor(options: RedisSinkOptions) {
    super()
    this.#url = parseBrokerUrl(options.url, scheme)
    this.name = this.#url.name
    this.#options = options
    checkedCount('lengthMax', options.lengthMax, undefined)
    this.#timeoutMs = checkedCount('timeoutMs', options.timeoutMs, 30_000)
    this.#connection = new SharedConnection({
      sinkName: this.name,
      secrets: this.#url.secrets,
      open: () => this.#open(),
      close: ({ client }) => client.destroy(),
    })
  }

  protected async onStart(): Promise<void> {
    using deadline = new Deadline(this.name, this.#timeoutMs, this.stopSignal)
    await this.#connection.use(deadline, async ({ client }) => {
      const { place } = this.#url
      if (place === undefined) return
      const type = await client.type(place)
      if (type !== 'none' && type !== 'stream') throw this.#answer('WRONGTYPE', `${place} is a ${type}`)
    })
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

  async #send({ client, valueBytesMax }: Session, delivery: Delivery): Promise<void> {
    if (delivery.body.length > valueBytesMax) throw this.#tooLarge(delivery, valueBytesMax)
    const { lengthMax } = this.#options
    const trim = lengthMax === undefined ? [] : ['MAXLEN', '~', String(lengthMax)]
    const stream = this.#url.place ?? delivery.destination
    try {
      // Its own command instead of xAdd(): that would sort fields that look like numbers to the front.
      await client.sendCommand(['XADD', stream, ...trim, '*', ...fieldsOf(delivery)])
    } catch (error) {
      const word = /^[A-Z]+(?= )/.exec(messageOf(error))?.[0] ?? ''
      throw Object.hasOwn(answers, word) ? this.#answer(word, messageOf(error)) : error
    }
  }

  #answer(word: string, found: string): DeliveryError {
    const { code, hint } = answers[word] ?? { code: 'refused_by_server', hint: '' }
    return new DeliveryError(`${this.name}: ${this.#url.secrets.hide(found)}.`, { code, retryable: true, hint })
  }

  #tooLarge({ body }: Delivery, valueBytesMax: number): DeliveryError {
    return new DeliveryError(
      `${this.name}: the message has ${body.length} bytes, and the server takes ${valueBytesMax} at most.`,
      {
        code: 'message_too_large',
        retryable: false,
        hint: 'Raise proto-max-bulk-len of the server, or send less: a reference instead of the whole.',
      },
    )
  }

  async #open(): Promise<Session> {
    const { createClient } = await loadClient('@redis/client@^6', () => import('@redis/client'))
    const { servers, username, password, parameters, isSecure } = this.#url
    const [{ host, port } = { host: 'localhost', port: scheme.defaultPort }] = servers
    const socket = { host, port, connectTimeout: this.#timeoutMs, reconnectStrategy: false as const }
    const client: RedisClientType = createClient({
      socket: isSecure ? { ...socket, ...serverNameOf(host), ...this.#options.tls, tls: true } : socket,
      ...(username !== undefined && { username }),
      ...(password !== undefined && { password }),
      database: Number(parameters.get('db') ?? 0),
      disableOfflineQueue: true,
      clientInfoTag: 'trunkline',
    })
    const session = { client, valueBytesMax: valueBytesMaxDefault }
    // It also keeps a lost connection from ending the process; whoever uses it hears of it.
    client.on('error', () => this.#connection.discard(session))
    // The client waits for ever for a server that accepts the connection and says nothing.
    const late = setTimeout(() => client.destroy(), this.#timeoutMs)
    try {
      await client.connect()
      session.valueBytesMax = await askValueBytesMax(client)
      return session
    } catch (error) {
      if (client.isOpen) client.destroy()
      throw error
    } finally {
      clearTimeout(late)
    }
  }
}

/** Managed servers forbid CONFIG; what is too large for them closes the connection then. */
async function askValueBytesMax(client: RedisClientType): Promise<number> {
  const name = 'proto-max-bulk-len'
  const settings = await client.configGet(name).catch(() => undefined)
  return Number(settings?.[name] ?? valueBytesMaxDefault)
}

function fieldsOf({ messageId, key, contentType, headers, body }: Delivery): (string | Buffer)[] {
  const own = new Map<string, string | Buffer>([
    ['message-id', messageId],
    ...(key === null ? [] : [['key', key] as const]),
    ['content-type', contentType],
  ])
  for (const [name, value] of Object.entries(headers)) if (!own.has(name) && name !== 'body') own.set(name, value)
  return [...own.entries(), ['body', body] as const].flat()
}

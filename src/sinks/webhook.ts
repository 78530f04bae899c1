import { type ClientRequest, Agent as HttpAgent, type IncomingMessage, request as httpRequest } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { InvalidInputError } from '../core/index.ts'
import { type Delivery, DeliveryError, type DeliveryOutcome } from '../relay/index.ts'
import { BaseSink } from './base-sink.ts'
import { deliverByKey } from './by-key.ts'
import { checkedCount, checkedHeaders } from './checked-options.ts'
import { Deadline } from './deadline.ts'
import { AddressGuard, type InternalAddresses } from './internal-addresses.ts'
import { decoded, Secrets } from './secrets.ts'
import { failureOf, type WebhookResponse } from './webhook-response.ts'
import { WebhookSigner } from './webhook-signature.ts'

export interface WebhookSinkOptions {
  /** `http://` or `https://`; a user and password in it are sent as basic authentication. */
  readonly url: string
  /**
   * Secrets to sign with (Standard Webhooks): `whsec_` and 24 to 64 bytes in base64. While one is being replaced, both.
   * Default none: requests are not signed.
   */
  readonly secrets?: readonly string[] | undefined
  /** Headers of every request: authorization, say. */
  readonly headers?: Readonly<Record<string, string>> | undefined
  /** Milliseconds from the start of an attempt to the head of its answer. Default 15,000. */
  readonly timeoutMs?: number | undefined
  /** Default `'as-written'`. */
  readonly internalAddresses?: InternalAddresses | undefined
  /** Connections at most; more requests wait in line, on their own time. Default 64. */
  readonly connectionsMax?: number | undefined
}

/** Of an answer's body, for the error; the rest is not read. */
const responseTextMax = 200
/** Milliseconds to wait for an answer's body, once its head has said what it means. */
const responseBodyMsMax = 500
/** Characters of a header that are sent; more is cut off by many servers with 431. */
const headerValueMax = 4_096
/** What HTTP, or our own signature, uses itself. Events cannot set it. */
const reserved =
  /^(?:host|connection|content-(?:length|type|encoding)|transfer-encoding|te|trailer|upgrade|expect|keep-alive|proxy-.*|cookie|authorization|user-agent|webhook-.*)$/i

/**
 * One POST a delivery, signed as Standard Webhooks asks for. Confirmed by any 2xx; 408, 425, 429 and 5xx may work later, other 4xx
 * never will. Redirects are not followed.
 */
export class WebhookSink extends BaseSink {
  readonly name: string
  readonly transport = 'http'
  readonly #url: URL
  readonly #headers: Readonly<Record<string, string>>
  readonly #timeoutMs: number
  readonly #signer: WebhookSigner
  readonly #guard: AddressGuard
  readonly #secrets: Secrets
  readonly #agent: HttpAgent | HttpsAgent

  constructor(options: WebhookSinkOptions) {
    super()
    this.#url = parse(options.url)
    // A path can be the secret, as it is with hooks of chat services.
    this.name = `${this.#url.origin}${this.#url.pathname === '/' ? '/' : '/…'}`
    this.#headers = checkedHeaders(options.headers)
    this.#timeoutMs = checkedCount('timeoutMs', options.timeoutMs, 15_000)
    this.#signer = new WebhookSigner(options.secrets ?? [])
    this.#guard = new AddressGuard(this.#url.hostname, options.internalAddresses ?? 'as-written')
    this.#secrets = new Secrets(this.#url, [...pathSecrets(this.#url), ...sentSecrets(this.#url, this.#headers)])
    const Agent = this.#isSecure ? HttpsAgent : HttpAgent
    this.#agent = new Agent({
      keepAlive: true,
      maxSockets: checkedCount('connectionsMax', options.connectionsMax, 64),
      // It sees every connection, so an address that was checked is the one that is connected to.
      lookup: this.#guard.lookup,
    })
  }

  /** The receiver itself is first asked by the first delivery: there is no request that means nothing. */
  protected async onStart(): Promise<void> {
    this.#guard.checkHost()
  }

  protected async onDeliver(batch: readonly Delivery[], signal: AbortSignal): Promise<readonly DeliveryOutcome[]> {
    using deadline = new Deadline(this.name, this.#timeoutMs, signal)
    return await deliverByKey(batch, deadline, async (delivery) => {
      const failure = failureOf(await this.#post(delivery, deadline), this.name)
      if (failure !== undefined) throw failure
    })
  }

  protected async onRelease(): Promise<void> {
    this.#agent.destroy()
  }

  get #isSecure(): boolean {
    return this.#url.protocol === 'https:'
  }

  async #post(delivery: Delivery, deadline: Deadline): Promise<WebhookResponse> {
    try {
      return await this.#attempt(delivery, deadline)
    } catch (error) {
      if (!(error instanceof StaleConnection)) throw error
    }
    // The receiver closed an idle connection just as we took it, and cannot have read the request.
    try {
      return await this.#attempt(delivery, deadline)
    } catch (error) {
      throw error instanceof StaleConnection ? error.failure : error
    }
  }

  async #attempt(delivery: Delivery, deadline: Deadline): Promise<WebhookResponse> {
    const { promise, resolve, reject } = Promise.withResolvers<WebhookResponse>()
    const request = this.#open(delivery)
    request.on('error', (error) => reject(this.#failure(error, request)))
    let answer: WebhookResponse | undefined
    // Somebody who speaks another protocol now: a head like others, and nothing more to read as HTTP.
    request.on('upgrade', ({ statusCode = 0 }, socket) => {
      socket.destroy()
      resolve({ status: statusCode, retryAfter: undefined, text: '' })
    })
    request.on('response', (response) => {
      const head = { status: response.statusCode ?? 0, retryAfter: response.headers['retry-after'], text: '' }
      answer = head
      void this.#textOf(response).then((text) => resolve({ ...head, text }))
    })
    request.end(delivery.body)
    try {
      return await deadline.race(promise)
    } catch (error) {
      if (answer !== undefined) return answer
      throw error
    } finally {
      promise.catch(() => undefined)
      // Of no use any more, whether it was answered (then it is back in the agent's hands) or not.
      if (deadline.signal.aborted) request.destroy()
    }
  }

  async #textOf(response: IncomingMessage): Promise<string> {
    const { lengthMax } = this.#secrets
    const charactersMax = responseTextMax + 2 * lengthMax
    const text = await readBeginning(response, charactersMax)
    const hidden = this.#secrets.hide(text)
    // Hidden before it is cut; and where reading ended, the beginning of a secret can stand.
    const whole = response.complete && text.length <= charactersMax ? hidden : hidden.slice(0, -lengthMax || undefined)
    return whole
      .replaceAll(/[\s\p{C}]+/gu, ' ')
      .trim()
      .slice(0, responseTextMax)
  }

  #open(delivery: Delivery): ClientRequest {
    const request = this.#isSecure ? httpsRequest : httpRequest
    return request(this.#url, {
      method: 'POST',
      agent: this.#agent,
      headers: {
        ...eventHeaders(delivery.headers),
        'user-agent': 'trunkline',
        ...this.#headers,
        'content-type': delivery.contentType,
        'content-length': delivery.body.length,
        ...this.#signer.headers(delivery.messageId, delivery.body, new Date()),
      },
    })
  }

  #failure(error: unknown, request: ClientRequest): Error {
    if (error instanceof DeliveryError) return error
    const { code } = error as NodeJS.ErrnoException
    const isStale = request.reusedSocket && (code === 'ECONNRESET' || code === 'EPIPE')
    const failure = new DeliveryError(`${this.name} could not be reached: ${this.#secrets.messageOf(error)}.`, {
      code: 'connection_failed',
      retryable: true,
      cause: this.#secrets.causeOf(error),
    })
    return isStale ? new StaleConnection(failure) : failure
  }
}

class StaleConnection extends Error {
  readonly failure: DeliveryError

  constructor(failure: DeliveryError) {
    super(failure.message)
    this.failure = failure
  }
}

function parse(text: string): URL {
  const url = URL.parse(text)
  if (url !== null && (url.protocol === 'http:' || url.protocol === 'https:')) return url
  throw new InvalidInputError('The URL of the webhook is none of http or https.', {
    code: 'invalid_sink_url',
    hint: 'Write https://host/path.',
  })
}

/** Parts of a path that look like tokens rather than words. */
function pathSecrets({ pathname }: URL): string[] {
  return pathname.split('/').filter((part) => part.length >= 8)
}

/** What a receiver may repeat of its credentials: header values, their words (a token without `Bearer`), basic authentication. */
function sentSecrets({ username, password }: URL, headers: Readonly<Record<string, string>>): string[] {
  const values = Object.values(headers)
  const words = values.flatMap((value) => value.split(/[\s,;="]+/))
  const pairs = values.flatMap((value) => /^basic\s+(\S+)$/i.exec(value)?.slice(1) ?? []).map(fromBase64)
  if (username !== '' || password !== '') pairs.push(`${decoded(username)}:${decoded(password)}`)
  const basic = pairs.flatMap((pair) => [[pair, Buffer.from(pair).toString('base64')], pair.split(':')].flat())
  return [...values, ...words, ...basic]
}

function fromBase64(text: string): string {
  return Buffer.from(text, 'base64').toString()
}

/** Names that HTTP has no place for are left out; characters that it has none for are written as %XX. */
function eventHeaders(headers: Readonly<Record<string, string>>): Record<string, string> {
  const sent = Object.entries(headers).filter(
    ([name, value]) => /^[\w!#$%&'*+.^`|~-]+$/.test(name) && !reserved.test(name) && value.length <= headerValueMax,
  )
  return Object.fromEntries(
    sent.map(([name, value]) => [
      name,
      value.replaceAll(/[^\x20-\x7e]+/g, (part) => encodeURIComponent(part.toWellFormed())),
    ]),
  )
}

/**
 * The beginning of an answer's body, or as much of it as comes in time; then the rest is thrown away, and with much of it the
 * connection. What an answer means stands in its head, so nothing here fails.
 */
async function readBeginning(response: IncomingMessage, charactersMax: number): Promise<string> {
  let text = ''
  const timer = setTimeout(() => response.destroy(), responseBodyMsMax)
  response.setEncoding('utf8')
  try {
    for await (const chunk of response) {
      text += chunk as string
      if (text.length > charactersMax) break
    }
  } catch {
    // Cut off: what came is enough.
  } finally {
    clearTimeout(timer)
  }
  return text
}

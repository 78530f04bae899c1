import type { IncomingMessage, ServerResponse } from 'node:http'
import { InvalidInputError } from '../core/index.ts'
import { RoutingSession } from './session.ts'
import { secretLengthMin, signToken, verifyToken } from './token.ts'

/** Default name of the cookie and of the header. */
export const carrierNameDefault = 'trunkline-token'
/** Default of `maxAgeS`: a day. */
export const maxAgeSDefault = 86_400

/** What runs a function as a session. */
export interface SessionRunner {
  runIn<Result>(session: RoutingSession, run: () => Result): Result
}

export interface CarrierOptions {
  /** Signs what clients carry. At least 16 characters. Several: the first signs, all are accepted, so that it can be changed. */
  readonly secret: string | readonly string[]
  /** Name of the cookie and header. Default `trunkline-token`. */
  readonly name?: string | undefined
  /** Where it travels. Default `cookie`; `header` between services; `both` reads both and answers with both. */
  readonly by?: 'cookie' | 'header' | 'both' | undefined
  /** Seconds after which it is no longer accepted. Default a day; a replica that lags longer serves no reads anyway. */
  readonly maxAgeS?: number | undefined
  /** The cookie goes over HTTPS only. Default true. */
  readonly isSecure?: boolean | undefined
}

/** Headers as node:http has them. */
export type RequestHeaders = Readonly<Record<string, string | readonly string[] | undefined>>

/** What of Fastify is used. */
export interface FastifyLike {
  addHook(
    name: 'onRequest' | 'preValidation',
    hook: (request: object, reply: object, done: () => void) => void,
  ): unknown
  addHook(
    name: 'onSend',
    hook: (
      request: object,
      reply: object,
      payload: unknown,
      done: (error: Error | null, payload: unknown) => void,
    ) => void,
  ): unknown
}
interface FastifyRequestLike {
  readonly headers: RequestHeaders
}
interface FastifyReplyLike {
  header(name: string, value: string): unknown
}

/** What of Hono's context is used. */
export interface HonoContextLike {
  readonly req: { header(name: string): string | undefined }
  header(name: string, value: string, options?: { append?: boolean }): void
}

/** Carries a session's token from one request of a client to its next, signed. */
export interface Carrier {
  /** Handles each request of node:http as a session: `createServer(carrier.node((request, response) => …))`. */
  node(
    handler: (request: IncomingMessage, response: ServerResponse) => unknown,
  ): (request: IncomingMessage, response: ServerResponse) => void
  /** A Fastify plugin, for the whole instance: `fastify.register(carrier.fastify)`. */
  readonly fastify: (instance: FastifyLike, options: object, done: () => void) => void
  /** A Hono middleware: `app.use(carrier.hono)`. */
  readonly hono: (context: HonoContextLike, next: () => Promise<void>) => Promise<void>
  /** The session of a client that sent this, for any other framework. */
  begin(headers: RequestHeaders): RoutingSession
  /** What to answer with: name and value of headers; none where nothing was written or seen. */
  headersOf(session: RoutingSession): [name: string, value: string][]
}

/** @throws InvalidInputError `invalid_option`, say when the secret is too short. */
export function createCarrier(routing: SessionRunner, options: CarrierOptions): Carrier {
  const carried = new HeaderCarrier(checkedSecrets(options), options)
  return {
    begin: (headers) => carried.begin(headers),
    headersOf: (session) => carried.headersOf(session),
    node: (handler) => (request, response) => {
      const session = carried.begin(request.headers)
      beforeHeaders(response, () => addHeaders(response, carried.headersOf(session)))
      routing.runIn(session, () => void handler(request, response))
    },
    fastify: fastifyPlugin(routing, carried),
    hono: async (context, next) => {
      const { name } = carried
      const session = carried.begin({ cookie: context.req.header('cookie'), [name]: context.req.header(name) })
      await routing.runIn(session, async () => next())
      await session.settled()
      for (const [header, value] of carried.headersOf(session)) context.header(header, value, { append: true })
    },
  }
}

function isSecret(value: unknown): value is string {
  return typeof value === 'string' && value.length >= secretLengthMin
}

function checkedSecrets({ secret, name, by, maxAgeS }: CarrierOptions): readonly string[] {
  const secrets: readonly unknown[] = Array.isArray(secret) ? secret : [secret]
  if (secrets.length === 0 || !secrets.every(isSecret)) {
    throw invalid(
      `secret is missing or shorter than ${secretLengthMin} characters.`,
      'Take a random one, the same in every process that serves these clients.',
    )
  }
  if (name !== undefined && !namePattern.test(name)) {
    throw invalid(
      `name is ${JSON.stringify(name)}.`,
      'Take letters, digits and hyphens: it names a cookie and a header.',
    )
  }
  if (![undefined, 'cookie', 'header', 'both'].includes(by)) {
    throw invalid(`by is ${JSON.stringify(by)}.`, 'Pass cookie, header or both.')
  }
  if (maxAgeS !== undefined && !(Number.isInteger(maxAgeS) && maxAgeS > 0)) {
    throw invalid(`maxAgeS is ${JSON.stringify(maxAgeS)}.`, 'Pass whole seconds above 0.')
  }
  return secrets
}

/** What may name a header, and a cookie. */
const namePattern = /^[\w!#$%&'*+.^`|~-]+$/

function invalid(message: string, hint: string): InvalidInputError {
  return new InvalidInputError(message, { code: 'invalid_option', hint })
}

class HeaderCarrier {
  readonly name: string
  readonly #secrets: readonly string[]
  readonly #by: 'cookie' | 'header' | 'both'
  readonly #maxAgeS: number
  readonly #isSecure: boolean
  /** What a session began with need not be sent again. */
  readonly #began = new WeakMap<RoutingSession, string | undefined>()

  constructor(secrets: readonly string[], { name, by, maxAgeS, isSecure }: CarrierOptions) {
    this.#secrets = secrets
    this.name = (name ?? carrierNameDefault).toLowerCase()
    this.#by = by ?? 'cookie'
    this.#maxAgeS = maxAgeS ?? maxAgeSDefault
    this.#isSecure = isSecure ?? true
  }

  begin(headers: RequestHeaders): RoutingSession {
    const session = new RoutingSession()
    const sent = [
      ...(this.#by === 'header' ? [] : cookiesOf(headers['cookie'], this.name)),
      ...(this.#by === 'cookie' ? [] : [headers[this.name]].flat()),
    ]
    for (const text of sent) {
      const token = typeof text === 'string' ? verifyToken(text, this.#secrets, this.#maxAgeS) : undefined
      if (token !== undefined) session.raiseTo(token)
    }
    this.#began.set(session, session.token)
    return session
  }

  headersOf(session: RoutingSession): [name: string, value: string][] {
    const { token } = session
    const [secret] = this.#secrets
    if (token === undefined || secret === undefined || token === this.#began.get(session)) return []
    const signed = signToken(token, secret)
    const attributes = `; Path=/; Max-Age=${this.#maxAgeS}; HttpOnly; SameSite=Lax${this.#isSecure ? '; Secure' : ''}`
    return [
      ...(this.#by === 'header' ? [] : [['set-cookie', `${this.name}=${signed}${attributes}`] as [string, string]]),
      ...(this.#by === 'cookie' ? [] : [[this.name, signed] as [string, string]]),
    ]
  }
}

function fastifyPlugin(routing: SessionRunner, carried: HeaderCarrier): Carrier['fastify'] {
  const sessions = new WeakMap<object, RoutingSession>()
  const run = (request: object, _reply: object, done: () => void): void => {
    let session = sessions.get(request)
    if (session === undefined) {
      session = carried.begin((request as FastifyRequestLike).headers)
      sessions.set(request, session)
    }
    routing.runIn(session, () => done())
  }
  const plugin: Carrier['fastify'] = (instance, _options, done) => {
    instance.addHook('onRequest', run)
    // A body is read from events of the socket, which are not part of the request's own context.
    instance.addHook('preValidation', run)
    instance.addHook('onSend', (request, reply, payload, sent) => {
      const session = sessions.get(request)
      const answer = (): void => {
        const headers = session === undefined ? [] : carried.headersOf(session)
        for (const [name, value] of headers) (reply as FastifyReplyLike).header(name, value)
        sent(null, payload)
      }
      void (session?.settled() ?? Promise.resolve()).then(answer, answer)
    })
    done()
  }
  // Fastify's own mark for a plugin whose hooks hold for the instance that registers it.
  return Object.assign(plugin, { [Symbol.for('skip-override')]: true })
}

/** node:http sends the headers with the first byte of the body at the latest, always through writeHead. */
function beforeHeaders(response: ServerResponse, add: () => void): void {
  type WriteHead = (...args: unknown[]) => ServerResponse
  const writeHead = response.writeHead.bind(response) as WriteHead
  const replacement: WriteHead = (...args) => {
    response.writeHead = writeHead
    const given = args.at(-1)
    // Headers given here would replace those set before.
    if (typeof given === 'object' && given !== null) {
      args.pop()
      setHeaders(response, given)
    }
    add()
    return writeHead(...args)
  }
  response.writeHead = replacement
}

type HeaderValue = string | number | readonly string[]

/** Those of writeHead: an object, a list of pairs, or names and values in turn. */
function setHeaders(response: ServerResponse, given: object): void {
  if (!Array.isArray(given)) {
    for (const [name, value] of Object.entries(given as Record<string, HeaderValue | undefined>))
      if (value !== undefined) response.setHeader(name, value)
    return
  }
  const list = given.every(Array.isArray) ? given.flat(1) : given
  for (let place = 0; place < list.length; place += 2) response.removeHeader(String(list[place]))
  for (let place = 0; place + 1 < list.length; place += 2)
    response.appendHeader(String(list[place]), list[place + 1] as string)
}

function addHeaders(response: ServerResponse, headers: readonly [string, string][]): void {
  for (const [name, value] of headers) {
    const before = response.getHeader(name)
    if (name !== 'set-cookie' || before === undefined) response.setHeader(name, value)
    else response.setHeader(name, [...[before].flat().map(String), value])
  }
}

function cookiesOf(header: string | readonly string[] | undefined, name: string): string[] {
  const pairs = [header ?? ''].flat().join(';').split(';')
  return pairs.flatMap((pair) => {
    const [key = '', ...value] = pair.trim().split('=')
    return key === name ? [value.join('=')] : []
  })
}

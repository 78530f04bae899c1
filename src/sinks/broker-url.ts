import { InvalidInputError } from '../core/index.ts'
import { Secrets } from './secrets.ts'

/** What the URL of a broker says. */
export interface BrokerUrl {
  /** `host:port` of each server; most brokers are named by one. */
  readonly servers: readonly { readonly host: string; readonly port: number }[]
  readonly username: string | undefined
  readonly password: string | undefined
  /** The path without its slash: a topic, exchange, subject or stream. Undefined: none. */
  readonly place: string | undefined
  readonly parameters: URLSearchParams
  /** True for the scheme that means TLS. */
  readonly isSecure: boolean
  /** The URL without user, password and parameters. */
  readonly name: string
  readonly secrets: Secrets
}

export interface BrokerScheme {
  readonly plain: string
  readonly secure: string
  readonly defaultPort: number
  readonly defaultSecurePort: number
}

/** @throws InvalidInputError `invalid_sink_url`, which shows nothing of the URL. */
export function parseBrokerUrl(text: string, scheme: BrokerScheme): BrokerUrl {
  // Several servers, with commas: for the parser only the first is there, the others are added after.
  const [, head = '', hosts = '', rest = ''] = /^([a-z+]+:\/\/(?:[^@/]*@)?)([^/?#]*)(.*)$/i.exec(text) ?? []
  const [first = '', ...others] = hosts.split(',')
  const url = URL.parse(`${head}${first}${rest}`)
  const isSecure = url?.protocol === `${scheme.secure}:`
  if (url === null || url.hostname === '' || !(isSecure || url.protocol === `${scheme.plain}:`)) throw invalid(scheme)
  const port = isSecure ? scheme.defaultSecurePort : scheme.defaultPort
  const servers = [first, ...others].map((server) => serverOf(server, port, scheme))
  // An @, /, ? or # in a password that is not written as %XX ends the part with the password too early: the rest of it stands here.
  if (rest.includes('@')) throw invalid(scheme)
  return {
    servers,
    username: decode(url.username, scheme),
    password: decode(url.password, scheme),
    place: decode(url.pathname.replace(/^\//, ''), scheme),
    parameters: url.searchParams,
    isSecure,
    name: `${url.protocol}//${servers.map((server) => server.text).join(',')}${url.pathname}`,
    // A user without a password is a token.
    secrets: new Secrets(url, url.password === '' ? [url.username] : []),
  }
}

interface Server {
  readonly host: string
  readonly port: number
  /** As it is shown. */
  readonly text: string
}

function serverOf(text: string, defaultPort: number, scheme: BrokerScheme): Server {
  const url = URL.parse(`trunkline://${text}`)
  if (url === null || url.hostname === '' || text.includes('@')) throw invalid(scheme)
  return { host: url.hostname.replace(/^\[(.*)\]$/, '$1'), port: Number(url.port || defaultPort), text: url.host }
}

/** Undefined: it is not there. */
function decode(text: string, scheme: BrokerScheme): string | undefined {
  try {
    return text === '' ? undefined : decodeURIComponent(text)
  } catch {
    throw invalid(scheme)
  }
}

function invalid({ plain, secure }: BrokerScheme): InvalidInputError {
  return new InvalidInputError(`The URL of the ${plain}: sink cannot be read.`, {
    code: 'invalid_sink_url',
    hint: `Write ${plain}://user:password@host:port/NAME, with %XX for special characters, or ${secure}:// for TLS.`,
  })
}

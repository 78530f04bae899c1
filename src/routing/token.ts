import { createHmac, timingSafeEqual } from 'node:crypto'
import { InvalidInputError } from '../core/index.ts'
import { formatLsn, parseLsn } from './lsn.ts'

/** A place in the history of a cluster: whoever has replayed it has all that had committed when it was taken. */
export interface Position {
  /** `system_identifier` of the cluster. */
  readonly systemId: string
  /** LSNs of two timelines cannot be compared. */
  readonly timeline: number
  readonly lsn: bigint
}

const pattern = /^(\d{1,20}):(\d{1,10}):([0-9A-F]{1,8}\/[0-9A-F]{1,8})$/i

/** The token of a position, about 30 characters: `7710782250208256586:1:0/1644980`. */
export function formatToken({ systemId, timeline, lsn }: Position): string {
  return `${systemId}:${timeline}:${formatLsn(lsn)}`
}

/** @throws InvalidInputError `invalid_token`. */
export function parseToken(token: string): Position {
  const match = typeof token === 'string' ? pattern.exec(token) : null
  const lsn = match === null ? undefined : parseLsn(match[3] ?? '')
  if (match === null || lsn === undefined) {
    throw new InvalidInputError(`${JSON.stringify(token)} is no token of a write.`, {
      code: 'invalid_token',
      hint: 'Pass what trunkline.write gave with { withToken: true }, unchanged.',
    })
  }
  return { systemId: match[1] ?? '', timeline: Number(match[2]), lsn }
}

/** The later of two positions. A higher timeline is later; another cluster cannot be compared, and the second one wins. */
export function laterOf(one: Position | undefined, other: Position): Position {
  if (one === undefined || one.systemId !== other.systemId) return other
  if (one.timeline !== other.timeline) return one.timeline > other.timeline ? one : other
  return one.lsn > other.lsn ? one : other
}

/** Bytes of the signature that are kept: 128 bits. */
const signatureBytes = 16
/** Shortest secret that signs tokens, in characters. */
export const secretLengthMin = 16

/** A token with the second it was issued in and a signature, for a cookie or header that a client carries. */
export function signToken(token: string, secret: string, issuedAt: number = Math.floor(Date.now() / 1_000)): string {
  const text = `${token}~${issuedAt.toString(36)}`
  return `${text}~${signature(text, secret)}`
}

/**
 * The token of a signed one; undefined when it was not signed with one of the secrets, is older than `maxAgeS` seconds, or is
 * no token at all: such a client simply has none.
 */
export function verifyToken(signed: string, secrets: readonly string[], maxAgeS: number): string | undefined {
  const parts = signed.split('~')
  const [token = '', issued = '', given = ''] = parts
  if (parts.length !== 3 || !pattern.test(token)) return undefined
  const text = `${token}~${issued}`
  const isGenuine = secrets.some((secret) => isEqual(signature(text, secret), given))
  const ageS = Date.now() / 1_000 - Number.parseInt(issued, 36)
  // A minute into the future: clocks of several servers differ.
  return isGenuine && ageS <= maxAgeS && ageS >= -60 ? token : undefined
}

function signature(text: string, secret: string): string {
  return createHmac('sha256', secret).update(text).digest().subarray(0, signatureBytes).toString('base64url')
}

function isEqual(one: string, other: string): boolean {
  const [a, b] = [Buffer.from(one), Buffer.from(other)]
  return a.length === b.length && timingSafeEqual(a, b)
}

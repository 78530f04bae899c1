import { InvalidInputError, TrunklineError } from '../core/index.ts'
import { formatSnapshot, parseSnapshot, type Snapshot } from '../postgres/index.ts'

/**
 * Where a reader stands. It has had everything that `from` sees; inside of a pair of snapshots also what `to` sees up to
 * id `afterId`.
 */
export interface Position {
  /** Of which log: what `log_identity()` gave. */
  readonly identity: string
  readonly from: Snapshot
  readonly to?: Snapshot
  /** With `to`. */
  readonly afterId?: bigint
}

const version = '1'
const shape = /^1\/([^/\s]+)\/([\d:,]+)(?:\/([\d:,]+)\/(\d+))?$/

/** A snapshot that sees nothing: everything that is still in the log comes after it. */
export const emptySnapshot: Snapshot = { xmin: 1n, xmax: 1n, xip: [] }

/** The position as text, for a file, a table or a command line. It has no spaces and needs no quotes. */
export function formatPosition(position: Position): string {
  const base = `${version}/${position.identity}/${formatSnapshot(position.from)}`
  return position.to === undefined ? base : `${base}/${formatSnapshot(position.to)}/${position.afterId ?? 0n}`
}

/** Reads what `formatPosition` wrote. Throws `invalid_position`. */
export function parsePosition(text: string): Position {
  const [, identity, from, to, afterId] = shape.exec(text) ?? []
  if (identity === undefined || from === undefined) throw invalidPosition(text)
  try {
    const base = { identity, from: parseSnapshot(from) }
    return to === undefined ? base : { ...base, to: parseSnapshot(to), afterId: BigInt(afterId ?? 0) }
  } catch (error) {
    throw invalidPosition(text, error)
  }
}

/** The position behind everything that a snapshot sees: `snapshot` is a `txid_snapshot` as text, for example of a first copy. */
export function positionAt(identity: string, snapshot: string): string {
  return formatPosition({ identity, from: parseSnapshot(snapshot) })
}

/** Throws `position_of_another_log` unless the position was made by the log that `identity` names. */
export function checkIdentity(position: Position, identity: string): void {
  if (position.identity === identity) return
  throw new TrunklineError(`The position speaks of another log: ${difference(position.identity, identity)}.`, {
    code: 'position_of_another_log',
    hint: 'Connect to the database the position is of, or start anew from "beginning" or "now".',
    details: { expected: position.identity, found: identity },
  })
}

/**
 * A position that is stored in the database it is of, after a fail-over: the standby that was promoted has it only if it has all
 * that the position sees, and gives no id below it out again (the commit that stored it has a higher one). So it speaks of the
 * new timeline as well. One that differs in more than the timeline stays as it is.
 */
export function afterFailOver(text: string, identity: string): string {
  const position = parsePosition(text)
  const [before, now] = [splitIdentity(position.identity), splitIdentity(identity)]
  const isSameLog = before.every((piece, index) => index === 1 || piece === now[index])
  return isSameLog ? formatPosition({ ...position, identity }) : text
}

const parts = [
  { name: 'server', why: 'it is of another server' },
  { name: 'timeline', why: 'the server was restored or a standby was promoted since' },
  { name: 'database', why: 'it is of another database of the server' },
  { name: 'installation', why: 'trunkline was installed anew since' },
] as const

function difference(expected: string, found: string): string {
  const [before, after] = [splitIdentity(expected), splitIdentity(found)]
  const at = parts.findIndex((_, index) => before[index] !== after[index])
  const part = parts[at] ?? parts[0]
  return `its ${part.name} is ${before[at] ?? 'none'}, found ${after[at] ?? 'none'} (${part.why})`
}

/** The last part, a uuid, has dashes of its own. */
function splitIdentity(identity: string): string[] {
  const pieces = identity.split('-')
  return [...pieces.slice(0, 3), pieces.slice(3).join('-')]
}

function invalidPosition(text: string, cause?: unknown): InvalidInputError {
  const shown = text.length > 80 ? `${text.slice(0, 80)}…` : text
  return new InvalidInputError(`"${shown}" is no position.`, {
    code: 'invalid_position',
    hint: 'Expected "beginning", "now", or the position of a change that was printed before, in full.',
    details: { position: text },
    cause,
  })
}

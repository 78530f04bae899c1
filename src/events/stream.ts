import { InvalidInputError, shown } from '../core/index.ts'

/** A stream: the events of one aggregate. As text `type-id`: the first `-` divides; without one the id is empty. */
export type Stream = string | StreamParts

export interface StreamParts {
  /** The aggregate's type, also called the category: `order`. Not empty, without `-`. */
  readonly type: string
  /** The aggregate's id: any text, also one with `-`. */
  readonly id: string
}

/** Longest name of a stream, in bytes of UTF-8: it is a key of an index. */
export const streamBytesMax = 1_000

/** The parts of a stream. @throws InvalidInputError `invalid_stream`. */
export function streamParts(stream: Stream): StreamParts {
  const parts = typeof stream === 'string' ? split(stream) : stream
  if (typeof parts !== 'object' || (parts as object | null) === null) throw invalid(stream, 'is no stream')
  const { type, id } = parts
  if (typeof type !== 'string' || typeof id !== 'string') throw invalid(stream, 'has a type or an id that is no text')
  if (type === '') throw invalid(stream, 'has no type')
  if (type.includes('-')) throw invalid(stream, 'has a "-" in its type')
  if (`${type}${id}`.includes('\0')) throw invalid(stream, 'contains a zero character')
  if (!`${type}${id}`.isWellFormed()) throw invalid(stream, 'contains half of a surrogate pair')
  if (Buffer.byteLength(type) + Buffer.byteLength(id) >= streamBytesMax) {
    throw invalid(stream, `is longer than ${streamBytesMax} bytes`)
  }
  return { type, id }
}

/** The name of a stream: `type-id`, or `type` alone where the id is empty. */
export function streamName({ type, id }: StreamParts): string {
  return id === '' ? type : `${type}-${id}`
}

function split(name: string): StreamParts {
  const at = name.indexOf('-')
  return at === -1 ? { type: name, id: '' } : { type: name.slice(0, at), id: name.slice(at + 1) }
}

function invalid(stream: unknown, found: string): InvalidInputError {
  return new InvalidInputError(`The stream ${shown(stream)} ${found}.`, {
    code: 'invalid_stream',
    hint: 'Write it as "type-id", for example "order-17", or as { type: "order", id: "17" }.',
  })
}

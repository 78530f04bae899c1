import type { MessageToProduce } from '@platformatic/kafka'
import type { Delivery } from '../relay/index.ts'

/** The record of a delivery: its key, its body, and its headers with the body's content type. */
export function recordOf(topic: string, { key, body, headers, contentType }: Delivery): MessageToProduce {
  const record = new Map<Buffer, Buffer>()
  const keyBytes = key === null ? undefined : Buffer.from(key)
  addHeader(record, 'content-type', contentType)
  for (const name in headers) {
    // An event's own header of this name says nothing of the body.
    if (name.length === 12 && name.toLowerCase() === 'content-type') continue
    const text = headers[name] ?? ''
    // CloudEvents tell the key twice more.
    addHeader(record, name, text, text === key ? keyBytes : undefined)
  }
  return { topic, ...(keyBytes !== undefined && { key: keyBytes }), value: body, headers: record }
}

interface KnownHeader {
  readonly name: Buffer
  text: string
  value: Buffer
}

/** Names of headers that are remembered, at most. */
const knownMax = 1_000
/** Longest value that is remembered, in characters. */
const rememberedLengthMax = 1_000
const known = new Map<string, KnownHeader>()

/** Nearly every record has the same names, and many have the same value as the one before: they are encoded once. */
function addHeader(record: Map<Buffer, Buffer>, name: string, text: string, bytes?: Buffer): void {
  let header = known.get(name)
  if (header === undefined) {
    header = { name: Buffer.from(name), text: '', value: Buffer.alloc(0) }
    if (known.size < knownMax) known.set(name, header)
  }
  if (bytes !== undefined || text.length > rememberedLengthMax) {
    record.set(header.name, bytes ?? Buffer.from(text))
    return
  }
  if (header.text !== text) {
    header.text = text
    header.value = Buffer.from(text)
  }
  record.set(header.name, header.value)
}

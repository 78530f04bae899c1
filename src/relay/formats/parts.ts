import type { Change } from '../../log/index.ts'

/** Where something belongs when the sink's URL names no place, as Debezium's outbox event router names it. */
export function destinationOf({ topic }: Change): string {
  return `outbox.event.${topic}`
}

/** The headers that the event was emitted with, `traceparent` among them. */
export function ownHeaders({ headers }: Change): Record<string, string> {
  return textsOf(headers ?? {})
}

/** Values as texts; what has none is left out. */
export function textsOf(values: Readonly<Record<string, unknown>>): Record<string, string> {
  const present = Object.entries(values).filter(([, value]) => value !== null && value !== undefined)
  return Object.fromEntries(
    present.map(([name, value]) => [name, typeof value === 'string' ? value : JSON.stringify(value)]),
  )
}

/** One line of JSON. Numbers that the log's reader kept as they were written are written so. */
export function jsonBody(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value ?? null))
}

import { endOfLastRecord, parseLsn } from './lsn.ts'
import { knowledge, type Node } from './node.ts'
import type { Lease } from './request.ts'
import type { Position } from './token.ts'

/** The position of a row of `insertedStatement`; undefined where there is none, or the server was not looked at yet. */
export function positionAfterCommit({ probe }: Node, row: readonly unknown[] | undefined): Position | undefined {
  const [text, timeline] = row ?? []
  const lsn = parseLsn(String(text))
  if (lsn === undefined || probe === undefined) return undefined
  return {
    systemId: probe.systemId,
    timeline: Number.parseInt(String(timeline), 16),
    lsn: endOfLastRecord(lsn, probe.segmentBytes),
  }
}

/** What a read may have seen at most; undefined where that is not known. */
export function endOfRead(
  { node, isPrimary, client }: Lease<object>,
  row: readonly unknown[] | undefined,
): Position | undefined {
  if (isPrimary) return positionAfterCommit(node, row)
  const lsn = parseLsn(String(row?.[0]))
  const { probe } = node
  if (lsn === undefined || probe === undefined) return undefined
  const { systemId, timeline } = probe
  knowledge(client).replayed = { timeline, lsn }
  return { systemId, timeline, lsn }
}

import { WriteLostError } from './errors.ts'
import type { Forks } from './forks.ts'
import type { Lane } from './lane.ts'
import { formatLsn, parseLsn } from './lsn.ts'
import { hearBackend, knowledge } from './node.ts'
import { primaryStatement } from './probe.ts'
import type { Lease, Request } from './request.ts'
import { formatToken, type Position } from './token.ts'
import type { Topology } from './topology.ts'

type Floors = Pick<Request, 'floor' | 'session'>

/** What a transaction must have: the position of its own token, and its session's. */
export function floorsOf({ floor, session }: Floors): readonly Position[] {
  return [floor, session?.floor].filter((each) => each !== undefined)
}

export interface PrimaryCheck {
  readonly topology: Topology
  readonly floors: readonly Position[]
  /** The session wrote something of which only the timeline is known. */
  readonly isUncertain: boolean
  readonly timeoutMs: number
}

/**
 * K1 on a primary: its connection shows once (each time, where a pooler is between) that it leads to a primary, and of which
 * timeline, before a read with a token runs there: an address may lead to another server by now. A write needs no look, as BEGIN
 * READ WRITE makes sure of the role, but where the connection was told to lead to a standby.
 *
 * @returns why this connection cannot be used; undefined: it can.
 * @throws what the connection throws.
 */
export async function unfitPrimary<Client extends object>(
  lane: Lane<Client>,
  { client, node }: Lease<Client>,
  { topology, floors, isUncertain, timeoutMs }: PrimaryCheck,
): Promise<'standby' | 'older' | undefined> {
  const known = knowledge(client)
  if (floors.length === 0 && !lane.isStandby(client) && !isUncertain) return undefined
  if (known.written === undefined || known.isPooled || lane.isStandby(client)) {
    const [isStandby, timelineText, forkText, pid] = await lane.ask(client, primaryStatement, timeoutMs)
    hearBackend(client, pid)
    if (isStandby !== false) return 'standby'
    known.written = Number.parseInt(String(timelineText), 16)
    if (node.probe?.systemId === topology.systemId) topology.forks.note(known.written, parseLsn(String(forkText)))
  }
  const { written } = known
  return floors.some((each) => each.systemId === topology.systemId && each.timeline > written) ? 'older' : undefined
}

/**
 * K4: what a fail-over lost is told, and not passed over. The session goes on from where the new timeline begins: it is told once.
 *
 * `timeline`: the one that is written now.
 *
 * @throws WriteLostError
 */
export function refuseLost(forks: Forks, request: Floors, timeline: number): void {
  const { session } = request
  const { pinnedTimeline } = session ?? {}
  if (pinnedTimeline !== undefined && timeline > pinnedTimeline) {
    session?.goOn()
    throw new WriteLostError(
      `A fail-over to timeline ${timeline} came after a write on timeline ${pinnedTimeline} whose position could not be asked for.`,
      {
        code: 'write_lost',
        hint: 'Look whether the write is there, and do it again if it is not.',
        details: { timeline },
      },
    )
  }
  for (const floor of floorsOf(request)) {
    const begin = forks.lossOf(floor)
    if (begin === undefined) continue
    request.session?.goOnFrom(floor, begin)
    throw new WriteLostError(
      `A fail-over lost what this token stands for: timeline ${begin.timeline} begins at ${formatLsn(begin.lsn)}, the token is ${formatToken(floor)}.`,
      {
        code: 'write_lost',
        hint: 'Look (without the token) whether the write is there, and do it again if it is not.',
        details: { token: formatToken(floor), timeline: begin.timeline, lsn: formatLsn(begin.lsn) },
      },
    )
  }
}

/** One process of a fleet (fleet.ts). Arguments: URL, table, numbers of the first cache and after the last, minIntervalMs, pollIntervalMs. */
import { createTrunkline, type Trunkline } from '../../src/index.ts'
import { type Arrival, type FleetCommand, type FleetMessage } from './fleet.ts'
import { heartbeatId } from './heartbeat.ts'

/** Instances that start at the same time. */
const startingMax = 4

interface Beat {
  readonly id: number
  readonly version: number
}

const [url = '', table = '', first = '', end = '', minIntervalMs, pollIntervalMs] = process.argv.slice(2)
let arrivals: Arrival[] = []
const instances: Trunkline[] = []

async function startInstance(place: number): Promise<void> {
  const trunkline = createTrunkline({
    url,
    minIntervalMs: Number(minIntervalMs),
    pollIntervalMs: Number(pollIntervalMs),
  })
  instances.push(trunkline)
  await trunkline.start()
  const cache = await trunkline.cache<Beat>(table)
  cache.on('change', ({ new: row }) => {
    if (row?.id === heartbeatId) arrivals.push({ cache: place, beat: row.version, at: Date.now() })
  })
}

function tell(message: FleetMessage): void {
  process.send?.(message)
}

process.on('message', (command: FleetCommand) => {
  if (command === 'report') {
    tell({ kind: 'arrivals', arrivals })
    arrivals = []
  } else {
    void Promise.all(instances.map((trunkline) => trunkline.stop())).then(() => process.disconnect())
  }
})

// Whoever asked is gone: nobody would ever stop it.
process.on('disconnect', () => process.exit())

let next = Number(first)
await Promise.all(
  Array.from({ length: startingMax }, async () => {
    while (next < Number(end)) await startInstance(next++)
  }),
)
tell({ kind: 'ready' })

/**
 * A process that runs the projection `seen`, until it is killed; with `rebuilds` it rebuilds it without a pause. Argument: its options as JSON.
 */
import { createTrunkline } from '../../src/index.ts'
import { type Counted, seenHandlers, seenTables } from './read-model.ts'

export interface ProjectionProcessOptions {
  readonly url: string
  readonly rebuilds: boolean
}

const { url, rebuilds } = JSON.parse(process.argv[2] ?? '') as ProjectionProcessOptions
const trunkline = createTrunkline({ url, pollIntervalMs: 50 })
const projection = trunkline.projection<Counted>({
  name: 'seen',
  mode: 'async',
  partitions: 3,
  batchSize: 20,
  leaseMs: 500,
  tables: seenTables('seen'),
  handlers: seenHandlers('seen'),
})
await projection.start()
process.stdout.write('started\n')
// Others may be in the way, or it: it goes on.
if (rebuilds) for (;;) await projection.rebuild().catch(() => undefined)

import pg from 'pg'
import { createTrunkline } from '../../index.ts'
import { type EmbeddedPostgresVersion } from '../../testing/index.ts'
import { elapsedMs, nowMs, rounded } from './clock.ts'
import { Deliveries } from './deliveries.ts'
import { type DemoEvent } from './events.ts'
import { Fleet } from './fleet.ts'
import { type Database } from './instance-process.ts'
import { loadTables } from './loading.ts'
import { loadReferenceData } from './reference-data.ts'
import { type DemoServer, startServer } from './server.ts'
import { Visibility } from './visibility.ts'
import { Writer } from './writer.ts'

/** The name that the main process’s own connections go by. */
export const mainName = 'trunkline demo'

export interface StageOptions {
  /** Version of PostgreSQL. Default: 12, or 18 where there is no 12. */
  readonly version: EmbeddedPostgresVersion | undefined
  readonly schema: string
  readonly instances: number
  readonly tell: (event: DemoEvent) => void
  /** Ends what is under way: the instances are stopped at once. */
  readonly signal: AbortSignal
}

/** All that a run of the demo works with: a server with the tables, the instances, who writes, and the orders. */
export interface Stage extends AsyncDisposable {
  readonly server: DemoServer
  readonly pool: pg.Pool
  readonly fleet: Fleet
  readonly visibility: Visibility
  readonly writer: Writer
  readonly deliveries: Deliveries
  readonly tell: (event: DemoEvent) => void
  readonly signal: AbortSignal
}

/** Starts the server, loads the tables, starts the instances. What was started is ended again when a part fails. */
export async function setStage(options: StageOptions): Promise<Stage> {
  const { tell, signal } = options
  const data = await loadReferenceData()
  await using parts = new AsyncDisposableStack()
  const server = await startServer(options.version)
  parts.defer(() => server.postgres.dispose())
  if (server.note !== undefined) tell({ event: 'note', text: server.note })
  tell({ event: 'server', version: server.serverVersion, port: server.postgres.port, startMs: rounded(server.startMs) })
  signal.throwIfAborted()

  const pool = new pg.Pool({ connectionString: server.url(), application_name: mainName, max: 5 })
  // The demo breaks connections on purpose; an idle one that broke is replaced.
  pool.on('error', () => undefined)
  parts.defer(() => pool.end())
  const started = nowMs()
  const rows = await loadTables(createTrunkline({ pool, schema: options.schema }), data)
  tell({ event: 'loaded', rows, loadMs: rounded(elapsedMs(started)) })
  signal.throwIfAborted()

  const visibility = new Visibility((violation) => tell({ event: 'violation', ...violation }))
  const fleet = createFleet(server, options, visibility)
  parts.defer(() => fleet.stop())
  const stopFleet = (): void => void fleet.stop()
  signal.addEventListener('abort', stopFleet)
  parts.defer(() => signal.removeEventListener('abort', stopFleet))
  tell({ event: 'note', text: `starting ${options.instances} instances, which copy the tables all at once` })
  await fleet.start(options.instances)

  const writer = new Writer(pool, visibility, rows['place'] ?? 0)
  const database = (): Database => ({ url: server.url(), schema: options.schema })
  signal.throwIfAborted()
  const deliveries = await Deliveries.start(parts, database, tell)
  const kept = parts.move()
  const stage = { server, pool, fleet, visibility, writer, deliveries, tell, signal }
  return { ...stage, [Symbol.asyncDispose]: () => kept.disposeAsync() }
}

function createFleet(server: DemoServer, { schema, tell }: StageOptions, visibility: Visibility): Fleet {
  const database = (): Database => ({ url: server.url(), schema })
  return new Fleet(database, visibility, {
    ready: (instance, pid, copy, isRestart) => {
      const { table, rows, copyMs, bytesPerRow } = copy
      const rowsPerSecond = Math.round((rows / copyMs) * 1000)
      tell({
        event: 'instance',
        instance,
        pid,
        isRestart,
        table,
        rows,
        copyMs: rounded(copyMs),
        rowsPerSecond,
        bytesPerRow,
      })
    },
    killed: (instance, pid) => tell({ event: 'killed', instance, pid }),
    warning: (instance, text) => tell({ event: 'warning', instance, text }),
  })
}

/**
 * A relay in a process of its own, to be killed and paused. Its sink writes into the table `arrival` over a connection of its
 * own, when a delivery begins and when it ends. A payload of { kill: true } ends the process while it is delivered.
 */
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { createTrunkline, type RelayOptions, type Sink, sinkFromUrl, TrunklineError } from '../../src/index.ts'

export interface RelayProcessOptions {
  /** Where the relay reads. */
  readonly url: string
  /** Where `arrival` is. */
  readonly arrivalUrl: string
  readonly relay: Omit<RelayOptions, 'sink' | 'format'>
  /** Delivers there in CloudEvents, instead of into `arrival`. */
  readonly sinkUrl?: string
  readonly batchSizeMax?: number
  /** How long each call takes, in milliseconds. */
  readonly callMs?: number
}

function tableSink({ arrivalUrl, batchSizeMax = 1, callMs = 0 }: RelayProcessOptions): Sink {
  const pool = new pg.Pool({ connectionString: arrivalUrl, max: 4 })
  pool.on('error', () => undefined)
  return {
    name: 'table:',
    batchSizeMax,
    start: async () => undefined,
    stop: () => pool.end(),
    async deliver(batch) {
      const values = [
        process.pid,
        batch.map(({ messageId }) => messageId),
        batch.map(({ key }) => key),
        batch.map(({ change }) => JSON.stringify(change.payload)),
        // When the call began: the process may be stopped before the statement is sent.
        new Date(performance.timeOrigin + performance.now()),
      ]
      const { rows } = await pool.query<{ id: string }>(
        `insert into arrival (pid, message_id, key, payload, started_at)
         select $1, m, k, p::json, $5 from unnest($2::uuid[], $3::text[], $4::text[]) with ordinality as u (m, k, p, n) order by n
         returning id`,
        values,
      )
      if (batch.some(({ change }) => (change.payload as { kill?: boolean } | null)?.kill === true)) {
        process.kill(process.pid, 'SIGKILL')
      }
      if (callMs > 0) await delay(callMs)
      await pool.query('update arrival set ended_at = clock_timestamp() where id = any ($1)', [
        rows.map(({ id }) => id),
      ])
      return batch.map(() => undefined)
    },
  }
}

const options = JSON.parse(process.argv[2] ?? '') as RelayProcessOptions
const trunkline = createTrunkline({ url: options.url, pollIntervalMs: 200 })
const relay = trunkline.relay(
  options.sinkUrl === undefined
    ? { ...options.relay, sink: tableSink(options) }
    : { ...options.relay, sink: sinkFromUrl(options.sinkUrl, { timeoutMs: 3_000 }), format: 'cloudevents' },
)
const say = (object: object): unknown => process.stdout.write(`${JSON.stringify(object)}\n`)
relay.on('slots', (slots) => say({ slots }))
relay.on('dead-letter', ({ error, attempts }) => say({ dead: error.code, attempts }))
relay.on('error', (error) => say({ error: error.message }))
process.on('SIGTERM', () => {
  void trunkline.stop().then(() => process.exit(0))
})
// As whatever looks after processes would: the receiver may be down when one starts.
for (let isStarted = false; !isStarted;) {
  try {
    await relay.start()
    isStarted = true
  } catch (error) {
    if (!(error instanceof TrunklineError && error.retryable)) throw error
    say({ error: error.message })
    await delay(100)
  }
}
say({ started: true })

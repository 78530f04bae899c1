import { randomUUID } from 'node:crypto'
import pg from 'pg'
import { messageOf, withTimeout } from '../../core/index.ts'
import { configFromUrl } from '../../postgres/index.ts'
import { type Finding, info, warning } from './finding.ts'

/** How long a notification of one's own may take, in milliseconds. */
const arrivalMsMax = 2_000

/** Whether LISTEN works where it will be used: a notification of one's own must arrive. */
export async function checkListen(listenUrl: string | false | undefined, pool: pg.Pool): Promise<Finding[]> {
  if (listenUrl === false) {
    return [
      info(
        'listen_off',
        'listenUrl is false: readers poll.',
        'Give them a direct URL where a second of delay is too much.',
      ),
    ]
  }
  const config = listenUrl === undefined ? pool.options : configFromUrl(listenUrl, 'TRUNKLINE_LISTEN_URL')
  const client = new pg.Client(config)
  client.on('error', () => undefined)
  const name = listenUrl === undefined ? 'the URL' : 'TRUNKLINE_LISTEN_URL'
  try {
    await client.connect()
    await hear(client, pool)
    return []
  } catch (failure) {
    return [
      warning(
        'listen_unavailable',
        `LISTEN does not work through ${name} (${messageOf(failure)}): readers poll, and learn of a commit up to a second later.`,
        'Set TRUNKLINE_LISTEN_URL (listenUrl) to a direct URL of the primary, past a pooler in transaction mode.',
      ),
    ]
  } finally {
    await client.end().catch(() => undefined)
  }
}

/** The notification comes from another connection: a pooler hands a client what its own statement caused. */
async function hear(client: pg.Client, pool: pg.Pool): Promise<void> {
  const channel = `trunkline_doctor_${randomUUID()}`
  const { promise, resolve } = Promise.withResolvers<void>()
  client.on('notification', (message) => {
    if (message.channel === channel) resolve()
  })
  await client.query(`listen ${pg.escapeIdentifier(channel)}`)
  await pool.query('select pg_notify($1, $2)', [channel, ''])
  await withTimeout(
    promise,
    arrivalMsMax,
    () => new Error(`a notification of its own did not arrive within ${arrivalMsMax} ms`),
  )
}

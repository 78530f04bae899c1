import { quoteIdentifier, quoteLiteral } from '../../postgres/index.ts'
import { installationStatus, readerStatuses, slotStatuses } from '../status-report.ts'
import { textOfAge, textOfBytes, textOfSeconds } from '../table.ts'
import { error, type Finding, info, type Patient, warning } from './finding.ts'

/** Size of the log from which on it is worth a word, in bytes. */
const logBytesMax = 10n * 1024n ** 3n
/** A share of the server's notification queue: from here on it is not drained as it should be. */
const queueUsageWarning = 0.25
const queueUsageError = 0.75

/** Whether the log stays bounded and ordered. */
export async function checkLog(patient: Patient): Promise<Finding[]> {
  return [
    ...(await checkSequence(patient)),
    ...(await checkRotation(patient)),
    ...(await checkReaders(patient)),
    ...(await checkSize(patient)),
    ...(await checkNotify(patient)),
  ]
}

async function checkSequence({ db, schema }: Patient): Promise<Finding[]> {
  const { rows } = await db.query<{ cache: number }>(
    `select s.seqcache::integer as cache from pg_sequence as s join pg_class as c on c.oid = s.seqrelid join pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = $1 and c.relname = 'log_id_seq' and s.seqcache <> 1`,
    [schema],
  )
  return rows.map(({ cache }) =>
    error(
      'sequence_cache',
      `The log's sequence has CACHE ${cache}: a later change of a row can get a lower id than an earlier one.`,
      `alter sequence ${quoteIdentifier(schema)}.log_id_seq cache 1, then restart the writers' sessions.`,
    ),
  )
}

async function checkRotation({ db, schema }: Patient): Promise<Finding[]> {
  const { rows } = await db.query<{ overdue: boolean; held: number[] }>(
    `select bool_or(k.slot = ${quoteIdentifier(schema)}.log_slot() and k.opened_at < now() - i.retention) as overdue,
      coalesce(array_agg(k.slot::integer) filter (where k.closed_at < now() - 2 * i.retention), '{}') as held
    from ${quoteIdentifier(schema)}.slot as k cross join ${quoteIdentifier(schema)}.installation as i`,
  )
  const { overdue = false, held = [] } = rows[0] ?? {}
  if (!overdue && held.length === 0) return []
  const slots = await slotStatuses(db, schema)
  const opened = slots.find(({ current }) => current)?.openedAt ?? null
  const facts = [
    ...(overdue ? [`the present child takes rows for ${textOfAge(opened)}`] : []),
    ...(held.length > 0 ? [`children ${held.join(', ')} are past retention and not emptied`] : []),
  ]
  return [
    warning(
      'rotation_overdue',
      `The log is not rotated: ${facts.join('; ')}.`,
      `See the readers of trunkline status and open transactions, then: select ${quoteIdentifier(schema)}.rotate()`,
    ),
  ]
}

async function checkReaders({ db, schema }: Patient): Promise<Finding[]> {
  const readers = await readerStatuses(db, schema)
  return readers.flatMap((reader) => {
    if (!reader.alive) {
      return warning(
        'reader_dead',
        `Reader ${reader.name} has not moved for ${textOfAge(reader.updatedAt)}: the log does not wait for it any more.`,
        `Start it, or remove it: delete from ${quoteIdentifier(schema)}.reader where name = ${quoteLiteral(reader.name)}`,
      )
    }
    const hourSeconds = 3600
    if (reader.behindSeconds === null || reader.behindSeconds < hourSeconds) return []
    return warning(
      'reader_behind',
      `Reader ${reader.name} is ${textOfSeconds(reader.behindSeconds)} behind, at least ${reader.behindRows} rows.`,
      'See that it runs, and what it waits for.',
    )
  })
}

async function checkSize({ db, schema }: Patient): Promise<Finding[]> {
  const { logBytes, retention } = await installationStatus(db, schema)
  if (BigInt(logBytes) < logBytesMax) return []
  return [
    info(
      'log_large',
      `The log has ${textOfBytes(BigInt(logBytes))}; it is kept for ${retention}.`,
      `Shorten it where readers are never that far behind: update ${quoteIdentifier(schema)}.installation set retention = …`,
    ),
  ]
}

async function checkNotify({ db, schema }: Patient): Promise<Finding[]> {
  const s = quoteIdentifier(schema)
  const { rows } = await db.query<{ usage: number; prepared: number; tables: string[] }>(
    `select pg_notification_queue_usage() as usage,
      current_setting('max_prepared_transactions')::integer as prepared,
      array(
        select coalesce(t.relation::regclass::text, t.name) from ${s}.topic as t
        where t.captured and coalesce(t.wake, ${s}.wake_mode()) <> 'off' order by 1
      ) as tables`,
  )
  const { usage = 0, prepared = 0, tables = [] } = rows[0] ?? {}
  const findings: Finding[] = []
  if (usage > queueUsageWarning) {
    const make = usage > queueUsageError ? error : warning
    const what = `The notification queue of the server is ${Math.round(usage * 100)} % full; when it is full, commits that notify fail.`
    findings.push(
      make(
        'notify_queue',
        what,
        'End the session that listens and stays in a transaction: pg_stat_activity, state idle in transaction.',
      ),
    )
  }
  if (prepared > 0 && tables.length > 0) {
    findings.push(
      info(
        'two_phase',
        `max_prepared_transactions is ${prepared}: PREPARE TRANSACTION fails after a NOTIFY, which ${tables.length} captured tables may send.`,
        `Where two-phase commit is used: trunkline capture TABLE --wake off, or select ${s}.set_wake('off')`,
      ),
    )
  }
  return findings
}

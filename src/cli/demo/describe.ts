import {
  type ChangeEvent,
  type DeliveriesEvent,
  type DemoEvent,
  isOfOrders,
  type OrderCheckEvent,
  type ResultEvent,
} from './events.ts'
import { type Percentiles } from './latencies.ts'

/** An event as one line for people; the result takes several. */
export function describeEvent(event: DemoEvent): string {
  if (isOfOrders(event)) return event.event === 'deliveries' ? describeDeliveries(event) : describeOrderCheck(event)
  switch (event.event) {
    case 'server':
      return `PostgreSQL ${event.version} started in ${seconds(event.startMs)}, on port ${event.port}`
    case 'loaded': {
      const tables = Object.entries(event.rows).map(([table, rows]) => `${table} ${count(rows)}`)
      return `loaded in ${seconds(event.loadMs)}: ${tables.join(', ')} rows; captured`
    }
    case 'instance':
      return describeInstance(event)
    case 'change':
      return describeChange(event)
    case 'fault':
      return `fault: ${event.what}; all committed meanwhile was everywhere after ${seconds(event.recoveredMs)}`
    case 'check':
      return describeCheck(event)
    case 'result':
      return describeResult(event)
    case 'difference':
      return `DIFFERENT: ${event.table} ${event.key} in instance ${event.instance} is ${event.found}, SELECT gives ${event.expected}`
    case 'violation':
      return `WRONG: transaction ${event.revision} ${event.what}, in instance ${event.instance}`
    case 'killed':
      return `instance ${event.instance} (process ${event.pid}) killed`
    case 'warning':
      return `instance ${event.instance} says: ${event.text}`
    case 'note':
      return event.text
  }
}

/** True for what must not happen. */
export function isBad(event: DemoEvent): boolean {
  if (event.event === 'result') return !event.isEqual
  if (event.event === 'check' || event.event === 'order-check') return event.differences > 0
  return event.event === 'difference' || event.event === 'violation'
}

/** A duration or a latency as people say it; milliseconds without unit. */
export function milliseconds(ms: number | null | undefined): string {
  if (ms === null || ms === undefined) return '-'
  return ms < 100 ? ms.toFixed(1) : count(Math.round(ms))
}

/** With a separator of thousands. */
export function count(value: number): string {
  return value.toLocaleString('en')
}

function seconds(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`
}

function rowsOf(rows: number): string {
  return rows === 1 ? '1 row' : `${count(rows)} rows`
}

function describeInstance(event: Extract<DemoEvent, { event: 'instance' }>): string {
  const { instance, pid, table, rows, copyMs, rowsPerSecond, bytesPerRow, isRestart } = event
  const who = `instance ${instance}${isRestart ? ' again' : ''} (process ${pid})`
  return `${who}: ${count(rows)} rows of ${table} in ${seconds(copyMs)}, ${count(rowsPerSecond)} rows/s, ${bytesPerRow} bytes a row`
}

function describeChange({ revision, what, rows, end, visibleMs }: ChangeEvent): string {
  const head = `transaction ${revision}: ${what}, ${rowsOf(rows)}`
  if (end === 'rollback') return `${head}; nobody may see it`
  return `${head}; visible after ${visibleMs.map(({ ms }) => milliseconds(ms)).join('  ')} ms`
}

function describeCheck(event: Extract<DemoEvent, { event: 'check' }>): string {
  const compared = `${event.instances} instances × ${count(event.rows)} rows compared with SELECT in ${seconds(event.checkMs)}`
  return event.differences === 0
    ? `check: ${compared}: equal`
    : `CHECK: ${compared}: ${count(event.differences)} differ`
}

function describeDeliveries({ webhook, file }: DeliveriesEvent): string {
  return `orders delivered: webhook ${describeArrived(webhook)}; file ${describeArrived(file)} from COMMIT`
}

function describeArrived({ orders, ms }: DeliveriesEvent['file']): string {
  return `${count(orders)}, p50 ${milliseconds(ms.p50)} p99 ${milliseconds(ms.p99)} ms`
}

function describeOrderCheck(event: OrderCheckEvent): string {
  const { orders, webhook, file, billed, differences } = event
  const repeated = `repeated by faults: webhook ${webhook.repeated}, file ${file.repeated}`
  if (differences === 0) {
    return `check: ${count(orders)} orders, each delivered in order to webhook and file, and billed once (${repeated})`
  }
  const billing = `billed: ${billed.wrong} not once, ${billed.outOfOrder} out of order`
  return `CHECK: ${count(orders)} orders; webhook: ${describeWrong(webhook)}; file: ${describeWrong(file)}; ${billing}`
}

function describeWrong({ lost, invented, outOfOrder }: OrderCheckEvent['file']): string {
  return `${lost} lost, ${invented} never committed, ${outOfOrder} out of order`
}

function describeResult(result: ResultEvent): string {
  const copy = `${seconds(result.copyMs)}, ${count(result.rowsPerSecond)} rows/s, ${result.bytesPerRow} bytes a row`
  const wrong = `${count(result.differences)} differences, ${count(result.violations)} violations`
  return [
    '',
    `PostgreSQL      ${result.postgres}, no extension, no superuser, wal_level as installed`,
    `instances       ${result.instances} processes, ${count(result.rows)} rows each`,
    `first copy      ${copy} (median; all at once)`,
    `transactions    ${count(result.transactions)} committed (${count(result.rowsWritten)} rows), ${count(result.rollbacks)} rolled back`,
    `visible after   ${describePercentiles(result.latencyMs)}, counted from COMMIT, over all instances`,
    `bulk updates    ${describePercentiles(result.bulkLatencyMs)}`,
    `orders          ${count(result.orders)} committed with their events, billed once each by an idempotent consumer`,
    `  to a webhook  ${describePercentiles(result.webhook.ms)} from COMMIT; ${result.webhook.repeated} repeated by faults`,
    `  to a file     ${describePercentiles(result.file.ms)} from COMMIT; ${result.file.repeated} repeated by faults`,
    `faults          ${result.faults}`,
    `row by row      ${result.checks} checks, orders included: ${result.isEqual && result.checks > 0 ? 'all equal' : wrong}`,
    `took            ${seconds(result.elapsedMs)}`,
  ].join('\n')
}

function describePercentiles({ p50, p99, max }: Percentiles): string {
  return `p50 ${milliseconds(p50)} ms, p99 ${milliseconds(p99)} ms, max ${milliseconds(max)} ms`
}

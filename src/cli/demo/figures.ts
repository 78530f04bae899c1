import { rounded } from './clock.ts'
import { type DeliveriesEvent, type DemoEvent, isOfOrders, type OrderCheckEvent, type ResultEvent } from './events.ts'
import { Latencies, median } from './latencies.ts'

type Told<Name extends DemoEvent['event']> = Extract<DemoEvent, { readonly event: Name }>

const noDeliveries = { orders: 0, repeated: 0, ms: new Latencies().percentiles() }

/** Adds up what the events of a run told. */
export class Figures {
  readonly #latencies = { small: new Latencies(), bulk: new Latencies() }
  readonly #copies: Told<'instance'>[] = []
  #postgres = ''
  #rows = 0
  #transactions = 0
  #rollbacks = 0
  #rowsWritten = 0
  #faults = 0
  #checks = 0
  #differences = 0
  #violations = 0
  #orders = 0
  /** The last that was told, and that of the last check. */
  #deliveries: Pick<DeliveriesEvent, 'webhook' | 'file'> = { webhook: noDeliveries, file: noDeliveries }
  #compared = this.#deliveries

  add(event: DemoEvent): void {
    if (isOfOrders(event)) return this.#addOrders(event)
    switch (event.event) {
      case 'server':
        this.#postgres = event.version
        break
      case 'loaded':
        this.#rows = Object.values(event.rows).reduce((sum, rows) => sum + rows, 0)
        break
      case 'instance':
        if (!event.isRestart) this.#copies.push(event)
        break
      case 'change':
        this.#addChange(event)
        break
      case 'fault':
        this.#faults += 1
        break
      case 'check':
        this.#checks += 1
        this.#differences += event.differences
        break
      case 'violation':
        this.#violations += 1
        break
      case 'difference':
      case 'killed':
      case 'warning':
      case 'note':
      case 'result':
        break
    }
  }

  /** What it all comes to. */
  result(elapsedMs: number): ResultEvent {
    return {
      event: 'result',
      isEqual: this.#differences === 0 && this.#violations === 0,
      postgres: this.#postgres,
      instances: this.#copies.length,
      rows: this.#rows,
      copyMs: rounded(median(this.#copies.map(({ copyMs }) => copyMs))),
      rowsPerSecond: median(this.#copies.map(({ rowsPerSecond }) => rowsPerSecond)),
      bytesPerRow: median(this.#copies.map(({ bytesPerRow }) => bytesPerRow)),
      transactions: this.#transactions,
      rollbacks: this.#rollbacks,
      rowsWritten: this.#rowsWritten,
      latencyMs: this.#latencies.small.percentiles(),
      bulkLatencyMs: this.#latencies.bulk.percentiles(),
      orders: this.#orders,
      webhook: this.#compared.webhook,
      file: this.#compared.file,
      faults: this.#faults,
      checks: this.#checks,
      differences: this.#differences,
      violations: this.#violations,
      elapsedMs: Math.round(elapsedMs),
    }
  }

  #addOrders(event: DeliveriesEvent | OrderCheckEvent): void {
    if (event.event === 'deliveries') {
      this.#deliveries = event
      return
    }
    this.#orders = event.orders
    this.#compared = this.#deliveries
    this.#differences += event.differences
  }

  #addChange(change: Told<'change'>): void {
    if (change.end === 'rollback') {
      this.#rollbacks += 1
      return
    }
    this.#transactions += 1
    this.#rowsWritten += change.rows
    for (const { ms } of change.visibleMs) if (ms !== null) this.#latencies[change.size].add(ms)
  }
}

import { styleText } from 'node:util'
import { textTable } from '../table.ts'
import { count, describeEvent, isBad, milliseconds } from './describe.ts'
import { type DeliveriesEvent, type DemoEvent } from './events.ts'
import { Latencies } from './latencies.ts'

/** Shortest time between two drawings, in milliseconds. */
const drawIntervalMs = 100
/** Transactions and other events that stay in sight. */
const changesShown = 4
const eventsShown = 12

interface InstanceLine {
  state: 'live' | 'offline' | 'killed'
  pid: number
  rowsPerSecond: number
  bytesPerRow: number
  readonly latencies: Latencies
}

/** Together they fit into 80 columns. */
const headings = ['inst', 'process', 'state  ', ' rows/s', 'B/row', ' seen', '  last', '   p50', '   p99', '   max']
const deliveryHeadings = ['to     ', ' orders', 'repeated', '   p50', '   p99', '   max']

/** A table of the instances with what happened last under it, drawn over itself. */
export class LiveView {
  readonly #output: NodeJS.WriteStream
  readonly #instances = new Map<number, InstanceLine>()
  #changes: DemoEvent[] = []
  #events: DemoEvent[] = []
  #deliveries: DeliveriesEvent | undefined
  #drawnLines = 0
  #timer: NodeJS.Timeout | undefined

  constructor(output: NodeJS.WriteStream) {
    this.#output = output
  }

  tell(event: DemoEvent): void {
    if (event.event === 'result') return this.#finish(event)
    this.#follow(event)
    if (event.event === 'change') this.#changes = [...this.#changes, event].slice(-changesShown)
    else if (isWorthALine(event)) this.#events = [...this.#events, event].slice(-eventsShown)
    if (isBad(event)) this.#draw()
    else this.#timer ??= setTimeout(() => this.#draw(), drawIntervalMs).unref()
  }

  /** What an event means for the lines of the instances. */
  #follow(event: DemoEvent): void {
    if (event.event === 'instance') {
      const { instance, pid, rowsPerSecond, bytesPerRow } = event
      const latencies = this.#instances.get(instance)?.latencies ?? new Latencies()
      this.#instances.set(instance, { state: 'live', pid, rowsPerSecond, bytesPerRow, latencies })
    } else if (event.event === 'deliveries') {
      this.#deliveries = event
    } else if (event.event === 'killed') {
      this.#setState(event.instance, 'killed')
    } else if (event.event === 'warning') {
      this.#setState(event.instance, 'offline')
    } else if (event.event === 'fault') {
      for (const instance of this.#instances.keys()) this.#setState(instance, 'live')
    } else if (event.event === 'change' && event.size === 'small') {
      for (const { instance, ms } of event.visibleMs) if (ms !== null) this.#instances.get(instance)?.latencies.add(ms)
    }
  }

  #setState(instance: number, state: InstanceLine['state']): void {
    const line = this.#instances.get(instance)
    if (line !== undefined) line.state = state
  }

  #finish(result: DemoEvent): void {
    this.#changes = []
    this.#draw()
    this.#output.write(`${this.#styled(describeEvent(result), isBad(result))}\n`)
  }

  #styled(text: string, isRed: boolean): string {
    return isRed ? styleText('red', text, { stream: this.#output }) : text
  }

  /** The cursor goes back to where the last drawing began; lines are cut, because a wrapped one would count twice. */
  #draw(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    // A terminal that does not know its size says 0.
    const columns = this.#output.columns || 80
    const rows = this.#output.rows || 24
    const table = this.#table().map((line) => cut(line, columns - 1))
    const room = Math.max(1, rows - table.length - 1)
    const events = [...this.#events, ...this.#changes].slice(-room)
    const lines = [
      ...table,
      ...events.map((event) => this.#styled(cut(describeEvent(event), columns - 1), isBad(event))),
    ]
    if (this.#drawnLines > 0) this.#output.moveCursor(0, -this.#drawnLines)
    this.#output.cursorTo(0)
    this.#output.clearScreenDown()
    this.#output.write(`${lines.join('\n')}\n`)
    this.#drawnLines = lines.length
  }

  #table(): string[] {
    if (this.#instances.size === 0) return []
    const lines = [...this.#instances].toSorted(([left], [right]) => left - right)
    const cells = lines.map(([instance, { state, pid, rowsPerSecond, bytesPerRow, latencies }]) => {
      const { p50, p99, max, count: seen } = latencies.percentiles()
      const times = [latencies.last, p50, p99, max].map(milliseconds)
      return [`${instance}`, `${pid}`, state, count(rowsPerSecond), `${bytesPerRow}`, count(seen)].concat(times)
    })
    const aligned = cells.map((row) => row.map((cell, column) => cell.padStart(headings[column]?.length ?? 0)))
    const title = 'last … max: ms from COMMIT until the instance shows the transaction (no bulk updates)'
    return [title, ...textTable(headings, aligned).split('\n'), '', ...this.#deliveryTable()]
  }

  #deliveryTable(): string[] {
    if (this.#deliveries === undefined) return []
    const { webhook, file } = this.#deliveries
    const lines = Object.entries({ webhook, file }).map(([where, { orders, repeated, ms }]) => {
      return [where.padEnd(7), count(orders), count(repeated)].concat([ms.p50, ms.p99, ms.max].map(milliseconds))
    })
    const aligned = lines.map((row) => row.map((cell, column) => cell.padStart(deliveryHeadings[column]?.length ?? 0)))
    return [
      'orders by relay: ms from COMMIT until they arrive',
      ...textTable(deliveryHeadings, aligned).split('\n'),
      '',
    ]
  }
}

/** What the table does not show already. */
function isWorthALine(event: DemoEvent): boolean {
  if (event.event === 'deliveries') return false
  return event.event !== 'warning' && event.event !== 'killed' && (event.event !== 'instance' || event.isRestart)
}

function cut(line: string, width: number): string {
  return line.length <= width ? line : `${line.slice(0, width - 1)}…`
}

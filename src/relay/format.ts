import type { Change } from '../log/index.ts'
import type { Delivery } from './sink.ts'

/** How an event or captured change is written for receivers. */
export interface Format {
  /** `plain`, `cloudevents`, … */
  readonly name: string
  /** The delivery of a change; undefined where the format has none for it (it is then passed over, and counted). */
  encode(change: Change): Delivery | undefined
}

import type { Delivery, DeliveryError } from '../relay/index.ts'
import { notAttempted, toDeliveryError } from './by-key.ts'
import type { Deadline } from './deadline.ts'
import type { Outcomes } from './outcomes.ts'

/** A delivery in line for a topic. */
export interface KafkaWaiting {
  readonly delivery: Delivery
  /** Shared by the deliveries of one key in one call: what comes after a failure is not sent. */
  readonly lane: { failed: boolean }
  /** Of its call, and its place there. */
  readonly outcomes: Outcomes
  readonly index: number
}

/** Sends to one topic, all or nothing for each of its partitions. */
export type SendToTopic = (deliveries: readonly Delivery[], deadline: Deadline) => Promise<void>

/**
 * Bytes in one request, at most. All of it may go to one partition, as one record batch, and that must stay below
 * `max.message.bytes` (1,048,588 unless it was changed).
 */
const requestBytesMax = 900_000
/** Records in one request, at most: a fault repeats what was on its way, and after an outage that could be the whole window. */
const requestRecordsMax = 500
/** What a record takes besides key, value and headers; generous. */
const recordOverheadBytes = 100

/** The line before one topic: one request on its way at a time. */
export class KafkaTopic {
  readonly #send: SendToTopic
  #waiting: KafkaWaiting[] = []
  #isSending = false

  constructor(send: SendToTopic) {
    this.#send = send
  }

  add(waiting: KafkaWaiting): void {
    this.#waiting.push(waiting)
    if (this.#isSending) return
    this.#isSending = true
    // The rest of the call, and calls of the same moment, go with it.
    setImmediate(() => void this.#sendWaiting())
  }

  async #sendWaiting(): Promise<void> {
    for (let group = this.#nextGroup(); group.length > 0; group = this.#nextGroup()) await this.#sendGroup(group)
    this.#isSending = false
  }

  /** What fits into one request; what must not be sent any more is settled here. */
  #nextGroup(): KafkaWaiting[] {
    const group: KafkaWaiting[] = []
    let bytes = 0
    let index = 0
    for (; index < this.#waiting.length; index += 1) {
      const next = this.#waiting[index]
      if (next === undefined || isHopeless(next)) continue
      bytes += bytesOf(next.delivery)
      if (group.length > 0 && (bytes > requestBytesMax || group.length === requestRecordsMax)) break
      group.push(next)
    }
    this.#waiting = this.#waiting.slice(index)
    return group
  }

  async #sendGroup(group: readonly KafkaWaiting[]): Promise<void> {
    const failure = await this.#attempt(group)
    if (failure === undefined) {
      for (const { outcomes, index } of group) outcomes.settle(index, undefined)
    } else if (!failure.retryable && group.length > 1) {
      // One of them is to blame, the others are not.
      for (const one of group) if (!isHopeless(one)) await this.#sendGroup([one])
    } else {
      for (const { lane, outcomes, index } of group) {
        lane.failed = true
        outcomes.settle(index, failure)
      }
    }
  }

  async #attempt(group: readonly KafkaWaiting[]): Promise<DeliveryError | undefined> {
    const [first] = group
    if (first === undefined) return undefined
    try {
      await this.#send(
        group.map(({ delivery }) => delivery),
        first.outcomes.deadline,
      )
      return undefined
    } catch (error) {
      return toDeliveryError(error)
    }
  }
}

/** True, and settled: an earlier one of its key failed, or its call has no more time. */
function isHopeless({ lane, outcomes, index }: KafkaWaiting): boolean {
  if (!lane.failed && !outcomes.deadline.isClosing) return false
  outcomes.settle(index, notAttempted(lane.failed))
  return true
}

/** At most so many: a character of JavaScript takes three bytes in UTF-8 at most, and counting them exactly costs more than it tells. */
function bytesOf({ key, body, headers }: Delivery): number {
  let characters = key?.length ?? 0
  for (const name in headers) characters += name.length + (headers[name]?.length ?? 0)
  return body.length + recordOverheadBytes + 3 * characters
}

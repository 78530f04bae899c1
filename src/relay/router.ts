import type { Batch, Change } from '../log/index.ts'
import { placeOf } from './keys.ts'
import type { Lanes } from './lanes.ts'
import { bareDelivery, notEncoded, processDied } from './refusals.ts'
import type { CheckedRelayOptions } from './relay-options.ts'
import type { Retries } from './retries.ts'
import type { Shares } from './shares.ts'
import type { Delivery, DeliveryError } from './sink.ts'
import type { Entry } from './slot-share.ts'

/** Bytes that a delivery costs besides its body, about. */
const overheadBytes = 500

export interface RouterOptions {
  readonly relay: CheckedRelayOptions
  readonly slotCount: () => number
  readonly shares: Shares
  readonly lanes: Lanes
  readonly retries: Retries
  readonly isStopping: () => boolean
  /** The format has no delivery for it. */
  readonly onPassedOver: (change: Change) => void
}

/** Takes changes in the order of the log to the lanes of their keys. */
export class Router {
  readonly #options: RouterOptions

  constructor(options: RouterOptions) {
    this.#options = options
  }

  /** `from`: where the batch was read from. Returns early when the relay stops. */
  async route(batch: Batch, from: string): Promise<void> {
    const { shares, lanes, isStopping } = this.#options
    let before = from
    for (const change of batch.changes) {
      if (isStopping()) return
      const entry = this.#toEntry(change, before)
      if (entry !== undefined) {
        shares.add(entry)
        // Only a barrier is waited for: what is pushed in one turn of the event loop goes in one batch.
        if (isBarrier(entry)) await this.#pushAlone(entry)
        else lanes.push(entry)
      }
      shares.read = change.position
      before = change.position
    }
    shares.read = batch.position
    shares.pass()
    if (batch.level) shares.level()
  }

  async #pushAlone(entry: Entry): Promise<void> {
    const { shares, lanes, retries } = this.#options
    await lanes.idle()
    await retries.suspended(async () => {
      lanes.push(entry)
      await lanes.idle()
    })
    shares.read = entry.change.position
    // That it was innocent must be known before the next one is attempted.
    if (entry.isAlone) await shares.save()
  }

  /** Undefined: it is none of this process's, has been had already, or is passed over. */
  #toEntry(change: Change, before: string): Entry | undefined {
    const { slotCount, shares, relay } = this.#options
    const { slot, lane, holdKey } = placeOf(change.topic, change.key, change.id, slotCount())
    const share = shares.get(slot)
    if (share?.isOpen !== true || !share.hasJoined || share.hasHad(change)) return undefined
    const encoded = this.#encode(change)
    if (encoded === undefined) return undefined
    const mark = share.marks.get(`${change.id}/${change.xid}`)
    const hasKilled = mark !== undefined && mark.isAlone && mark.attempts >= relay.attemptsMax
    return {
      change,
      delivery: encoded.delivery,
      share,
      lane,
      holdKey,
      before,
      refusal: hasKilled ? processDied(mark.attempts) : encoded.refusal,
      bytes: encoded.delivery.body.length + overheadBytes,
      isSuspect: share.isSuspectNow,
      isAlone: mark !== undefined,
      deadAttempts: mark?.attempts ?? 0,
      sequence: share.added,
      isStarted: false,
      isDone: false,
      attemptedAt: 0,
      unreachedAt: 0,
    }
  }

  #encode(change: Change): { readonly delivery: Delivery; readonly refusal: DeliveryError | undefined } | undefined {
    const { relay, onPassedOver } = this.#options
    try {
      const delivery = relay.format.encode(change)
      if (delivery !== undefined) return { delivery, refusal: undefined }
      onPassedOver(change)
      return undefined
    } catch (error) {
      return { delivery: bareDelivery(change), refusal: notEncoded(error) }
    }
  }
}

/** A truncate or resync has no key: it comes after all that was read before it, and before all that is read after it. */
function isBarrier({ change, isAlone }: Entry): boolean {
  return isAlone || change.operation === 'truncate' || change.operation === 'resync'
}

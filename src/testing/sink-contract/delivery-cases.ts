import { equal, match, ok } from 'node:assert/strict'
import type { Delivery } from '../../relay/index.ts'
import type { ReceiverCase, SinkCapabilities, SinkContractOptions, SinkReceiver } from './contract.ts'
import {
  assertHolds,
  assertInOrder,
  assertNoRepetition,
  batchesOf,
  deliveriesOf,
  deliveryOf,
  interleaved,
} from './deliveries.ts'
import { assertShowsNone, deliverAll, deliverOnce } from './driver.ts'

export function deliveryCases(has: SinkCapabilities): ReceiverCase[] {
  return [
    { name: 'delivers each once, whole, and in the order of its key', run: deliversInOrder },
    { name: 'takes concurrent calls for different keys', run: takesConcurrentCalls },
    { name: 'delivers what has no key', run: deliversWithoutKey },
    { name: 'delivers what has no headers', run: deliversWithoutHeaders },
    { name: 'an empty call has no outcome', run: emptyCall },
    { name: 'sends nothing once the relay has stopped', run: sendsNothingAfterStop },
    { name: 'its name shows no secret', run: nameShowsNone },
    ...(has.refused === true
      ? [
          { name: 'a refused delivery fails for good and holds back its own key alone', run: refusesOne },
          { name: 'the rest of a refused key goes on in a later call', run: goesOnAfterRefusal },
        ]
      : []),
  ]
}

async function deliversInOrder(receiver: SinkReceiver, { deliverMsMax }: SinkContractOptions): Promise<void> {
  const sink = receiver.createSink()
  await sink.start()
  const deliveries = interleaved(['a', 'b', 'ключ "c"'].map((key) => deliveriesOf(key, 40)))
  for (const batch of batchesOf(sink, deliveries)) {
    const outcomes = await deliverOnce(sink, batch, deliverMsMax)
    for (const outcome of outcomes) equal(outcome, undefined)
  }
  const bodies = await receiver.received()
  await sink.stop()
  assertHolds(bodies, deliveries)
  assertInOrder(bodies)
  assertNoRepetition(bodies)
}

async function takesConcurrentCalls(receiver: SinkReceiver, { deliverMsMax }: SinkContractOptions): Promise<void> {
  const sink = receiver.createSink()
  await sink.start()
  const lanes = Array.from({ length: 16 }, (_, lane) =>
    interleaved([deliveriesOf(`${lane}-a`, 20), deliveriesOf(`${lane}-b`, 20)]),
  )
  await Promise.all(lanes.map((lane) => deliverAll(sink, lane, deliverMsMax)))
  const bodies = await receiver.received()
  await sink.stop()
  assertHolds(bodies, lanes.flat())
  assertInOrder(bodies)
  assertNoRepetition(bodies)
}

async function deliversWithoutKey(receiver: SinkReceiver, { deliverMsMax }: SinkContractOptions): Promise<void> {
  const sink = receiver.createSink()
  await sink.start()
  const deliveries = deliveriesOf(null, 20)
  await deliverAll(sink, deliveries, deliverMsMax)
  const bodies = await receiver.received()
  await sink.stop()
  assertHolds(bodies, deliveries)
}

async function deliversWithoutHeaders(receiver: SinkReceiver, { deliverMsMax }: SinkContractOptions): Promise<void> {
  const sink = receiver.createSink()
  await sink.start()
  const deliveries = deliveriesOf('k', 3).map((delivery): Delivery => Object.assign(delivery, { headers: {} }))
  await deliverAll(sink, deliveries, deliverMsMax)
  const bodies = await receiver.received()
  await sink.stop()
  assertHolds(bodies, deliveries)
}

async function emptyCall(receiver: SinkReceiver, { deliverMsMax }: SinkContractOptions): Promise<void> {
  const sink = receiver.createSink()
  await sink.start()
  equal((await deliverOnce(sink, [], deliverMsMax)).length, 0)
  await sink.stop()
}

async function sendsNothingAfterStop(receiver: SinkReceiver, { deliverMsMax }: SinkContractOptions): Promise<void> {
  const sink = receiver.createSink()
  await sink.start()
  const [outcome] = await deliverOnce(sink, [deliveryOf('k', 1)], deliverMsMax, AbortSignal.abort())
  equal(outcome?.retryable, true, 'it can be delivered later')
  await sink.stop()
  assertHolds(await receiver.received(), [])
}

async function nameShowsNone(receiver: SinkReceiver, { secrets = [] }: SinkContractOptions): Promise<void> {
  const sink = receiver.createSink()
  match(sink.name, /./, 'the sink has a name')
  assertShowsNone(sink.name, secrets)
}

/** The second of three of one key is refused, and another key is beside them. */
function withRefused({ refused }: SinkReceiver): { all: Delivery[]; kept: Delivery[]; later: Delivery } {
  ok(refused !== undefined, 'the receiver says how to make it refuse a delivery')
  const first = deliveryOf('held', 1)
  const later = deliveryOf('held', 2)
  const others = deliveriesOf('other', 2)
  const wrong = refused(deliveryOf('held', 2))
  return { all: [first, ...others.slice(0, 1), wrong, later, ...others.slice(1)], kept: [first, ...others], later }
}

async function refusesOne(receiver: SinkReceiver, { deliverMsMax, secrets = [] }: SinkContractOptions): Promise<void> {
  const sink = receiver.createSink()
  await sink.start()
  const { all, kept } = withRefused(receiver)
  // One at a time it is the relay that holds back the rest of the key.
  const batches =
    (sink.batchSizeMax ?? 1) >= all.length ? [all] : all.filter((_, index) => index !== 3).map((one) => [one])
  const outcomes = (await Promise.all(batches.map((batch) => deliverOnce(sink, batch, deliverMsMax)))).flat()
  const [first, other, wrong] = outcomes
  equal(first, undefined)
  equal(other, undefined)
  equal(outcomes.at(-1), undefined, `another key goes on, and failed with ${outcomes.at(-1)?.message}`)
  equal(wrong?.retryable, false, `refused for good, and not: ${wrong?.message}`)
  match(wrong?.message ?? '', /\w/, 'the error says why')
  assertShowsNone(wrong, secrets)
  if (batches.length === 1) {
    equal(outcomes[3]?.code, 'not_attempted')
    equal(outcomes[3]?.retryable, true)
  }
  const bodies = await receiver.received()
  await sink.stop()
  assertHolds(bodies, kept)
}

async function goesOnAfterRefusal(receiver: SinkReceiver, { deliverMsMax }: SinkContractOptions): Promise<void> {
  const sink = receiver.createSink()
  await sink.start()
  const { all, kept, later } = withRefused(receiver)
  const batches =
    (sink.batchSizeMax ?? 1) >= all.length ? [all] : all.filter((_, index) => index !== 3).map((one) => [one])
  for (const batch of batches) await deliverOnce(sink, batch, deliverMsMax)
  await deliverAll(sink, [later], deliverMsMax)
  const bodies = await receiver.received()
  await sink.stop()
  assertHolds(bodies, [...kept, later])
  assertInOrder(bodies)
}

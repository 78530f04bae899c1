import { equal, ok } from 'node:assert/strict'
import { pause, withTimeout } from '../../core/index.ts'
import type { ReceiverCase, SinkCapabilities, SinkContractOptions, SinkReceiver } from './contract.ts'
import { assertHolds, assertInOrder, deliveriesOf, deliveryOf, interleaved } from './deliveries.ts'
import { assertShowsNone, deliverAll, deliverOnce } from './driver.ts'

export function faultCases(has: SinkCapabilities): ReceiverCase[] {
  return [
    ...(has.network === true
      ? [
          { name: 'connects again after an idle connection was reset', run: reconnectsWhenIdle },
          { name: 'loses and inverts nothing while connections are reset under load', run: survivesResets },
          { name: 'fails while the network is cut, and delivers after', run: survivesCut },
          { name: 'settles within its time while the receiver stalls, and delivers after', run: survivesStall },
          { name: 'gives up soon when the relay stops while the receiver stalls', run: givesUpSoon },
        ]
      : []),
    ...(has.server === true
      ? [
          {
            name: 'keeps what was confirmed and delivers the rest when the receiver stops and starts',
            run: survivesRestart,
          },
        ]
      : []),
  ]
}

async function reconnectsWhenIdle(receiver: SinkReceiver, { deliverMsMax }: SinkContractOptions): Promise<void> {
  const sink = receiver.createSink()
  await sink.start()
  const deliveries = deliveriesOf('k', 4)
  for (const delivery of deliveries) {
    await deliverAll(sink, [delivery], deliverMsMax)
    receiver.network?.reset()
  }
  const bodies = await receiver.received()
  await sink.stop()
  assertHolds(bodies, deliveries)
  assertInOrder(bodies)
}

async function survivesResets(receiver: SinkReceiver, { deliverMsMax }: SinkContractOptions): Promise<void> {
  const sink = receiver.createSink()
  await sink.start()
  const lanes = Array.from({ length: 8 }, (_, lane) =>
    interleaved([deliveriesOf(`${lane}-a`, 60), deliveriesOf(`${lane}-b`, 60)]),
  )
  const done = new AbortController()
  const load = Promise.all(lanes.map((lane) => deliverAll(sink, lane, deliverMsMax))).finally(() => done.abort())
  for (let resets = 0; !done.signal.aborted && resets < 10; resets += 1) {
    receiver.network?.reset()
    await pause(Math.random() * 60)
  }
  await load
  const bodies = await receiver.received()
  await sink.stop()
  assertHolds(bodies, lanes.flat())
  assertInOrder(bodies)
}

async function survivesCut(receiver: SinkReceiver, { deliverMsMax, secrets = [] }: SinkContractOptions): Promise<void> {
  const sink = receiver.createSink()
  await sink.start()
  const deliveries = deliveriesOf('k', 3)
  const [first, second, third] = deliveries
  ok(first !== undefined && second !== undefined && third !== undefined)
  await deliverAll(sink, [first], deliverMsMax)
  await receiver.network?.cut()
  const [outcome] = await deliverOnce(sink, [second], deliverMsMax)
  equal(outcome?.retryable, true)
  assertShowsNone(outcome, secrets)
  await receiver.network?.resume()
  await deliverAll(sink, [second, third], deliverMsMax)
  const bodies = await receiver.received()
  await sink.stop()
  assertHolds(bodies, deliveries)
  assertInOrder(bodies)
}

async function survivesStall(
  receiver: SinkReceiver,
  { deliverMsMax, secrets = [] }: SinkContractOptions,
): Promise<void> {
  const sink = receiver.createSink()
  await sink.start()
  const deliveries = deliveriesOf('k', 4)
  await deliverAll(sink, deliveries.slice(0, 1), deliverMsMax)
  await receiver.network?.stall()
  // Twice: over the connection that has stalled, and over a new one.
  for (let attempt = 0; attempt < 2; attempt += 1) {
    const [outcome] = await deliverOnce(sink, deliveries.slice(1, 2), deliverMsMax)
    equal(outcome?.retryable, true)
    assertShowsNone(outcome, secrets)
  }
  await receiver.network?.resume()
  await deliverAll(sink, deliveries.slice(1), deliverMsMax)
  const bodies = await receiver.received()
  await sink.stop()
  assertHolds(bodies, deliveries)
  assertInOrder(bodies)
}

async function givesUpSoon(receiver: SinkReceiver, { deliverMsMax }: SinkContractOptions): Promise<void> {
  const sink = receiver.createSink()
  await sink.start()
  await deliverAll(sink, [deliveryOf('k', 1)], deliverMsMax)
  await receiver.network?.stall()
  const stop = new AbortController()
  const call = deliverOnce(sink, [deliveryOf('k', 2)], deliverMsMax, stop.signal)
  stop.abort()
  const [outcome] = await call
  equal(outcome?.retryable, true)
  await withTimeout(sink.stop(), deliverMsMax, () => new Error(`stop has not ended within ${deliverMsMax} ms`))
  await receiver.network?.resume()
}

async function survivesRestart(
  receiver: SinkReceiver,
  { deliverMsMax, secrets = [] }: SinkContractOptions,
): Promise<void> {
  const sink = receiver.createSink()
  await sink.start()
  const deliveries = deliveriesOf('k', 6)
  await deliverAll(sink, deliveries.slice(0, 2), deliverMsMax)
  await receiver.server?.stop()
  const [outcome] = await deliverOnce(sink, deliveries.slice(2, 3), deliverMsMax)
  equal(outcome?.retryable, true)
  assertShowsNone(outcome, secrets)
  await receiver.server?.start()
  await deliverAll(sink, deliveries.slice(2), deliverMsMax)
  const bodies = await receiver.received()
  await sink.stop()
  assertHolds(bodies, deliveries)
  assertInOrder(bodies)
}

import { equal, ok, rejects } from 'node:assert/strict'
import { TrunklineError } from '../../core/index.ts'
import { DeliveryError } from '../../relay/index.ts'
import type { ReceiverCase, SinkCapabilities, SinkContractOptions, SinkReceiver } from './contract.ts'
import { assertHolds, deliveriesOf, deliveryOf } from './deliveries.ts'
import { assertShowsNone, deliverAll, deliverOnce, until } from './driver.ts'

export function lifeCases(has: SinkCapabilities): ReceiverCase[] {
  return [
    { name: 'starts and stops in any order and number', run: startsAndStops },
    { name: 'rejects deliveries before start and after stop', run: rejectsOutsideOfLife },
    { name: 'stop waits for the call under way', run: stopWaits },
    ...(has.network === true
      ? [
          { name: 'stop releases every connection', run: stopReleases },
          { name: 'tells a refused connection, and comes up when it is accepted', run: refusedConnection },
        ]
      : []),
  ]
}

async function startsAndStops(receiver: SinkReceiver, { deliverMsMax }: SinkContractOptions): Promise<void> {
  const sink = receiver.createSink()
  await sink.stop()
  await Promise.all([sink.start(), sink.start()])
  await sink.start()
  const [first, second] = deliveriesOf('k', 2)
  ok(first !== undefined && second !== undefined)
  await deliverAll(sink, [first], deliverMsMax)
  await Promise.all([sink.stop(), sink.stop()])
  await sink.stop()
  await sink.start()
  await deliverAll(sink, [second], deliverMsMax)
  await sink.stop()
  assertHolds(await receiver.received(), [first, second])
}

const isRetryable = (error: unknown): boolean => error instanceof DeliveryError && error.retryable

async function rejectsOutsideOfLife(receiver: SinkReceiver): Promise<void> {
  const sink = receiver.createSink()
  const { signal } = new AbortController()
  await rejects(sink.deliver([deliveryOf('k', 1)], signal), isRetryable)
  await sink.start()
  await sink.stop()
  await rejects(sink.deliver([deliveryOf('k', 1)], signal), isRetryable)
  assertHolds(await receiver.received(), [])
}

async function stopWaits(receiver: SinkReceiver, { deliverMsMax }: SinkContractOptions): Promise<void> {
  const sink = receiver.createSink()
  await sink.start()
  const delivery = deliveryOf('k', 1)
  let isSettled = false
  const call = deliverOnce(sink, [delivery], deliverMsMax).finally(() => (isSettled = true))
  await sink.stop()
  // The call's own callbacks are a few turns of the loop behind.
  await until('the call has settled', () => isSettled)
  const [outcome] = await call
  if (outcome === undefined) assertHolds(await receiver.received(), [delivery])
}

async function stopReleases(receiver: SinkReceiver, options: SinkContractOptions): Promise<void> {
  const { network } = receiver
  const sink = receiver.createSink()
  await sink.start()
  await deliverAll(sink, deliveriesOf('k', 3), options.deliverMsMax)
  ok((network?.connectionCount ?? 0) > 0, 'the suite watches the connections of the sink')
  await sink.stop()
  await until('no connection is left', () => network?.connectionCount === 0)
}

async function refusedConnection(receiver: SinkReceiver, options: SinkContractOptions): Promise<void> {
  const { network } = receiver
  await network?.cut()
  const sink = receiver.createSink()
  const delivery = deliveryOf('k', 1)
  // A sink whose protocol has no greeting (HTTP) finds out when it delivers.
  const failure: unknown = await sink.start().then(
    async () => (await deliverOnce(sink, [delivery], options.deliverMsMax))[0],
    (error: unknown) => error,
  )
  ok(failure instanceof TrunklineError, 'start or deliver fails with an error of trunkline')
  equal(failure.retryable, true)
  assertShowsNone(failure, options.secrets ?? [])
  await network?.resume()
  await sink.start()
  await deliverAll(sink, [delivery], options.deliverMsMax)
  await sink.stop()
  assertHolds(await receiver.received(), [delivery])
}

import { AssertionError } from 'node:assert'
import { expect, test } from 'vitest'
import { upcaster } from '../../src/index.ts'
import { specify } from '../../src/testing/index.ts'
import { added, noOrder, opened, order, type Order, type OrderEvent } from '../aggregates/order.ts'

class AlreadyShipped extends Error {
  readonly code = 'already_shipped'
}

type Command = { readonly do: 'add'; readonly sku: string } | { readonly do: 'ship' }

function decide(state: Order, command: Command): OrderEvent[] {
  if (state.status === 'shipped') throw new AlreadyShipped('The order has left the house.')
  return command.do === 'ship' ? [{ type: 'shipped', payload: { carrier: 'x' } }] : [added(command.sku)]
}

const decider = { ...order, decide }
const shipped = { type: 'shipped', payload: { carrier: 'x' } } as const

/** These specifications hold. */
function expectHeld(specifications: () => void): void {
  expect(specifications).not.toThrow()
}

/** What a specification that does not hold says. */
function failureOf(run: () => void): AssertionError {
  try {
    run()
  } catch (error) {
    expect(error).toBeInstanceOf(AssertionError)
    return error as AssertionError
  }
  return expect.fail('it held')
}

test('then events, a state, an error', () =>
  expectHeld(() => {
    const specification = specify(decider)
    specification
      .given([opened])
      .when({ do: 'add', sku: 'a' })
      .then([added('a')])
    specification
      .given([opened, added('a')])
      .when({ do: 'ship' })
      .then({ state: { status: 'shipped', lines: [{ sku: 'a', quantity: 1 }] } })
    specification
      .given([])
      .when({ do: 'ship' })
      .then({ events: [shipped], state: { status: 'shipped', lines: [] } })
    for (const error of [AlreadyShipped, Error, 'left the house', /left/, { code: 'already_shipped' }]) {
      specification.given([opened, shipped]).when({ do: 'ship' }).then({ error })
    }
  }))

test('a command may be the function that decides, and decide one event or nothing', () =>
  expectHeld(() => {
    const specification = specify(order)
    specification
      .given([opened])
      .when((state) => added(state.status))
      .then([added('open')])
    specification
      .given([opened])
      .when(() => undefined)
      .then([])
    specification
      .given([])
      .when(() => undefined)
      .then({ state: noOrder })
  }))

test('payloads are compared as they would be stored', () =>
  expectHeld(() => {
    const specification = specify({
      initialState: 0,
      evolve: (state: number, _event: { type: 'at'; payload: unknown }) => state + 1,
    })
    specification
      .given([])
      .when(() => ({ type: 'at', payload: { time: new Date(0), nothing: undefined } }))
      .then([{ type: 'at', payload: { time: '1970-01-01T00:00:00.000Z' } }])
  }))

test('old events are upcast', () =>
  expectHeld(() => {
    const specification = specify({
      ...order,
      upcasters: [
        upcaster({
          from: { type: 'thing-added', schemaVersion: 1 },
          to: { type: 'item-added', schemaVersion: 1 },
          upcast: (name: string) => ({ sku: name, quantity: 1 }),
        }),
      ],
    })
    specification
      .given([opened, { type: 'thing-added', schemaVersion: 1, payload: 'old' }])
      .when(() => [])
      .then({ state: { status: 'open', lines: [{ sku: 'old', quantity: 1 }] } })
  }))

test('an event without a schema version has the newest form: one that was given, and one that was decided', () =>
  expectHeld(() => {
    const specification = specify({
      ...order,
      upcasters: [
        upcaster({
          from: { type: 'item-added', schemaVersion: 1 },
          to: { type: 'item-added', schemaVersion: 2 },
          upcast: (sku: string) => ({ sku, quantity: 1 }),
        }),
      ],
    })
    specification
      .given([opened, { type: 'item-added', schemaVersion: 1, payload: 'old' }, added('new', 2)])
      .when(() => added('decided', 3))
      .then({
        state: {
          status: 'open',
          lines: [
            { sku: 'old', quantity: 1 },
            { sku: 'new', quantity: 2 },
            { sku: 'decided', quantity: 3 },
          ],
        },
      })
  }))

test('says what is different', () => {
  const specification = specify(decider)
  const other = failureOf(() =>
    specification
      .given([opened])
      .when({ do: 'add', sku: 'a' })
      .then([added('b')]),
  )
  expect(other.message).toContain(`Given 1 event, when { do: 'add', sku: 'a' }: other events than expected.`)
  expect(other.message).toMatch(/\+ +sku: 'a'[^]*- +sku: 'b'/)
  expect(other.actual).toEqual([added('a')])
  expect(other.expected).toEqual([added('b')])

  const more = failureOf(() => specification.given([]).when({ do: 'ship' }).then([]))
  expect(more.message).toContain('shipped')
  const state = failureOf(() => specification.given([]).when({ do: 'ship' }).then({ state: noOrder }))
  expect(state.message).toMatch(/another state[^]*\+ +status: 'shipped'[^]*- +status: 'none'/)
  const none = failureOf(() => specification.given([]).when({ do: 'ship' }).then({ error: AlreadyShipped }))
  expect(none.message).toMatch(/expected an error, and it decided .*shipped/)
  const wrong = failureOf(() => specification.given([shipped]).when({ do: 'ship' }).then({ error: 'no money' }))
  expect(wrong.message).toMatch(/another error[^]*left the house[^]*no money/)
  const refused = failureOf(() => specification.given([shipped]).when({ do: 'ship' }).then([shipped]))
  expect(refused.message).toMatch(/it was refused[^]*left the house/)
  for (const error of [TypeError, { code: 'other' }]) {
    failureOf(() => specification.given([shipped]).when({ do: 'ship' }).then({ error }))
  }
})

test('an awaited step and an asynchronous decision are refused with a text', async () => {
  const step = specify(decider).given([]).when({ do: 'ship' })
  await expect(Promise.resolve(step as unknown as Promise<void>)).rejects.toThrow('do not await it')
  const later = specify(order)
    .given([])
    .when((async () => []) as never)
  expect(failureOf(() => later.then([])).message).toContain('promise')
})

test('an event that evolve cannot take is named', () => {
  const specification = specify({ ...order, evolve: () => undefined as never })
  expect(() =>
    specification
      .given([opened])
      .when(() => [])
      .then([]),
  ).toThrow(/"opened".*given.*version 1/)
})

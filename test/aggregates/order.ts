import { beforeAll, onTestFinished } from 'vitest'
import { createTrunkline, type Trunkline, type TrunklineOptions } from '../../src/index.ts'
import { install } from '../log/captured.ts'
import { type TestDatabase, type TestServer, useDatabase } from '../support/index.ts'

/** The example that the tests of aggregates share: an order. */
export interface Order {
  readonly status: 'none' | 'open' | 'shipped'
  readonly lines: readonly { readonly sku: string; readonly quantity: number }[]
}

export type OrderEvent =
  | { readonly type: 'opened'; readonly payload: { readonly customerId: string } }
  | { readonly type: 'item-added'; readonly payload: { readonly sku: string; readonly quantity: number } }
  | { readonly type: 'shipped'; readonly payload: { readonly carrier: string } }

export const noOrder: Order = { status: 'none', lines: [] }

function evolveOrder(state: Order, event: OrderEvent): Order {
  switch (event.type) {
    case 'opened':
      return { ...state, status: 'open' }
    case 'item-added':
      return { ...state, lines: [...state.lines, event.payload] }
    case 'shipped':
      return { ...state, status: 'shipped' }
  }
}

export const order = { type: 'order', initialState: noOrder, evolve: evolveOrder } as const

export const opened = { type: 'opened', payload: { customerId: 'c1' } } as const

export function added(sku: string, quantity = 1): OrderEvent {
  return { type: 'item-added', payload: { sku, quantity } }
}

/** A database with the schema, instances of trunkline on it, and ids that nobody else has. */
export interface EventBench {
  readonly database: () => TestDatabase
  open(options?: Partial<TrunklineOptions>): Trunkline
  newId(): string
}

export function useEvents(server: TestServer): EventBench {
  const database = useDatabase(server)
  let last = 0
  beforeAll(() => install(database().url))
  return {
    database,
    open: (options) => {
      const trunkline = createTrunkline({ ...(options?.pool === undefined ? { url: database().url } : {}), ...options })
      onTestFinished(() => trunkline.stop())
      return trunkline
    },
    newId: () => `n${(last += 1)}`,
  }
}

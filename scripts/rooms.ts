/**
 * The rooms of src/ and what each may import: the one-way layering of the code base, read by oxlint.config.ts.
 *
 * core <- postgres <- adapters, schema, log <- cache, outbox, … <- cli. A room lists the rooms it may enter, always through their
 * index.ts; its own files are always open to it. To add a room, add its row here: the linter refuses a directory of src/
 * that has none.
 */
export interface Room {
  /** Rooms it may import, through their index.ts. */
  readonly mayImport: readonly string[]
  /** Why not more: printed with every violation. */
  readonly reason: string
}

const belowTheLog = ['core', 'postgres'] as const
const belowTheConsumers = [...belowTheLog, 'schema', 'log'] as const
const consumers = ['cache', 'outbox', 'events', 'aggregates', 'projections', 'relay', 'sinks'] as const
const library = [...belowTheConsumers, 'adapters', 'routing', ...consumers] as const

export const rooms: Readonly<Record<string, Room>> = {
  core: {
    mayImport: [],
    reason: 'core is the ground floor: no I/O and no other room, so that everything may stand on it',
  },
  postgres: {
    mayImport: ['core'],
    reason: 'postgres says what Postgres is to us; it knows nothing of trunkline’s schema or log',
  },
  adapters: {
    mayImport: belowTheLog,
    reason:
      'adapters make drivers into what postgres/queryable asks for; they know nothing of trunkline’s schema or log',
  },
  schema: {
    mayImport: belowTheLog,
    reason: 'schema runs migrations with plain connections; it must work before there is a log, and beside any reader',
  },
  log: {
    mayImport: belowTheLog,
    reason: 'log is read by many consumers and must know none of them; schema is its sibling',
  },
  cache: {
    mayImport: belowTheConsumers,
    reason: 'cache is one consumer of the log; its siblings must be removable without touching it',
  },
  outbox: {
    mayImport: [...belowTheConsumers, 'adapters'],
    reason: 'outbox is one user of the log; its siblings must be removable without touching it',
  },
  events: {
    mayImport: [...belowTheConsumers, 'adapters'],
    reason:
      'the event store is a table of its own beside the log; what stands on it (projections) must be removable without touching it',
  },
  aggregates: {
    mayImport: [...belowTheLog, 'adapters', 'events'],
    reason: 'aggregates are one way to use the event store, which works without them; projections are their sibling',
  },
  projections: {
    mayImport: [...belowTheLog, 'adapters', 'events'],
    reason:
      'projections stand on the event store alone; what aggregates declare of events they get through the store they read from',
  },
  relay: {
    mayImport: belowTheConsumers,
    reason: 'relay is one consumer of the log; it knows the contract of a sink, and none of the sinks',
  },
  sinks: {
    mayImport: ['core', 'relay'],
    reason: 'a sink knows its contract (relay/sink.ts) and its client; not the relay that calls it, nor the database',
  },
  routing: {
    mayImport: ['core', 'postgres'],
    reason: 'routing says which server a transaction runs on; it works without trunkline’s schema, log and readers',
  },
  testing: {
    mayImport: [...library, 'top'],
    reason: 'testing is the kit for users’ tests: it stands on the library and the library never on it',
  },
  cli: {
    mayImport: [...library, 'testing', 'top'],
    reason: 'cli is the roof: it may enter every room, by the front door',
  },
}

/** The files directly in src/ (index.ts, trunkline.ts), called `top` in the lists above. */
export const top: Room = {
  mayImport: library,
  reason: 'the library must load without its command line and without its test kit',
}

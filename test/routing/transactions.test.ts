import type { QueryConfig } from 'pg'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { ReadOnlyTransactionError, TransactionAbortedError, type Trunkline } from '../../src/index.ts'
import { codeOf } from '../cache/cached.ts'
import { describeEachVersion, eventually } from '../support/index.ts'
import { errorOf, type Fleet, portOf, route, type Routed, startFleet } from './fleet.ts'

describeEachVersion('routed transactions', (version) => {
  let fleet: Fleet
  let routed: Routed
  let trunkline: Trunkline

  beforeAll(async () => {
    fleet = await startFleet(version, 1)
    routed = await route(fleet)
    trunkline = routed.trunkline
  })
  afterAll(async () => {
    await routed.trunkline.stop()
    await fleet[Symbol.asyncDispose]()
  })
  beforeEach(async () => {
    await fleet.database.query('truncate item')
    await fleet.caughtUp()
    routed.decisions.length = 0
  })

  const count = async (where = 'true'): Promise<number> => {
    const [row] = await fleet.database.query<{ n: number }>(`select count(*)::integer as n from item where ${where}`)
    return row?.n ?? -1
  }
  const primaryPort = (): number => fleet.primary.postgres.port
  const replicaPort = (): number => fleet.standbys[0]!.postgres.port

  test('a read runs on the replica, a write on the primary, and each is told and counted', async () => {
    const before = trunkline.routing.status().decisions
    expect(await trunkline.read(portOf)).toBe(replicaPort())
    expect(await trunkline.write(portOf, { label: 'a write' })).toBe(primaryPort())
    expect(routed.decisions).toMatchObject([
      { intent: 'read', target: 'replica', reason: 'replica', lag: { bytes: 0, ms: 0 } },
      { intent: 'write', target: 'primary', reason: 'write', label: 'a write' },
    ])
    const countOf = (decisions: typeof before, reason: string): number =>
      decisions.find((each) => each.reason === reason)?.count ?? 0
    const after = trunkline.routing.status().decisions
    expect(countOf(after, 'replica') - countOf(before, 'replica')).toBe(1)
    expect(countOf(after, 'write') - countOf(before, 'write')).toBe(1)
  })

  test('nothing sent: no connection, no decision, and the hooks still run', async () => {
    let hooks = 0
    const run = async (tx: { afterCommit(callback: () => void): void }): Promise<string> => {
      tx.afterCommit(() => (hooks += 1))
      return 'done'
    }
    expect([await trunkline.read(run), await trunkline.write(run)]).toEqual(['done', 'done'])
    expect(hooks).toBe(2)
    expect(routed.decisions).toEqual([])
    await errorOf(
      trunkline.write(async (tx) => {
        await run(tx)
        throw new Error('no')
      }),
    )
    expect(hooks).toBe(2)
  })

  test('commits what resolves, rolls back what throws, with the error as it was', async () => {
    await trunkline.write(async (tx) => tx.query('insert into item values ($1, $2)', [1, 'a']))
    expect(await count()).toBe(1)
    const failure = new Error('mine')
    const error = await errorOf(
      trunkline.write(async (tx) => {
        await tx.query('insert into item values (2)')
        throw failure
      }),
    )
    expect(error).toBe(failure)
    const violation = await errorOf(trunkline.write(async (tx) => tx.query('insert into item values (1)')))
    expect(violation).toMatchObject({ code: '23505', constraint: 'item_pkey' })
    expect(await count()).toBe(1)
  })

  test('a value that cannot be converted, in the first statement: nothing was sent, the connection is as before', async () => {
    await using alone = await route(fleet, { routing: { poolSizeMax: 1 } })
    const pool = alone.trunkline.routing.pools().write
    await pool.query('select 1')
    const error = await errorOf(
      alone.trunkline.write(async (tx) => tx.query('insert into item values ($1, $2)', [1, { a: 1n }])),
    )
    expect(error.message).toContain('BigInt')
    // On the same connection, in no transaction.
    await pool.query('insert into item values (2)')
    expect(await count('id = 2')).toBe(1)
    // An option of BEGIN that the server refuses leaves nothing open either.
    await errorOf(alone.trunkline.write(async (tx) => tx.query('select 1'), { statementTimeoutMs: 2 ** 31 }))
    await pool.query('insert into item values (3)')
    expect(await count('id = 3')).toBe(1)
  })

  test.each(['simple', 'extended', 'named'] as const)('a first statement that fails, sent the %s way', async (way) => {
    const statement = (text: string): QueryConfig => {
      if (way === 'simple') return { text }
      return way === 'named' ? { text, name: `failing ${text}` } : { text: `${text} where $1 = 1`, values: [1] }
    }
    for (const text of ['select id from nowhere', 'selec 1', 'select 1/0']) {
      const error: Error & { code?: string; position?: string } = await errorOf(
        trunkline.write(async (tx) => tx.query(statement(text))),
      )
      expect(error.code).toMatch(/^(42P01|42601|22012)$/)
      // As the server tells it for the statement alone.
      if (error.code !== '22012') expect(Number(error.position)).toBeLessThan(20)
      // The connection is fit for the next one, also under the same statement name.
      expect((await errorOf(trunkline.write(async (tx) => tx.query(statement(text))))).code).toBe(error.code)
      await trunkline.write(async (tx) => tx.query('select 1'))
    }
  })

  test('a failed statement whose error was caught: nothing is committed, and it is said', async () => {
    const error = await errorOf(
      trunkline.write(async (tx) => {
        await tx.query('insert into item values (1)')
        await tx.query('select 1/0').catch(() => undefined)
      }),
    )
    expect(error).toBeInstanceOf(TransactionAbortedError)
    const first = await errorOf(
      trunkline.write(async (tx) => {
        await tx.query('selec 1').catch(() => undefined)
        await tx.query('insert into item values (1)')
      }),
    )
    expect(first).toMatchObject({ code: 'transaction_aborted' })
    expect(await count()).toBe(0)
    // A savepoint makes it good.
    await trunkline.write(async (tx) => {
      await tx.query('insert into item values (1)')
      await tx.query('savepoint s')
      await tx.query('select 1/0').catch(() => undefined)
      await tx.query('rollback to s')
    })
    expect(await count()).toBe(1)
  })

  test('a constraint checked at COMMIT: its own error, nothing committed', async () => {
    await fleet.database.query('create table late (id integer unique deferrable initially deferred)')
    const insert = async (tx: { query(text: string): Promise<unknown> }): Promise<unknown> =>
      tx.query('insert into late values (1), (1)')
    expect((await errorOf(trunkline.write(insert))).code).toBe('23505')
    expect((await errorOf(trunkline.write(insert, { withToken: true }))).code).toBe('23505')
    await fleet.database.query('drop table late')
  })

  test('isolation, statement time-out and label hold from the first statement to the end, and no longer', async () => {
    const show =
      "select current_setting('transaction_isolation') as i, current_setting('statement_timeout') as t, current_setting('application_name') as l, current_setting('transaction_read_only') as r"
    const options = { isolation: 'repeatable read', statementTimeoutMs: 1234, label: "it's mine" } as const
    const expected = { i: 'repeatable read', t: '1234ms', l: "it's mine" }
    for (const values of [undefined, []] as const) {
      const read = await trunkline.read(async (tx) => (await tx.query(show, values as undefined)).rows[0], options)
      expect(read).toEqual({ ...expected, r: 'on' })
      const written = await trunkline.write(
        async (tx) => (await tx.query({ text: show, name: 'show' })).rows[0],
        options,
      )
      expect(written).toEqual({ ...expected, r: 'off' })
    }
    expect(await trunkline.write(async (tx) => (await tx.query(show)).rows[0])).toMatchObject({
      i: 'read committed',
      t: '0',
      l: 'trunkline routed',
    })
    expect(await codeOf(trunkline.read(async (tx) => tx.query('select pg_sleep(5)'), { statementTimeoutMs: 20 }))).toBe(
      '57014',
    )
  })

  test('a serializable read goes to the primary', async () => {
    expect(await trunkline.read(portOf, { isolation: 'serializable' })).toBe(primaryPort())
    expect(routed.decisions).toMatchObject([{ target: 'primary', reason: 'serializable' }])
  })

  test('a write in a read: a typed error that names the statement, on the replica and on the primary', async () => {
    for (const isolation of ['read committed', 'serializable'] as const) {
      const error = await errorOf(trunkline.read(async (tx) => tx.query('insert into item values (1)'), { isolation }))
      expect(error).toBeInstanceOf(ReadOnlyTransactionError)
      expect(error).toMatchObject({ code: 'read_only_transaction', retryable: false, cause: { code: '25006' } })
      expect(error.message).toContain('insert into item')
    }
    let runs = 0
    const result = await trunkline.read(
      async (tx) => {
        runs += 1
        await tx.query('select 1')
        await tx.query('insert into item values (1)')
        return portOf(tx)
      },
      { onWrite: 'retryOnPrimary' },
    )
    expect([result, runs, await count()]).toEqual([primaryPort(), 2, 1])
  })

  test('nested: a read in a write joins it and sees it; a write in a read throws; requiresNew is its own', async () => {
    const seen = await trunkline.write(async (outer) => {
      await outer.query('insert into item values (1)')
      const inside = await trunkline.read(async (tx) => (await tx.query('select id from item')).rows)
      await trunkline.write(async (tx) => tx.query('insert into item values (2)'))
      const apart = await trunkline.read(async (tx) => (await tx.query('select id from item')).rows, {
        requiresNew: true,
      })
      return { inside, apart }
    })
    expect(seen).toEqual({ inside: [{ id: 1 }], apart: [] })
    expect(await count()).toBe(2)
    expect(routed.decisions.filter(({ reason }) => reason === 'joined')).toHaveLength(2)

    const inRead = trunkline.read(async (outer) => {
      await outer.query('select 1')
      await trunkline.write(async (tx) => tx.query('insert into item values (3)'))
    })
    expect(await errorOf(inRead)).toMatchObject({ name: 'ReadOnlyTransactionError', code: 'write_in_read_only' })
    await trunkline.read(async () =>
      trunkline.write(async (tx) => tx.query('insert into item values (3)'), { requiresNew: true }),
    )
    expect(await count()).toBe(3)
  })

  test('a joined write that failed takes the outer one with it, even if its error was caught', async () => {
    const error = await errorOf(
      trunkline.write(async (outer) => {
        await outer.query('insert into item values (1)')
        await trunkline
          .write(async (tx) => {
            await tx.query('insert into item values (2)')
            throw new Error('half-way')
          })
          .catch(() => undefined)
      }),
    )
    expect(error).toMatchObject({ code: 'transaction_aborted' })
    expect(error.message).toContain('half-way')
    expect(await count()).toBe(0)
  })

  test('statements of a forgotten or failed sibling are not sent after the end', async () => {
    const late: Promise<unknown>[] = []
    await errorOf(
      trunkline.write(async (tx) => {
        await tx.query('select 1')
        const sibling = async (): Promise<void> => {
          await tx.query('select pg_sleep(0.05)')
          await tx.query('insert into item values (9)')
        }
        late.push(sibling().catch((error: unknown) => error))
        await Promise.all([late[0], tx.query('select 1/0')])
      }),
    )
    // Refused here, or by the server in the failed transaction.
    expect(['transaction_ended', '25P02']).toContain(await codeOf(async () => Promise.reject((await late[0]) as Error)))
    let escaped: { query(text: string): Promise<unknown> } | undefined
    await trunkline.write(async (tx) => {
      escaped = tx
      await tx.query('select 1')
    })
    expect(await codeOf(escaped!.query('insert into item values (9)'))).toBe('transaction_ended')
    // Asked for before the end, awaited by nobody: part of the transaction.
    await trunkline.write((tx) => {
      void tx.query('insert into item values (1)')
      void tx.query('insert into item values (2)')
    })
    expect(await count()).toBe(2)
  })

  test('its time is over: the call fails, what hangs is cut, the connection is gone, nothing is committed', async () => {
    const begun = performance.now()
    const error = await errorOf(
      trunkline.write(
        async (tx) => {
          await tx.query('insert into item values (1)')
          await tx.query('select pg_sleep(10)')
        },
        { timeoutMs: 100 },
      ),
    )
    expect(error).toMatchObject({ name: 'RoutingTimeoutError', code: 'timed_out', retryable: true })
    expect(performance.now() - begun).toBeLessThan(8_000)
    // The function itself may never end.
    expect(await codeOf(trunkline.read(async () => new Promise(() => undefined), { timeoutMs: 50 }))).toBe('timed_out')
    expect(await count()).toBe(0)
    expect(trunkline.routing.status().nodes.map(({ open }) => open)).toEqual([0, 0])
  })

  test('its time is over while COMMIT waits: the outcome is unknown, the commit not cancelled, the session pinned', async () => {
    await fleet.database.adminQuery(`
      create or replace function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(1); return null; end $$;
      create constraint trigger slow after insert on item deferrable initially deferred for each row execute function slow()`)
    try {
      await trunkline.routing.session(async (session) => {
        const write = trunkline.write(async (tx) => tx.query('insert into item values (1)'), { timeoutMs: 400 })
        expect(await errorOf(write)).toMatchObject({ name: 'CommitOutcomeUnknownError', retryable: false })
        expect(session.isPinned).toBe(true)
        await trunkline.read(portOf)
        expect(routed.decisions.at(-1)).toMatchObject({ target: 'primary', reason: 'pinned' })
      })
      // It committed, as nobody cancelled it.
      await eventually(async () => (await count()) === 1, { timeoutMs: 10_000 })
    } finally {
      await fleet.database.adminQuery('drop trigger slow on item')
    }
  })

  test('a callback of afterCommit that throws is logged; the write has committed and resolves', async () => {
    let calls = 0
    const write = trunkline.write(async (tx) => {
      await tx.query('insert into item values (1)')
      tx.afterCommit(() => {
        throw new Error('hook')
      })
      tx.afterCommit(() => (calls += 1))
      return 'done'
    })
    expect([await write, calls, await count()]).toEqual(['done', 1, 1])
  })

  test('a sibling that outlives a rollback commits nothing alone; what outlives a commit is on its own', async () => {
    const ended = Promise.withResolvers<void>()
    const later = async (id: number): Promise<void> => {
      await ended.promise
      await trunkline.write(async (tx) => tx.query('insert into item values ($1)', [id]))
    }
    let sibling: Promise<void> | undefined
    await errorOf(
      trunkline.write(async (tx) => {
        await tx.query('insert into item values (1)')
        sibling = later(2)
        throw new Error('boom')
      }),
    )
    const offspring = await trunkline.write(async (tx) => {
      await tx.query('select 1')
      return { promise: later(3) }
    })
    ended.resolve()
    expect(await codeOf(sibling!)).toBe('transaction_ended')
    await offspring.promise
    expect([await count(), await count('id = 3')]).toEqual([1, 1])
  })

  test('a session inside of a transaction stays inside', async () => {
    await errorOf(
      trunkline.write(async (tx) => {
        await tx.query('insert into item values (1)')
        await trunkline.routing.session(async () => {
          const { rows } = await trunkline.read(async (inner) => inner.query('select id from item'))
          expect(rows).toEqual([{ id: 1 }])
          await trunkline.write(async (inner) => inner.query('insert into item values (2)'))
        })
        throw new Error('no')
      }),
    )
    expect(await count()).toBe(0)
  })

  test('what a pg client is needed for: inside of the transaction', async () => {
    await trunkline.write(async (tx) => {
      const client = await tx.client()
      await client.query('insert into item values (1)')
      expect((await tx.query('select id from item')).rows).toEqual([{ id: 1 }])
      expect(await count()).toBe(0)
    })
    expect(await count()).toBe(1)
    expect(await codeOf(trunkline.read(async (tx) => tx.query({ submit: () => undefined } as never)))).toBe(
      'invalid_statement',
    )
  })

  test('requiresNew on the last connection: an error, not a deadlock', async () => {
    await using small = await route(fleet, { routing: { poolSizeMax: 1, acquireTimeoutMs: 300 } })
    const nested = small.trunkline.write(async (tx) => {
      await tx.query('select 1')
      await small.trunkline.write(async (inner) => inner.query('select 1'), { requiresNew: true })
    })
    expect(await codeOf(nested)).toBe('self_deadlock')
    // At once, and not after the longest wait for a connection.
    await using patient = await route(fleet, { routing: { poolSizeMax: 1, acquireTimeoutMs: 20_000 } })
    const begun = performance.now()
    const again = patient.trunkline.write(async (tx) => {
      await tx.query('select 1')
      await patient.trunkline.write(async (inner) => inner.query('select 1'), { requiresNew: true })
    })
    expect(await codeOf(again)).toBe('self_deadlock')
    expect(performance.now() - begun).toBeLessThan(10_000)
    // Held by others: it waits, and then says so.
    const held = Promise.withResolvers<void>()
    const holder = small.trunkline.write(async (tx) => {
      await tx.query('select 1')
      await held.promise
    })
    await eventually(() => small.trunkline.routing.status().nodes[0]?.open === 1)
    expect(await errorOf(small.trunkline.write(async (tx) => tx.query('select 1')))).toMatchObject({
      code: 'pool_exhausted',
      retryable: true,
    })
    held.resolve()
    await holder
    await small.trunkline.write(async (tx) => tx.query('select 1'))
  })

  test('wrong options are refused before anything is sent', async () => {
    expect(await codeOf(trunkline.read(portOf, { isolation: 'chaos' as never }))).toBe('invalid_option')
    expect(await codeOf(trunkline.read(portOf, { after: 'yesterday' }))).toBe('invalid_token')
    expect(await codeOf(trunkline.write(portOf, { after: 'x' } as never))).toBe('invalid_option')
    expect(await codeOf(trunkline.write(portOf, { timeoutMs: -1 }))).toBe('invalid_option')
    expect(routed.decisions).toEqual([])
  })
})

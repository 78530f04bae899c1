import pg from 'pg'
import { expect, test } from 'vitest'
import { RoundRunner, type RoundResult } from '../../src/log/round.ts'
import { Session } from '../../src/log/session.ts'
import { TableSubscription } from '../../src/log/table-subscription.ts'
import { isLockContention } from '../../src/postgres/index.ts'
import { describeEachPostgres, untilBlocked } from '../support/index.ts'
import { useTrunklineDatabase } from './captured.ts'

describeEachPostgres('a quick look without a lock', (server) => {
  const database = useTrunklineDatabase(server)

  /** A follower that took its copy now, and what looks for it. */
  async function follow(
    table: string,
  ): Promise<{ subscription: TableSubscription; runner: RoundRunner; session: Session }> {
    const follower = { selection: { table }, size: 3, beginCopy() {}, stageCopy() {}, stageChanges() {}, commit() {} }
    const subscription = new TableSubscription('trunkline', { ...follower, announce() {}, stale() {} })
    const pool = new pg.Pool({ connectionString: database().url })
    const [identity] = await database().query<{ log_identity: string }>('select trunkline.log_identity()')
    await subscription.copy(pool, identity?.log_identity, false)
    await pool.end()
    const session = new Session(() => ({ connectionString: database().url }), 'look')
    await session.connect()
    const runner = new RoundRunner('trunkline', session)
    await runner.useDirect()
    return { subscription, runner, session }
  }

  /** Looks while somebody truncates: the look has its snapshot and waits for the table when that commits. */
  async function lookBeside(statements: string, on: Awaited<ReturnType<typeof follow>>): Promise<RoundResult> {
    const client = await database().connect()
    for (;;) {
      await client.query(`begin; ${statements}`)
      const look = on.runner.run([on.subscription.statement(true)!])
      look.catch(() => undefined)
      await untilBlocked(database(), on.session.backendPid!)
      await client.query('commit')
      try {
        return await look
      } catch (error) {
        // It waits for 200 ms only, and the machine may be slower.
        if (!isLockContention(error)) throw error
        await database().query("truncate quick; insert into quick select n, 'a' from generate_series(1, 3) as n")
      }
    }
  }

  test('beside a TRUNCATE sees all of it or nothing', async () => {
    await database().query('create table quick (id integer primary key, name text)')
    await database().query("select trunkline.capture('quick', wake => 'off')")
    await database().query("insert into quick select n, 'a' from generate_series(1, 3) as n")
    const on = await follow('quick')
    // From now on it knows the table's file.
    expect((await on.runner.run([on.subscription.statement(true)!])).results).toEqual([[]])
    await database().query("update quick set name = 'b' where id = 1")
    const { results } = await lookBeside("truncate quick; insert into quick values (7, 'c')", on)
    const found = results[0] ?? []
    expect(found.map(([operation]) => operation)).toContain('t')
    expect(found.filter((row) => row[2] === true).map((row) => [row[4], row[5]])).toEqual([[7, 'c']])
    await on.session.close()
  })

  test('reads a row once, however often it is named, unless its key changed', async () => {
    await database().query('create table named (id integer, part text, name text, primary key (id, part))')
    await database().query("select trunkline.capture('named', wake => 'off')")
    await database().query("insert into named select n, 'p', 'a' from generate_series(1, 3) as n")
    const on = await follow('named')
    await database().query("update named set name = 'b' where id = 1")
    await database().query("update named set part = 'q' where id = 2")
    await database().query('delete from named where id = 3')
    await database().query("insert into named values (4, 'p', 'd')")
    const { results } = await on.runner.run([on.subscription.statement(true)!])
    const keys = (results[0] ?? []).map((row) => `${String(row[1])}${String(row[2])} ${String(row.at(-1))}`)
    expect(keys.toSorted()).toEqual(['1p b', '2p null', '2q a', '3p null', '4p d'])
    await on.session.close()
  })
})

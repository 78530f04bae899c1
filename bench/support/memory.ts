/** Prints the bytes that a row of `city` takes in a holder. Arguments: URL, `cache` or `map`; needs --expose-gc. */
import { setTimeout as pause } from 'node:timers/promises'
import pg from 'pg'
import { createTrunkline } from '../../src/index.ts'

interface Held extends AsyncDisposable {
  readonly size: number
}

async function used(): Promise<number> {
  // What sockets and promises let go is seen a turn later.
  for (let round = 0; round < 3; round += 1) {
    await pause(20)
    globalThis.gc?.()
  }
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

async function measure(hold: (where: string) => Promise<Held>): Promise<number> {
  const before = await used()
  await using held = await hold('city')
  return ((await used()) - before) / held.size
}

async function holdInCache(url: string): Promise<number> {
  await using trunkline = createTrunkline({ url })
  await trunkline.start()
  await (await trunkline.cache('city', { where: 'id < 100' })).stop()
  return await measure(async (table) => trunkline.cache(table))
}

async function holdInMap(url: string): Promise<number> {
  const pool = new pg.Pool({ connectionString: url, max: 1 })
  const load = async (condition: string): Promise<Map<number, unknown>> => {
    const { rows } = await pool.query<{ id: number }>(`select * from city where ${condition}`)
    return new Map(rows.map((row) => [row.id, row]))
  }
  await load('id < 100')
  const bytes = await measure(async () => {
    const rows = await load('true')
    return {
      get size() {
        return rows.size
      },
      [Symbol.asyncDispose]: async () => pool.end(),
    }
  })
  return bytes
}

const [url = '', holder] = process.argv.slice(2)
console.log(await (holder === 'cache' ? holdInCache(url) : holdInMap(url)))

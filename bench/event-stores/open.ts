import type { BenchmarkContext } from '../support/benchmark.ts'
import type { Contender } from './contender.ts'
import { emmettOn } from './emmett.ts'
import { messageDbOn } from './message-db.ts'
import { trunklineOn } from './trunkline.ts'

/** All that run on this server, trunkline first, each in a database of its own. */
export async function openContenders(context: BenchmarkContext, stack: AsyncDisposableStack): Promise<Contender[]> {
  const open = async (on: (url: string) => Promise<Contender>): Promise<Contender> =>
    stack.use(await on(await context.createDatabase()))
  const contenders = [await open(trunklineOn), await open(messageDbOn)]
  // It needs xid8, which a server has from 13 on.
  if (context.version !== '12') contenders.push(await open(emmettOn))
  return contenders
}

import { messageOf, silentLogger } from '../../core/index.ts'
/**
 * One instance of an application, in a process of its own: caches the demo's tables, tells the main process what becomes
 * visible and when, and answers its questions. Started by instance-process.ts with DATABASE_URL and
 * TRUNKLINE_SCHEMA set.
 */
import { type Cache, type CacheChange, createTrunkline, type Trunkline } from '../../index.ts'
import { elapsedMs, nowMs } from './clock.ts'
import { fingerprintOf, inOrder } from './fingerprint.ts'
import { type Answers, type CopyFigures, type Message, type Question, type Request } from './messages.ts'
import { StepRecorder } from './step-recorder.ts'
import { type DemoTable, demoTables } from './tables.ts'

interface CachedTable {
  readonly table: DemoTable
  readonly cache: Cache
}

function tell(message: Message): void {
  // The channel is gone when the main process is: then this process is about to end, too.
  if (process.connected) process.send?.(message, () => undefined)
}

async function main(): Promise<void> {
  const trunkline = createTrunkline({
    url: process.env['DATABASE_URL'],
    schema: process.env['TRUNKLINE_SCHEMA'],
    logger: { ...silentLogger, warn: (text) => tell({ tell: 'warning', text }) },
  })
  await trunkline.start()
  const cached: CachedTable[] = []
  const heapBefore = liveHeapBytes()
  const started = nowMs()
  let copy: CopyFigures | undefined
  for (const table of demoTables) {
    const cache = await trunkline.cache(table.name, { indexes: table.indexes })
    cached.push({ table, cache })
    copy ??= {
      table: table.name,
      rows: cache.size,
      copyMs: elapsedMs(started),
      bytesPerRow: Math.round((liveHeapBytes() - heapBefore) / Math.max(1, cache.size)),
    }
  }
  const recorder = new StepRecorder((seen) => tell({ tell: 'seen', ...seen }))
  for (const { cache } of cached) {
    cache.on('changes', (changes: readonly CacheChange[]) => recorder.add(changes))
  }
  process.on('message', (request: Request) => void respond(trunkline, cached, request))
  if (copy !== undefined) tell({ tell: 'ready', copy })
}

/** `gc` is there because instance-process.ts starts this process with --expose-gc. */
function liveHeapBytes(): number {
  globalThis.gc?.()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

async function respond(trunkline: Trunkline, cached: readonly CachedTable[], request: Request): Promise<void> {
  try {
    tell({ tell: 'answer', id: request.id, answer: await answerTo(trunkline, cached, request) })
    if (request.ask === 'stop') process.disconnect()
  } catch (error) {
    tell({ tell: 'failure', id: request.id, text: messageOf(error) })
  }
}

async function answerTo(
  trunkline: Trunkline,
  cached: readonly CachedTable[],
  question: Question,
): Promise<Answers[Question['ask']]> {
  switch (question.ask) {
    case 'status': {
      const codes = cached.find(({ table }) => table.name === 'common_code')?.cache
      const country = codes?.get({ group_cd: 'COUNTRY', code: 'KR' })
      const isLive = cached.every(({ cache }) => cache.status === 'live')
      return { mode: trunkline.mode, isLive, read: country?.['name'] as string | undefined }
    }
    case 'fingerprints': {
      await Promise.all(cached.map(({ cache }) => cache.fresh()))
      return cached.map(({ table, cache }) => fingerprintOf(table, cache))
    }
    case 'rows': {
      const found = cached.find(({ table }) => table.name === question.table)
      return found === undefined ? [] : inOrder(found.table, found.cache)
    }
    case 'stop': {
      await trunkline.stop()
      return undefined
    }
  }
}

// Ctrl-C in a terminal reaches every process of the group; the main process ends this one in its turn.
process.on('SIGINT', () => undefined)
process.on('SIGTERM', () => undefined)
process.on('disconnect', () => process.exit(0))
main().catch((error: unknown) => {
  tell({ tell: 'failure', id: undefined, text: messageOf(error) })
  process.exitCode = 1
  process.disconnect()
})

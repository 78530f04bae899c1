import { mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Receiver } from './receiver.ts'

/** One file that all processes write to. */
export async function openFile(): Promise<Receiver> {
  const directory = await mkdtemp(join(tmpdir(), 'trunkline-campaign-'))
  const path = join(directory, 'events.ndjson')
  return {
    sinkUrl: `file:${path}`,
    // A line has some 250 bytes.
    count: async () => Math.floor((await stat(path)).size / 250),
    bodies: async () => (await readFile(path, 'utf8')).split('\n').filter((line) => line !== ''),
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true }),
  }
}

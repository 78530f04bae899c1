import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFile, mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, onTestFinished, test } from 'vitest'
import { sinkFromUrl } from '../../src/sinks/index.ts'
import type { SinkReceiver } from '../../src/testing/index.ts'
import { deliveriesOf, deliveryOf } from '../../src/testing/sink-contract/deliveries.ts'
import { eventually } from '../support/index.ts'
import { runSinkContract } from './run-contract.ts'
import { scratchDirectory } from './scratch.ts'

const { signal } = new AbortController()

async function linesOf(path: string): Promise<Buffer[]> {
  const text = await readFile(path).catch(() => Buffer.alloc(0))
  return text
    .toString('utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => Buffer.from(line))
}

async function openFile(): Promise<SinkReceiver> {
  const path = join(await scratchDirectory(), 'events.ndjson')
  return {
    createSink: () => sinkFromUrl(`file:${path}`, { timeoutMs: 10_000 }),
    received: () => linesOf(path),
    close: async () => {},
    refused: (delivery) => ({ ...delivery, body: Buffer.from('{\n}') }),
  }
}

describe('the file sink', () => {
  runSinkContract({ open: openFile, has: { refused: true }, deliverMsMax: 15_000 })

  const torn: readonly (readonly [string, string, string])[] = [
    ['a line cut short', '{"whole":1}\n{"cut":"in the mid', '{"whole":1}\n'],
    ['a line that lacks its line break alone', '{"whole":1}\n{"whole":2}', '{"whole":1}\n{"whole":2}\n'],
    ['zeros that were never written', '{"whole":1}\n\0\0\0\0', '{"whole":1}\n'],
    ['a line that ends in zeros', '{"whole":1}\n{"cut":1\0\0', '{"whole":1}\n'],
    ['a whole line and zeros', '{"whole":1}\0\0', '{"whole":1}\n'],
    ['nothing but a cut line', '{"cut', ''],
    ['a cut line larger than one read', `{"whole":1}\n{"cut":"${'ü'.repeat(100_000)}`, '{"whole":1}\n'],
  ]
  test.each(torn)('repairs on start: %s', async (_what, before, after) => {
    const path = join(await scratchDirectory(), 'events.ndjson')
    await writeFile(path, before)
    const sink = sinkFromUrl(`file:${path}`)
    await sink.start()
    expect(await readFile(path, 'utf8')).toBe(after)
    const delivery = deliveryOf('k', 1)
    expect(await sink.deliver([delivery], signal)).toEqual([undefined])
    await sink.stop()
    expect(await readFile(path, 'utf8')).toBe(`${after}${delivery.body.toString()}\n`)
  })

  test('repairs also what another process leaves while it runs', async () => {
    const path = join(await scratchDirectory(), 'events.ndjson')
    const sink = sinkFromUrl(`file:${path}`)
    await sink.start()
    await appendFile(path, '{"cut')
    const delivery = deliveryOf('k', 1)
    expect(await sink.deliver([delivery], signal)).toEqual([undefined])
    await sink.stop()
    expect(await linesOf(path)).toEqual([delivery.body])
  })

  test('leaves a file of another program alone', async () => {
    const path = join(await scratchDirectory(), 'notes.txt')
    await writeFile(path, 'first line\nno JSON, no end')
    await expect(sinkFromUrl(`file:${path}`).start()).rejects.toMatchObject({ code: 'file_not_ndjson' })
    expect(await readFile(path, 'utf8')).toBe('first line\nno JSON, no end')
  })

  test('begins a new file when the old one was moved away', async () => {
    const path = join(await scratchDirectory(), 'events.ndjson')
    const sink = sinkFromUrl(`file:${path}`)
    await sink.start()
    const [first, second] = deliveriesOf('k', 2)
    await sink.deliver([first!], signal)
    await rename(path, `${path}.1`)
    await sink.deliver([second!], signal)
    await sink.stop()
    expect(await linesOf(`${path}.1`)).toEqual([first!.body])
    expect(await linesOf(path)).toEqual([second!.body])
  })

  test('says what is wrong with the path', async () => {
    const directory = await scratchDirectory()
    const missing = sinkFromUrl(`file:${join(directory, 'no', 'such', 'directory')}`)
    await expect(missing.start()).rejects.toMatchObject({
      code: 'file_not_writable',
      message: /ENOENT.*Make its directory/,
    })
    await expect(sinkFromUrl(`file:${directory}`).start()).rejects.toMatchObject({ code: 'file_not_writable' })
    await expect(sinkFromUrl('file:/dev/null').start()).rejects.toMatchObject({ code: 'file_not_regular' })
  })

  test('takes back what a full disk took half of, and says so', async () => {
    // A file may grow to 64 KiB: the system cuts the write that would go past it, as a full disk does.
    const path = join(await scratchDirectory(), 'events.ndjson')
    const writer = fileURLToPath(new URL('file-writer.ts', import.meta.url))
    const child = spawn(
      '/bin/sh',
      ['-c', 'ulimit -f 64; exec "$0" "$@"', process.execPath, writer, path, 'k', '2000'],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    )
    let output = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text))
    await once(child, 'exit')
    expect(output).toContain('failed file_not_writable')
    const text = await readFile(path, 'utf8')
    expect(text.endsWith('\n')).toBe(true)
    expect(output.match(/^confirmed /gm)?.length).toBe((await linesOf(path)).length)
    expect((await stat(path)).size).toBeLessThanOrEqual(64 * 1024)
  })

  test('several processes write one file, also while they are killed', async () => {
    const directory = await scratchDirectory()
    await mkdir(join(directory, 'out'))
    const path = join(directory, 'out', 'events.ndjson')
    const confirmed = new Set<string>()
    const writers = Array.from({ length: 9 }, (_, index) => startWriter(path, `w${index}`, confirmed))
    await eventually(() => confirmed.size > 200, { timeoutMs: 30_000, what: 'the writers are at work' })
    for (const victim of writers.slice(0, 6)) {
      victim.kill('SIGKILL')
      const seen = confirmed.size
      await eventually(() => confirmed.size > seen + 20, { timeoutMs: 30_000, what: 'the others go on' })
    }
    const ended = writers.map(async (writer) => {
      if (writer.exitCode === null && writer.signalCode === null) await once(writer, 'exit')
    })
    for (const writer of writers) writer.kill('SIGKILL')
    await Promise.all(ended)
    await (await openedAt(path)).stop()
    const ids = (await linesOf(path)).map((line) => (JSON.parse(line.toString()) as { messageId: string }).messageId)
    const written = new Set(ids)
    expect([...confirmed].filter((id) => !written.has(id))).toEqual([])
    expect(written.size).toBe(ids.length)
  })
})

async function openedAt(path: string): Promise<ReturnType<typeof sinkFromUrl>> {
  const sink = sinkFromUrl(`file:${path}`)
  await sink.start()
  return sink
}

/** A process that writes without end and prints what was confirmed. */
function startWriter(path: string, key: string, confirmed: Set<string>): ChildProcess {
  const writer = fileURLToPath(new URL('file-writer.ts', import.meta.url))
  const child = spawn(process.execPath, [writer, path, key, 'endless', '20000'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  let rest = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) if (line.startsWith('confirmed ')) confirmed.add(line.slice('confirmed '.length))
  })
  return child
}

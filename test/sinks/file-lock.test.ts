import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { describe, expect, onTestFinished, test } from 'vitest'
import { lock } from '../../src/sinks/file-lock.ts'

const clusterScript = fileURLToPath(new URL('lock-cluster.ts', import.meta.url))
const holder = fileURLToPath(new URL('lock-holder.ts', import.meta.url))

describe.skipIf(process.platform !== 'linux')('the lock of a file', () => {
  test('is held by one at a time, in the same process', async () => {
    const name = randomUUID()
    let holders = 0
    let most = 0
    const turns = Array.from({ length: 10 }, async () => {
      await using _lock = await lock(name, new AbortController().signal)
      holders += 1
      most = Math.max(most, holders)
      await new Promise(setImmediate)
      holders -= 1
    })
    await Promise.all(turns)
    expect(most).toBe(1)
  })

  test('keeps other processes out, and is free when its holder was killed', async () => {
    const name = randomUUID()
    const child = spawn(process.execPath, [holder, name], { stdio: ['ignore', 'pipe', 'inherit'] })
    onTestFinished(() => void child.kill('SIGKILL'))
    await once(child.stdout, 'data')
    await expect(lock(name, AbortSignal.timeout(300))).rejects.toThrow('timeout')
    const ended = once(child, 'exit')
    child.kill('SIGKILL')
    await ended
    await using _lock = await lock(name, AbortSignal.timeout(5_000))
  })

  test('keeps out other workers of a cluster, which share listeners by default', async () => {
    const child = spawn(process.execPath, [clusterScript, randomUUID()], { stdio: ['ignore', 'pipe', 'inherit'] })
    onTestFinished(() => void child.kill('SIGKILL'))
    let said = ''
    for await (const chunk of child.stdout) said += String(chunk)
    expect(said).toBe('kept out')
  }, 60_000)
})

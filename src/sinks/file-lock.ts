import { hash } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { pause } from '../core/index.ts'

/** Longest pause between two attempts, in milliseconds; a holder keeps the lock for one write and one fsync. */
const pauseMaxMs = 8

/**
 * Waits until no other holder has the lock of this name, in this or another process, and takes it. Whoever dies releases it:
 * it is an abstract socket address, which Linux frees with the process. It reaches as far as a network namespace does (one
 * machine, or one container). On other systems there is no such thing, and the lock excludes nobody.
 *
 * @param signal ends the wait; its reason is thrown.
 */
export async function lock(name: string, signal: AbortSignal): Promise<AsyncDisposable> {
  if (process.platform !== 'linux') return { [Symbol.asyncDispose]: async () => {} }
  const path = `\0trunkline-${hash('sha256', name)}`
  for (let attempt = 0; ; attempt += 1) {
    signal.throwIfAborted()
    const release = await tryLock(path)
    if (release !== undefined) return { [Symbol.asyncDispose]: release }
    await pause(Math.random() * Math.min(pauseMaxMs, 1 + attempt))
  }
}

async function tryLock(path: string): Promise<(() => Promise<void>) | undefined> {
  const server = createServer((socket) => socket.destroy())
  try {
    // exclusive: otherwise the workers of a cluster share one listener in their primary, and all have the lock.
    server.listen({ path, exclusive: true })
    await once(server, 'listening')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') return undefined
    throw error
  }
  return () =>
    new Promise((resolve) => {
      server.close(() => resolve())
    })
}

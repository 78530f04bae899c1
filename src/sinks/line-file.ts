import { type FileHandle, open, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { DeliveryError } from '../relay/index.ts'
import { lock } from './file-lock.ts'

const newline = 0x0a
/** Bytes read at a time in search of the last whole line. */
const chunkBytes = 64 * 1024
/** Where a JSON text, or what a crash of the machine left of one, may begin: an object, list or text, or zeros never written. */
const tornLine = /^[{["\0]/

/** What `append` found at the end of the file. */
export interface Repair {
  /** Bytes of an unfinished last line that were taken away. */
  readonly removedBytes: number
}

/**
 * Appends whole lines to a file and waits until they are on the disk. Several processes may do so: one at a time holds the
 * file's lock, and finds what another that died in the middle of a line has left. The file may be moved away at any time;
 * the next append begins a new one.
 */
export async function appendLines(path: string, lines: readonly Buffer[], signal: AbortSignal): Promise<Repair> {
  for (;;) {
    await using handle = await open(path, 'a+')
    const status = await handle.stat({ bigint: true })
    if (!status.isFile()) throw notRegular(path)
    await using _lock = await lock(`${status.dev}/${status.ino}`, signal)
    // It may have been moved away while we waited.
    const present = await stat(path, { bigint: true }).catch(() => undefined)
    if (present?.ino !== status.ino || present.dev !== status.dev) continue
    const { end, repair } = await repairEnd(path, handle)
    if (lines.length > 0) await write(handle, Buffer.concat(lines), end)
    if (lines.length > 0 || repair.removedBytes > 0) await handle.datasync()
    if (end === 0) await syncDirectory(path)
    return repair
  }
}

/** All or nothing: what a full disk took of it is taken away again. */
async function write(handle: FileHandle, bytes: Buffer, end: number): Promise<void> {
  try {
    await handle.appendFile(bytes)
  } catch (error) {
    await handle.truncate(end)
    throw error
  }
}

/** A new file is durable when its directory knows it. */
async function syncDirectory(path: string): Promise<void> {
  if (process.platform === 'win32') return
  await using directory = await open(dirname(path), 'r')
  await directory.sync()
}

/** Makes the file end with a whole line, and says where that is. */
async function repairEnd(path: string, handle: FileHandle): Promise<{ end: number; repair: Repair }> {
  const { size } = await handle.stat()
  if (size === 0 || (await byteAt(handle, size - 1)) === newline) return { end: size, repair: { removedBytes: 0 } }
  const lastLine = await readLastLine(handle, size)
  const text = lastLine.toString('utf8').replace(/\0+$/, '')
  if (isJson(text)) {
    // Only its line break is missing; what comes after the text are zeros.
    const end = size - (lastLine.length - Buffer.byteLength(text))
    await handle.truncate(end)
    await handle.appendFile('\n')
    return { end: end + 1, repair: { removedBytes: size - end } }
  }
  if (text !== '' && !tornLine.test(text)) throw notOurs(path)
  await handle.truncate(size - lastLine.length)
  return { end: size - lastLine.length, repair: { removedBytes: lastLine.length } }
}

async function byteAt(handle: FileHandle, position: number): Promise<number | undefined> {
  const { buffer } = await handle.read(Buffer.alloc(1), 0, 1, position)
  return buffer[0]
}

async function readLastLine(handle: FileHandle, size: number): Promise<Buffer> {
  const parts: Buffer[] = []
  for (let end = size; end > 0;) {
    const length = Math.min(chunkBytes, end)
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, end - length)
    const chunk = buffer.subarray(0, bytesRead)
    const found = chunk.lastIndexOf(newline)
    parts.unshift(chunk.subarray(found + 1))
    if (found !== -1) break
    end -= length
  }
  return Buffer.concat(parts)
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

function notRegular(path: string): DeliveryError {
  return new DeliveryError(`${path} is no regular file.`, {
    code: 'file_not_regular',
    retryable: true,
    hint: 'Name a file that can be written and synced to disk; for standard output there is the sink stdout:.',
  })
}

function notOurs(path: string): DeliveryError {
  return new DeliveryError(`${path} ends in the middle of a line that is no JSON.`, {
    code: 'file_not_ndjson',
    retryable: true,
    hint: 'It looks like a file of another program. Name another one, or end its last line.',
  })
}

/** A body that is not one line, and never will be. */
export function notOneLine(sinkName: string): DeliveryError {
  return new DeliveryError(`${sinkName} the body has a line break, and one delivery is one line.`, {
    code: 'body_not_one_line',
    retryable: false,
    hint: 'Use a format that writes JSON on one line.',
  })
}

import { randomFillSync } from 'node:crypto'

const random = Buffer.alloc(4_096)
let used = random.length
let lastMs = 0
let counter = 0

/** A uuid of version 7 that is greater than the one before it: ids made one after the other lie together in an index. */
export function newEventId(): string {
  if (used + 8 > random.length) {
    randomFillSync(random)
    used = 0
  }
  const now = Date.now()
  if (now > lastMs) {
    lastMs = now
    // Half of the room of 12 bits is left for those of the same millisecond.
    counter = random.readUInt16BE(used) & 0x7ff
  } else if (++counter > 0xfff) {
    // More than the room holds: the clock runs ahead by a millisecond.
    lastMs += 1
    counter = 0
  }
  const time = lastMs.toString(16).padStart(12, '0')
  const middle = counter.toString(16).padStart(3, '0')
  const variant = (0x8000 | (random.readUInt16BE(used) & 0x3fff)).toString(16)
  const tail = random.toString('hex', used + 2, used + 8)
  used += 8
  return `${time.slice(0, 8)}-${time.slice(8)}-7${middle}-${variant}-${tail}`
}

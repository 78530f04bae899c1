/** The partition that a stream belongs to: FNV-1a of its name, the same in every process and release. */
export function partitionOf(stream: string, partitions: number): number {
  if (partitions === 1) return 0
  let hash = 0x81_1c_9d_c5
  for (const byte of Buffer.from(stream)) hash = Math.imul(hash ^ byte, 0x01_00_01_93)
  // Its low bits alone are poor: fold the high ones in.
  return ((hash ^ (hash >>> 15)) >>> 0) % partitions
}

/** WAL pages are of this size, unless PostgreSQL was built otherwise; then tokens are at most one page header too high. */
const pageBytes = 8_192n
/** Header of the first page of a segment, and of every other page. */
const longHeaderBytes = 40n
const shortHeaderBytes = 24n

const pattern = /^([0-9A-F]{1,8})\/([0-9A-F]{1,8})$/i

/** Reads `16/B374D848`; undefined for anything else. */
export function parseLsn(text: string): bigint | undefined {
  const match = pattern.exec(text)
  return match === null ? undefined : (BigInt(`0x${match[1] ?? ''}`) << 32n) | BigInt(`0x${match[2] ?? ''}`)
}

/** The text PostgreSQL prints and reads. */
export function formatLsn(lsn: bigint): string {
  return `${(lsn >> 32n).toString(16).toUpperCase()}/${(lsn & 0xffff_ffffn).toString(16).toUpperCase()}`
}

/**
 * The end of the last record before an insert position. At the start of a page PostgreSQL names the byte after the page's
 * header, which no replay position reaches before the next record is written: a standby that has all would seem to lack it.
 */
export function endOfLastRecord(insertLsn: bigint, segmentBytes: bigint): bigint {
  const inPage = insertLsn % pageBytes
  if (inPage === shortHeaderBytes) return insertLsn - shortHeaderBytes
  return insertLsn % segmentBytes === longHeaderBytes ? insertLsn - longHeaderBytes : insertLsn
}

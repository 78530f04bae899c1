/** Longest value that an error shows, in characters. */
const shownMax = 120

/** A wrong value as an error shows it, whatever it is: JSON.stringify alone throws at a bigint, and makes null of NaN. */
export function shown(value: unknown): string {
  if (typeof value === 'bigint') return `${value}n`
  if (typeof value === 'number') return String(value)
  let text: string | undefined
  try {
    text = JSON.stringify(value, (_, part: unknown) => (typeof part === 'bigint' ? `${part}n` : part)) as
      | string
      | undefined
  } catch {
    // A cycle, or a toJSON that throws.
  }
  if (text === undefined) return value === undefined ? 'undefined' : `of type ${typeof value}`
  return text.length > shownMax ? `${text.slice(0, shownMax)}…` : text
}

import type { Change } from '../log/index.ts'

/** A change on one line, for people. */
export function changeText(change: Change): string {
  const parts = [change.createdAt, (change.operation ?? 'event').padEnd(8), printable(change.topic)]
  if (change.key !== null) parts.push(printable(change.key))
  if (change.type !== null) parts.push(printable(change.type))
  const details = change.operation === null ? JSON.stringify(change.payload) : imagesText(change)
  if (details !== '') parts.push(details)
  return parts.join(' ')
}

function imagesText({ old, new: row }: Change): string {
  if (old === null || row === null) return row === null && old === null ? '' : JSON.stringify(row ?? old)
  const changed = Object.keys(row).filter((name) => JSON.stringify(old[name]) !== JSON.stringify(row[name]))
  return changed
    .map((name) => `${printable(name)}: ${JSON.stringify(old[name])} -> ${JSON.stringify(row[name])}`)
    .join(', ')
}

/** Bare where that is plain; anything that a terminal might obey is escaped. */
export function printable(text: string): string {
  return /^[^\s\p{C}"]+$/u.test(text) ? text : JSON.stringify(text).replaceAll(/\p{C}/gu, escaped)
}

function escaped(character: string): string {
  return Array.from(
    { length: character.length },
    (_, index) => `\\u${character.charCodeAt(index).toString(16).padStart(4, '0')}`,
  ).join('')
}

import { type Figure, isReached } from './benchmark.ts'

/** One object for `--json`. */
export function figureJson(benchmark: string, version: string, figure: Figure): string {
  return JSON.stringify({ benchmark, postgres: Number(version), ...figure, reached: isReached(figure) })
}

/** The figures of one benchmark as a table. */
export function figureTable(figures: readonly Figure[]): string {
  const head = ['', 'median', 'lowest … highest', 'target', '']
  const rows = figures.map((figure) => [
    figure.name,
    valueText(figure),
    spreadText(figure),
    targetText(figure),
    verdict(figure),
  ])
  const widths = head.map((_, place) => Math.max(...[head, ...rows].map((row) => row[place]?.length ?? 0)))
  const line = (row: readonly string[]): string =>
    row
      .map((cell, place) =>
        place === 1 || place === 2 ? cell.padStart(widths[place] ?? 0) : cell.padEnd(widths[place] ?? 0),
      )
      .join('  ')
      .trimEnd()
  return [head, ...rows].map(line).join('\n')
}

function valueText({ value, unit }: Figure): string {
  const units = { ratio: 'x', 'per second': '/s', ms: ' ms', s: ' s', us: ' us', bytes: ' B', count: '' } as const
  return `${number(value)}${units[unit]}`
}

function spreadText({ spread }: Figure): string {
  return spread === undefined ? '' : `${number(spread[0])} … ${number(spread[1])}`
}

function targetText({ target }: Figure): string {
  if (target === undefined) return ''
  return 'atLeast' in target ? `at least ${target.atLeast}` : `at most ${target.atMost}`
}

function verdict(figure: Figure): string {
  const reached = isReached(figure)
  return reached === undefined ? '' : reached ? 'ok' : 'MISSED'
}

function number(value: number): string {
  return value.toLocaleString('en', {
    maximumFractionDigits: Math.abs(value) >= 1_000 ? 0 : Math.abs(value) >= 100 ? 1 : 2,
  })
}

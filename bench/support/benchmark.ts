import type { EmbeddedPostgres, EmbeddedPostgresVersion } from '../../src/testing/index.ts'

/** What a file of bench/ exports: one question, answered by ratios that are taken in one run. */
export interface Benchmark {
  /** As written on the command line. */
  readonly name: string
  /** One line for `--help`. */
  readonly summary: string
  /** Settings of the server beyond those of support/server.ts. */
  readonly settings?: Readonly<Record<string, string>>
  readonly run: (context: BenchmarkContext) => Promise<readonly Figure[]>
}

export interface BenchmarkContext {
  readonly version: EmbeddedPostgresVersion
  /** A server of this benchmark's own, set up as in production (support/server.ts). */
  readonly server: EmbeddedPostgres
  /** Short rounds and few of them: shows that it works, proves nothing. */
  readonly isQuick: boolean
  /** Makes an empty database and returns its URL. */
  readonly createDatabase: () => Promise<string>
  /** Tells how far it is, on standard error. */
  readonly progress: (line: string) => void
}

/** One line of the result. */
export interface Figure {
  readonly name: string
  readonly value: number
  readonly unit: 'ratio' | 'per second' | 'ms' | 's' | 'us' | 'bytes' | 'count'
  /** Lowest and highest of the rounds whose median `value` is. */
  readonly spread?: readonly [number, number]
  /** What it must reach. */
  readonly target?: Target | undefined
}

export type Target = { readonly atLeast: number } | { readonly atMost: number }

/** Undefined: there is no target to reach. */
export function isReached({ value, target }: Figure): boolean | undefined {
  if (target === undefined) return undefined
  return 'atLeast' in target ? value >= target.atLeast : value <= target.atMost
}

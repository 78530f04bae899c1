import type { Queryable } from '../../postgres/index.ts'

/** One thing that is wrong with a database for trunkline. */
export interface Finding {
  /** `error`: it does not work, or rows can be missed; `warning`: it will hurt; `info`: good to know. */
  readonly severity: 'error' | 'warning' | 'info'
  /** Stable, for programs. */
  readonly code: string
  readonly what: string
  readonly mend: string
}

/** What every check looks at. */
export interface Patient {
  readonly db: Queryable
  readonly schema: string
  /** `server_version_num` */
  readonly version: number
}

export function error(code: string, what: string, mend: string): Finding {
  return { severity: 'error', code, what, mend }
}

export function warning(code: string, what: string, mend: string): Finding {
  return { severity: 'warning', code, what, mend }
}

export function info(code: string, what: string, mend: string): Finding {
  return { severity: 'info', code, what, mend }
}

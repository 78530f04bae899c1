import type pg from 'pg'

/** A value that a type parser threw at, and where it stands. */
export class UnreadableValue extends Error {
  /** Of the column in the result, from 0. */
  readonly place: number

  constructor(place: number, cause: unknown) {
    super('A type parser failed.', { cause })
    this.place = place
  }
}

/** The parsers of a connection for one result; one that fails, being the application's own, says at which column. */
export class ColumnParsers implements pg.CustomTypesConfig {
  readonly #types: pg.CustomTypesConfig
  #place = 0

  constructor(types: pg.CustomTypesConfig) {
    this.#types = types
  }

  /** The driver asks once for each column, in order. */
  getTypeParser(oid: number, format?: 'text' | 'binary'): (value: string) => unknown {
    const place = this.#place
    this.#place += 1
    const parse = this.#types.getTypeParser(oid, format) as (value: string) => unknown
    return (value) => {
      try {
        return parse(value)
      } catch (error) {
        throw new UnreadableValue(place, error)
      }
    }
  }
}

import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { quoteIdentifier } from '../postgres/index.ts'

/** One file of sql/. */
export interface SqlFile {
  /** Its name without the ending: `0001_change_log`, `capture`. */
  readonly name: string
  /** As in the file, with the placeholder for the schema. */
  readonly text: string
  /** SHA-256 of the text. */
  readonly checksum: string
}

/** A migration: applied once, in the order of the numbers. */
export interface Migration extends SqlFile {
  readonly number: number
}

/** All that this version of the package installs. */
export interface Release {
  /** The package's version. */
  readonly version: string
  readonly migrations: readonly Migration[]
  /** In the order of their names; bodies are not checked when they are made, so they may name each other. */
  readonly routines: readonly SqlFile[]
}

/** From src/schema and from dist/schema alike. */
const home = new URL('../../', import.meta.url)
const placeholder = ':"schema"'

let loaded: Release | undefined

/** Reads sql/ and package.json, once. */
export function currentRelease(): Release {
  loaded ??= {
    version: packageVersion(),
    migrations: readDirectory('sql/migrations/').map(toMigration),
    routines: readDirectory('sql/routines/'),
  }
  return loaded
}

/** The package's version. */
export function packageVersion(): string {
  return (JSON.parse(readFileSync(new URL('package.json', home), 'utf8')) as { version: string }).version
}

/** The text of a file for one schema. */
export function forSchema(text: string, schema: string): string {
  return text.replaceAll(placeholder, () => quoteIdentifier(schema))
}

function readDirectory(path: string): SqlFile[] {
  const directory = new URL(path, home)
  return readdirSync(directory)
    .filter((file) => file.endsWith('.sql'))
    .toSorted()
    .map((file) => {
      // A checkout on Windows may have other line ends; the checksum must not.
      const text = readFileSync(new URL(file, directory), 'utf8').replaceAll('\r\n', '\n')
      return { name: file.slice(0, -'.sql'.length), text, checksum: createHash('sha256').update(text).digest('hex') }
    })
}

function toMigration(file: SqlFile): Migration {
  return { ...file, number: Number.parseInt(file.name, 10) }
}

/**
 * Checks every file in sql/ without a database: that psql would replace each `:"schema"`, that PostgreSQL's own parser
 * takes it, function bodies in PL/pgSQL included, and that squawk finds no unsafe statement in a migration.
 */
import { spawnSync } from 'node:child_process'
import { globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { hasSqlDetails, parse, parsePlPgSQL } from 'libpg-query'

const root = dirname(import.meta.dirname)

/** As long as the placeholder, so that every position that a tool reports holds for the file itself. */
const schemaName = 'trunkline'
const placeholder = ':"schema"'

/** The placeholder where psql sees it, comments, and everything quoted: what a scanner must step over as one. */
const tokens =
  /:"schema"|--[^\n]*|\/\*[\s\S]*?\*\/|[eE]'(?:[^'\\]|''|\\.)*'|'(?:[^']|'')*'|(\$(?:[\p{L}_][\p{L}\d_]*)?\$)[\s\S]*?\1|"(?:[^"]|"")*"/gu

const problems: string[] = []

function report(file: string, text: string, index: number, message: string): void {
  const before = text.slice(0, index).split('\n')
  problems.push(`${file}:${before.length}:${(before.at(-1)?.length ?? 0) + 1}: ${message}`)
}

function checkPlaceholders(file: string, text: string): void {
  for (const { 0: token, index } of text.matchAll(tokens)) {
    const isQuoted = !token.startsWith('--') && !token.startsWith('/*') && token !== placeholder
    const inside = token.indexOf(placeholder)
    if (isQuoted && inside >= 0) {
      const mend = 'psql replaces nothing inside quotes: let the function `set search_path`, or use format() with %I'
      report(file, text, index + inside, mend)
    }
  }
}

async function checkSyntax(file: string, text: string): Promise<void> {
  try {
    await parse(text)
  } catch (error) {
    const position = hasSqlDetails(error) ? (error.sqlDetails?.cursorPosition ?? 0) : 0
    report(file, text, position, String(error))
    return
  }
  try {
    await parsePlPgSQL(text)
  } catch (error) {
    if (!isFieldOfRow(String(error), text)) report(file, text, 0, `in a PL/pgSQL body: ${String(error)}`)
  }
}

/** Without a catalog the parser takes a variable of a table's row type for a scalar, and misses its fields. */
function isFieldOfRow(message: string, text: string): boolean {
  const variable = /"(\w+)[.]\w+" is not a known variable/.exec(message)?.[1]
  return variable !== undefined && new RegExp(`^ *${variable} \\w+%rowtype`, 'm').test(text)
}

function checkMigrations(texts: ReadonlyMap<string, string>): void {
  const migrations = [...texts].filter(([file]) => file.startsWith('sql/migrations/'))
  if (migrations.length === 0) return
  const directory = mkdtempSync(join(tmpdir(), 'trunkline-sql-'))
  try {
    for (const [file, text] of migrations) {
      mkdirSync(dirname(join(directory, file)), { recursive: true })
      writeFileSync(join(directory, file), text)
    }
    const { error, status, stdout, stderr } = spawnSync(
      'squawk',
      ['--config', join(root, '.squawk.toml'), ...migrations.map(([file]) => file)],
      { cwd: directory, encoding: 'utf8' },
    )
    if (error !== undefined) throw error
    if (status !== 0) problems.push(`${stdout}${stderr}`.trim())
  } finally {
    rmSync(directory, { recursive: true })
  }
}

const files = globSync('sql/**/*.sql', { cwd: root }).map((file) => relative('.', file))
const texts = new Map<string, string>()
for (const file of files.toSorted()) {
  const text = readFileSync(join(root, file), 'utf8')
  const replaced = text.replaceAll(placeholder, schemaName)
  texts.set(file, replaced)
  checkPlaceholders(file, text)
  await checkSyntax(file, replaced)
}
checkMigrations(texts)

if (problems.length > 0) {
  console.error(problems.join('\n'))
  process.exitCode = 1
} else {
  console.log(`${files.length} SQL files: parsed by PostgreSQL 18's parser, migrations passed squawk`)
}

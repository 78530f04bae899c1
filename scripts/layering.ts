import { readdirSync } from 'node:fs'
import { builtinModules } from 'node:module'
import { type Room, rooms, top } from './rooms.ts'

/** One pattern of oxlint's no-restricted-imports. Its `regex` is a Rust one: with a lookahead it silently never matches. */
type Pattern = { message: string } & ({ regex: string } | { group: string[] })

interface Override {
  files: string[]
  rules: Record<'eslint/no-restricted-imports', ['error', { patterns: Pattern[] }]>
}

const root = new URL('../', import.meta.url)
const roomNames = Object.keys(rooms)

/** One override of the linter for each room and one for the top of src/, made from the table in rooms.ts. */
export function layeringRules(): Override[] {
  const entries = readdirSync(new URL('src/', root), { withFileTypes: true })
  for (const entry of entries) {
    if (entry.isDirectory() && !roomNames.includes(entry.name)) {
      throw new Error(`src/${entry.name}/ has no row in scripts/rooms.ts: say there what it may import, and why`)
    }
  }
  const topFiles = entries.filter((entry) => entry.isFile()).map((entry) => entry.name)
  return [
    restrict('src/*.ts', layering('top', top, '^[.]/', [])),
    ...Object.entries(rooms).map(([name, room]) =>
      restrict(`src/${name}/**/*.ts`, layering(name, room, '^(?:[.]{2}/)+', topFiles)),
    ),
  ]
}

function restrict(files: string, patterns: Pattern[]): Override {
  return { files: [files], rules: { 'eslint/no-restricted-imports': ['error', { patterns }] } }
}

/** The patterns of one room; `up` leads from its files to src/. */
function layering(name: string, room: Room, up: string, topFiles: readonly string[]): Pattern[] {
  const others = roomNames.filter((other) => other !== name)
  const open = others.filter((other) => room.mayImport.includes(other))
  const closed = others.filter((other) => !room.mayImport.includes(other))
  const closedTop = room.mayImport.includes('top') ? [] : topFiles
  const may = room.mayImport.length === 0 ? 'no other room' : `only ${room.mayImport.join(', ')}`
  const patterns: Pattern[] = [
    {
      regex: `${up}${anyOf(closed)}(?:/|$)`,
      message: `${name} may import ${may}: ${room.reason}.`,
    },
    {
      regex: `${up}${anyOf(closedTop)}$`,
      message: `${name} may import ${may}, and nothing from the top of src/: ${room.reason}.`,
    },
    {
      group: open.flatMap((other) => [`**/${other}/**`, `!**/${other}/index.ts`]),
      message: `a room is entered through its index.ts: export there what ${name} needs, or do without.`,
    },
  ]
  return [...patterns, ...(name === 'core' ? coreRules() : []), ...houseRules]
}

function coreRules(): Pattern[] {
  const pure = /^(?:async_hooks|crypto|diagnostics_channel|events|perf_hooks|timers|url|util)(?:\/|$)/
  const message = 'core does no I/O and has no dependency: take whatever does I/O as a parameter.'
  const impure = builtinModules.filter((name) => !pure.test(name)).map((name) => name.replace(/^node:/, ''))
  return [
    { regex: `^node:${anyOf(impure)}$`, message },
    { regex: '^[@a-z0-9][^:]*$', message },
  ]
}

/** What holds in all of src/. */
const houseRules: Pattern[] = [
  {
    regex: '^[.]/index[.]ts$',
    message: 'index.ts is the front door, for those outside: import the file itself.',
  },
  {
    regex: '(?:^|/)(?:src|dist|test|bench|scripts|examples)/',
    message: 'src/ imports its own files by their shortest relative path, and nothing outside of src/.',
  },
]

/** An alternative of literal names; of none, an expression that never matches. */
function anyOf(names: readonly string[]): string {
  return names.length === 0 ? '[^\\s\\S]' : `(?:${names.map((name) => name.replaceAll('.', '[.]')).join('|')})`
}

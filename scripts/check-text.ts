/**
 * Checks that no file of the repository names a package registry's host or a path of the machine it was written on: a
 * clone must install from wherever its user installs, and work wherever it lies.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

const root = dirname(import.meta.dirname)

// The brackets keep this file from naming them itself.
const registries =
  /registry[.][\w.-]+[.](?:org|com|io|net|dev|cn)\b|registry[.]npm|npm[.]pkg[.]github|npmmirror[.]com|"resolved": "https?:|[\w.-]*(?:artifactory|verdaccio|nexus)[\w.-]*(?::\d+)?\//

/** Directories that exist only here: the checkout, the one it lies in, and the user's home. */
const directories = [root, dirname(root), homedir()].filter(
  (directory) => !['/', tmpdir(), dirname(tmpdir())].includes(directory),
)
const paths = new RegExp(
  [...directories.map((directory) => RegExp.escape(directory)), '/(?:home|Users)/[a-z][a-z0-9_-]*']
    .map((directory) => String.raw`(?<![\w.~-])${directory}/`)
    .join('|'),
)

/** What .gitignore names: git itself may be absent where this runs. */
const ignored = /^(?:node_modules|dist|coverage|[.]git|[.]tmp|.*[.]log)$/

function* filesIn(directory: string): Generator<string> {
  for (const entry of readdirSync(join(root, directory), { withFileTypes: true })) {
    const path = join(directory, entry.name)
    if (ignored.test(entry.name)) continue
    if (entry.isDirectory()) yield* filesIn(path)
    else if (entry.isFile()) yield path
  }
}

const files = [...filesIn('')]
let problems = 0
for (const file of files) {
  const text = readFileSync(join(root, file), 'utf8')
  const lines = text.includes('\0') ? [] : text.split('\n')
  for (const [index, line] of lines.entries()) {
    const found = registries.exec(line) ?? paths.exec(line)
    if (found !== null) {
      problems += 1
      console.error(`${file}:${index + 1}: names ${found[0].trim()}, which is not the same on another machine`)
    }
  }
}

if (problems > 0) process.exitCode = 1
else console.log(`${files.length} files: none names a registry host or a path of this machine`)

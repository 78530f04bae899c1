/**
 * Builds and packs the package as npm would publish it, then looks at the tarball as its user would: exports and types
 * (publint, Are The Types Wrong), every SQL file inside, and each entry point and the command loaded from a directory
 * that has the dependencies and none of the optional peers.
 */
import { execFileSync } from 'node:child_process'
import { globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

interface Manifest {
  bin: Record<string, string>
  exports: Record<string, unknown>
  dependencies: Record<string, string>
  peerDependencies: Record<string, string>
  devDependencies: Record<string, string>
}

const root = dirname(import.meta.dirname)
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as Manifest

function run(command: string, args: readonly string[], cwd = root): string {
  return execFileSync(command, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
}

/** Packs into `directory`; returns the tarball's path. */
function pack(directory: string): string {
  run('npm', ['run', '--silent', 'build'])
  const report = run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', directory])
  const [packed] = JSON.parse(report) as { filename: string; files: { path: string }[] }[]
  if (packed === undefined) throw new Error('npm pack reported no tarball')
  const paths = new Set(packed.files.map((file) => file.path))
  const missing = globSync('sql/**/*.sql', { cwd: root }).filter((file) => !paths.has(file))
  if (missing.length > 0) throw new Error(`not in the tarball: ${missing.join(', ')}`)
  return join(directory, packed.filename)
}

/** Declarations that name a package make its types a dependency of whoever compiles against ours. */
function checkDeclarations(): void {
  for (const file of globSync('dist/**/*.d.ts', { cwd: root })) {
    const text = readFileSync(join(root, file), 'utf8')
    for (const [, specifier = ''] of text.matchAll(/(?:from |import\()'([^.'][^']*)'/g)) {
      const name = specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/')
      const isInstalled = name in manifest.dependencies || name in manifest.peerDependencies
      if (name.startsWith('node:')) continue
      if (!isInstalled || `@types/${name}` in manifest.devDependencies) {
        throw new Error(`${file} names types of ${name}: they must be in dependencies, or stay out of the public types`)
      }
    }
  }
}

/** Unpacks beside links to the dependencies, and to nothing else. */
function install(tarball: string, directory: string): void {
  const modules = join(directory, 'node_modules')
  mkdirSync(join(modules, 'trunkline'), { recursive: true })
  run('tar', ['-xzf', tarball, '-C', join(modules, 'trunkline'), '--strip-components=1'])
  for (const name of Object.keys(manifest.dependencies)) {
    mkdirSync(dirname(join(modules, name)), { recursive: true })
    symlinkSync(join(root, 'node_modules', name), join(modules, name))
  }
}

const directory = mkdtempSync(join(tmpdir(), 'trunkline-package-'))
try {
  const tarball = pack(directory)
  checkDeclarations()
  console.log(run('publint', ['run', '--strict', tarball]).trim())
  console.log(run('attw', ['--profile', 'esm-only', '--format', 'ascii', '--no-summary', tarball]).trim())
  install(tarball, directory)
  for (const subpath of Object.keys(manifest.exports).filter((name) => !name.endsWith('.json'))) {
    const specifier = subpath.replace(/^[.]/, 'trunkline')
    run('node', ['--input-type=module', '--eval', `await import('${specifier}')`], directory)
    console.log(`import '${specifier}': loads without the optional peers`)
  }
  for (const [name, path] of Object.entries(manifest.bin)) {
    run('node', [join('node_modules', 'trunkline', path), '--help'], directory)
    console.log(`${name} --help: runs without the optional peers`)
  }
} finally {
  rmSync(directory, { recursive: true, force: true })
}

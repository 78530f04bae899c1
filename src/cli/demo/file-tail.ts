import { closeSync, existsSync, type FSWatcher, openSync, readSync, watch } from 'node:fs'
import { dirname } from 'node:path'

/** Tells each line of a file as it is written, from the first. */
export class FileTail implements Disposable {
  readonly #path: string
  readonly #onLine: (line: string) => void
  readonly #watcher: FSWatcher
  readonly #chunk = Buffer.alloc(65_536)
  #file: number | undefined
  #rest = ''

  /** @param path the file may not be there yet; its directory must. */
  constructor(path: string, onLine: (line: string) => void) {
    this.#path = path
    this.#onLine = onLine
    this.#watcher = watch(dirname(path), () => this.read())
  }

  /** Tells what is there now. Lines end with a line break; one that has none yet waits for it. */
  read(): void {
    if (this.#file === undefined && !existsSync(this.#path)) return
    this.#file ??= openSync(this.#path, 'r')
    for (;;) {
      const bytes = readSync(this.#file, this.#chunk)
      if (bytes === 0) return
      // The demo's lines are ASCII: a chunk splits no character.
      const lines = `${this.#rest}${this.#chunk.toString('latin1', 0, bytes)}`.split('\n')
      this.#rest = lines.pop() ?? ''
      for (const line of lines) this.#onLine(line)
    }
  }

  [Symbol.dispose](): void {
    this.#watcher.close()
    if (this.#file !== undefined) closeSync(this.#file)
  }
}

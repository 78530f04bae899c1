/**
 * A wait that can be cut short: by `wake()`, or by its time. A wake-up that comes while nobody waits is kept for the next
 * wait, so none is lost between a look and the sleep after it.
 */
export class Pause {
  readonly #isBackground: boolean
  #pending = false
  #finish: ((woken: boolean) => void) | undefined

  /** `isBackground`: a wait alone does not keep the process alive. */
  constructor({ isBackground = false }: { readonly isBackground?: boolean } = {}) {
    this.#isBackground = isBackground
  }

  /** Ends the wait under way, or the next one at once. */
  wake(): void {
    this.#pending = true
    this.#finish?.(true)
  }

  /** Forgets a wake-up that nobody has waited for. */
  clear(): void {
    this.#pending = false
  }

  get isPending(): boolean {
    return this.#pending
  }

  /** Waits for at most `ms` milliseconds. True: woken; false: the time was over. */
  async wait(ms: number): Promise<boolean> {
    if (this.#pending) {
      this.#pending = false
      return true
    }
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#finish?.(false), ms)
      if (this.#isBackground) timer.unref()
      this.#finish = (woken) => {
        clearTimeout(timer)
        this.#finish = undefined
        this.#pending = false
        resolve(woken)
      }
    })
  }
}

/** Waits `ms` milliseconds. */
export async function pause(ms: number): Promise<void> {
  await new Promise((resolve) => {
    setTimeout(resolve, ms)
  })
}

/** Resolves with the promise, or rejects with what `onTimeout` makes after `ms` milliseconds. */
export async function withTimeout<Value>(promise: Promise<Value>, ms: number, onTimeout: () => Error): Promise<Value> {
  let timer: NodeJS.Timeout | undefined
  try {
    return await Promise.race([
      promise,
      new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(onTimeout()), ms)
      }),
    ])
  } finally {
    clearTimeout(timer)
  }
}

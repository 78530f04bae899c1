import { messageOf } from '../core/index.ts'

/** The secrets of a sink's URL, to be kept out of every message. */
export class Secrets {
  readonly #texts: readonly string[]

  constructor(url: URL, others: readonly string[] = []) {
    const found = [url.password, ...url.searchParams.values(), ...others]
    const texts = found.flatMap((text) => [text, decoded(text), encodeURIComponent(text)])
    // Longest first, so that no part of one stays behind. One of three letters would blot out half of a message.
    this.#texts = [...new Set(texts)].filter((text) => text.length > 3).toSorted((a, b) => b.length - a.length)
  }

  /** Characters of the longest. */
  get lengthMax(): number {
    return this.#texts[0]?.length ?? 0
  }

  hide(text: string): string {
    return this.#texts.reduce((hidden, secret) => hidden.replaceAll(secret, '***'), text)
  }

  /** The message of anything thrown, without secrets. */
  messageOf(error: unknown): string {
    return this.hide(messageOf(error))
  }

  /**
   * What was thrown, for `cause`: its message and code alone, without secrets. Errors of clients carry their options and
   * connections along.
   */
  causeOf(error: unknown): Error {
    const message = messageOf(error)
    const code = (error as { code?: unknown } | null)?.code
    return Object.assign(new Error(this.hide(message)), typeof code === 'string' ? { code: this.hide(code) } : {})
  }
}

/** As it stands where it cannot be decoded. */
export function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

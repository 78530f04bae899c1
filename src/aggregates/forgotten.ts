/** What stands where personal data was, once its subject is forgotten. It survives JSON. */
export interface Forgotten {
  readonly $forgotten: true
}

/** A value that may have been forgotten: the type of a personal field. */
export type Personal<Value> = Value | Forgotten

/** The placeholder of forgotten data. Ask with `isForgotten`: a copy that came through JSON is another object. */
export const forgotten: Forgotten = Object.freeze({ $forgotten: true })

/** True for the placeholder, and for any copy of it. */
export function isForgotten(value: unknown): value is Forgotten {
  return typeof value === 'object' && value !== null && '$forgotten' in value && value.$forgotten === true
}

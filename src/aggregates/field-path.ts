import { isForgotten } from './forgotten.ts'

/** Names of fields down to four levels, as `address.street`; a list counts as one field. */
export type FieldPath<Value, Depth extends readonly unknown[] = [1, 1, 1]> = Value extends readonly unknown[] | Date
  ? never
  : Value extends object
    ? {
        [Name in keyof Value & string]:
          | Name
          | (Depth extends readonly [unknown, ...infer Rest]
              ? `${Name}.${FieldPath<NonNullable<Value[Name]>, Rest>}`
              : never)
      }[keyof Value & string]
    : never

type Fields = Record<string, unknown>

/** Takes a field out. Gives what it was (undefined: it was not there) and the object without it; the original stays. */
export function takeField(object: object, path: readonly string[]): { value: unknown; rest: object } {
  const [name = '', ...below] = path
  const fields = object as Fields
  if (!Object.hasOwn(fields, name)) return { value: undefined, rest: object }
  if (below.length === 0) {
    const { [name]: value, ...rest } = fields
    return { value, rest }
  }
  const inner = fields[name]
  if (!isFields(inner)) return { value: undefined, rest: object }
  const taken = takeField(inner, below)
  return { value: taken.value, rest: { ...fields, [name]: taken.rest } }
}

/** The object with a field set; objects on the way are made. Within what is forgotten nothing is set. The original stays. */
export function withField(object: object, path: readonly string[], value: unknown): object {
  const [name = '', ...below] = path
  const fields = object as Fields
  const inner = Object.hasOwn(fields, name) && isFields(fields[name]) ? fields[name] : {}
  if (below.length > 0 && isForgotten(inner)) return object
  // A computed name in a literal is a plain field, also when it is `__proto__`.
  return { ...fields, [name]: below.length === 0 ? value : withField(inner, below, value) }
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** A deep copy, or `undefined` in place of a state that has something in it that cannot be copied for sure (a class, a function). */
export function copyOf<State>(state: State): { readonly state: State } | undefined {
  try {
    return { state: copy(state, new Map()) as State }
  } catch (error) {
    if (error === uncopied) return undefined
    throw error
  }
}

const uncopied = new Error('not copied')

function copy(value: unknown, copies: Map<object, unknown>): unknown {
  if (typeof value === 'function') throw uncopied
  if (typeof value !== 'object' || value === null) return value
  const known = copies.get(value)
  if (known !== undefined) return known
  if (Array.isArray(value)) return fill(value, [] as unknown[], copies)
  const prototype: unknown = Object.getPrototypeOf(value)
  if (isPlain(value)) return fillObject(value, prototype === null ? (Object.create(null) as object) : {}, copies)
  if (prototype === Date.prototype) return new Date((value as Date).getTime())
  if (prototype === Map.prototype) {
    const result = new Map()
    copies.set(value, result)
    for (const [key, part] of value as Map<unknown, unknown>) result.set(copy(key, copies), copy(part, copies))
    return result
  }
  if (prototype === Set.prototype) {
    const result = new Set()
    copies.set(value, result)
    for (const part of value as Set<unknown>) result.add(copy(part, copies))
    return result
  }
  throw uncopied
}

function fill(list: readonly unknown[], result: unknown[], copies: Map<object, unknown>): unknown[] {
  copies.set(list, result)
  for (const part of list) result.push(copy(part, copies))
  return result
}

function fillObject(object: object, result: object, copies: Map<object, unknown>): object {
  copies.set(object, result)
  if (Object.getOwnPropertySymbols(object).length > 0) throw uncopied
  for (const [name, part] of Object.entries(object)) {
    // Assigned, `__proto__` would be no field.
    if (name === '__proto__') throw uncopied
    ;(result as Record<string, unknown>)[name] = copy(part, copies)
  }
  return result
}

/** Where a value is another one after a way through JSON, as a path; undefined: nowhere. A field that is undefined may be gone. */
export function lostInJson(value: unknown, parsed: unknown, path = 'state'): string | undefined {
  if (Object.is(value, parsed)) return undefined
  if (!isObject(value) || !isObject(parsed)) return path
  if (Array.isArray(value)) {
    if (!Array.isArray(parsed) || parsed.length !== value.length) return path
    return firstOf(value.entries(), ([index, part]) => lostInJson(part, parsed[index], `${path}[${index}]`))
  }
  if (!isPlain(value) || Array.isArray(parsed)) return path
  const fields = Object.entries(value).filter(([, part]) => part !== undefined)
  return firstOf(fields, ([name, part]) => lostInJson(part, parsed[name], `${path}.${name}`))
}

function firstOf<Item>(items: Iterable<Item>, find: (item: Item) => string | undefined): string | undefined {
  for (const item of items) {
    const found = find(item)
    if (found !== undefined) return found
  }
  return undefined
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}

function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}

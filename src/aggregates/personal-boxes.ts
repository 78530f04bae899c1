import { EventError } from './event-error.ts'
import { takeField, withField } from './field-path.ts'
import { forgotten, isForgotten } from './forgotten.ts'
import { type SealingKey, seal, sealingKey, unseal } from './sealing.ts'

/** The field of a stored payload that holds what was sealed. No payload may have it of its own. */
export const boxField = '$personal'

/** The personal fields of one subject in one event. */
export interface PersonalFields {
  readonly subject: string
  readonly paths: readonly string[]
}

/** A subject's key with its name: another key of the same subject opens nothing of this one. */
export interface SubjectKey extends SealingKey {
  readonly keyId: string
}

/** A key that only whoever has the keys of all these subjects can make: of what belongs to all of them. */
export function commonKey(keys: ReadonlyMap<string, SubjectKey>): SealingKey {
  const names = [...keys.keys()].toSorted()
  return sealingKey(Buffer.concat(names.map((name) => keys.get(name)?.cipherKey ?? new Uint8Array(0))))
}

interface Box {
  readonly subject: string
  readonly keyId: string
  readonly fields: readonly string[]
  readonly sealed: string
}

/** What a box is bound to. */
export interface BoxPlace {
  readonly type: string
  readonly stream: string
  readonly id: string
  readonly version?: number | undefined
}

/** The payload with its personal fields taken out and sealed, one box a subject. Placeholders stay where they are. */
export function sealPayload(
  event: BoxPlace & { readonly payload: object },
  personal: readonly PersonalFields[],
  keyOf: (subject: string) => SubjectKey,
): object {
  let { payload } = event
  const all = personal.map(({ paths }) => paths.map((path) => ({ path, value: undefined as unknown })))
  // What is within another one first: it may be somebody else's.
  for (const field of all.flat().toSorted((one, other) => depthOf(other.path) - depthOf(one.path))) {
    const { value, rest } = takeField(payload, field.path.split('.'))
    if (value === undefined || isForgotten(value)) continue
    field.value = value
    payload = rest
  }
  const boxes: Box[] = []
  for (const [index, { subject }] of personal.entries()) {
    const taken = all[index]?.filter(({ value }) => value !== undefined) ?? []
    if (taken.length === 0) continue
    const key = keyOf(subject)
    const plain = Buffer.from(JSON.stringify(taken.map(({ value }) => value)))
    const box = { subject, keyId: key.keyId, fields: taken.map(({ path }) => path) }
    boxes.push({ ...box, sealed: seal(key, plain, boundTo(event, box)) })
  }
  return boxes.length === 0 ? payload : { ...payload, [boxField]: boxes }
}

function depthOf(path: string): number {
  return path.split('.').length
}

/** Whether an event has anything sealed in it. */
export function hasBoxes(payload: unknown): payload is object {
  return typeof payload === 'object' && payload !== null && Object.hasOwn(payload, boxField)
}

/** Whose data a payload holds. */
export function subjectsOf(event: BoxPlace & { readonly payload: object }): string[] {
  return boxesOf(event).map(({ subject }) => subject)
}

/**
 * The payload with its personal fields back in their places: as they were where the key is there, else the placeholder.
 *
 * @throws EventError `personal_data_unreadable`: there is the key, and it does not open the box.
 */
export function openPayload(
  event: BoxPlace & { readonly payload: object },
  keyOf: (subject: string) => SubjectKey | undefined,
): { payload: object; opened: string[]; isForgotten: boolean } {
  const boxes = boxesOf(event)
  const opened: string[] = []
  const fields: { path: string; value: unknown }[] = []
  for (const box of boxes) {
    const key = keyOf(box.subject)
    const isReadable = key !== undefined && key.keyId === box.keyId
    const values = isReadable ? openBox(event, box, key) : box.fields.map(() => forgotten)
    if (isReadable) opened.push(box.subject)
    for (const [index, path] of box.fields.entries()) fields.push({ path, value: values[index] })
  }
  let payload = takeField(event.payload, [boxField]).rest
  // What is within another one after that.
  for (const { path, value } of fields.toSorted((one, other) => depthOf(one.path) - depthOf(other.path))) {
    payload = withField(payload, path.split('.'), value)
  }
  return { payload, opened, isForgotten: opened.length < boxes.length }
}

function openBox(event: BoxPlace, box: Box, key: SubjectKey): unknown[] {
  try {
    return JSON.parse(unseal(key, box.sealed, boundTo(event, box)).toString()) as unknown[]
  } catch (error) {
    throw unreadable(event, `the key of subject "${box.subject}" does not open it`, error)
  }
}

function boundTo(event: BoxPlace, { subject, keyId, fields }: Omit<Box, 'sealed'>): string {
  return JSON.stringify(['trunkline personal data 1', event.stream, event.id, subject, keyId, fields])
}

function boxesOf(event: BoxPlace & { readonly payload: object }): Box[] {
  const boxes: unknown = (event.payload as Record<string, unknown>)[boxField]
  if (Array.isArray(boxes) && boxes.every(isBox)) return boxes
  throw unreadable(event, `its field ${boxField} is none that trunkline wrote`)
}

function isBox(value: unknown): value is Box {
  if (typeof value !== 'object' || value === null) return false
  const { subject, keyId, fields, sealed } = value as Record<string, unknown>
  const isTexts = [subject, keyId, sealed].every((text) => typeof text === 'string')
  return isTexts && Array.isArray(fields) && fields.every((field) => typeof field === 'string')
}

function unreadable(event: BoxPlace, why: string, cause?: unknown): EventError {
  return new EventError(event, `its personal data cannot be read: ${why}.`, {
    code: 'personal_data_unreadable',
    hint: 'It was changed after it was written, or belongs to another event or stream.',
    cause,
  })
}

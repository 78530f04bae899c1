import { randomBytes, randomUUID } from 'node:crypto'
import { InvalidInputError } from '../core/index.ts'
import { eventError } from '../events/index.ts'
import { type Queryable, quoteIdentifier } from '../postgres/index.ts'
import type { MasterKeys } from './master-keys.ts'
import type { SubjectKey } from './personal-boxes.ts'
import { keyBytes, sealingKey } from './sealing.ts'

/** Longest id of a subject, in bytes of UTF-8: it is a key of an index. */
export const subjectBytesMax = 1_000

/** What a call to forget did. */
export interface ForgetResult {
  /** False: the subject had been forgotten before. */
  readonly isNew: boolean
  /** Aggregate snapshots that held something of the subject, and were deleted. */
  readonly snapshots: number
}

interface KeyRow extends Record<string, unknown> {
  readonly subject: string
  readonly key_id: string | null
  readonly secret: string | null
  readonly master_key: string | null
}

/**
 * The keys of subjects. Nothing is kept between two calls: a subject that is forgotten, by whichever process, is so for the next
 * read (docs/aggregates.md, F3).
 */
export class SubjectKeys {
  readonly #schema: string
  readonly #masterKeys: MasterKeys

  constructor(schema: string, masterKeys: MasterKeys) {
    this.#schema = schema
    this.#masterKeys = masterKeys
  }

  /** The keys of those who are not forgotten. */
  async forReading(db: Queryable, subjects: Iterable<string>): Promise<Map<string, SubjectKey>> {
    const rows = await this.#call(db, 'subject_keys', [...new Set(subjects)])
    return this.#keysOf(rows)
  }

  /** The same, and new keys for those who have none; who is missing in the result is forgotten. */
  async forWriting(db: Queryable, subjects: Iterable<string>): Promise<Map<string, SubjectKey>> {
    const wanted = [...new Set(subjects)]
    const rows = await this.#call(db, 'subject_keys', wanted)
    const known = new Set(rows.map(({ subject }) => subject))
    const unknown = wanted.filter((subject) => !known.has(subject))
    if (unknown.length > 0)
      rows.push(
        ...(await this.#call(
          db,
          'add_subject_keys',
          unknown.map((subject) => this.#newKey(subject)),
        )),
      )
    return this.#keysOf(rows)
  }

  async forget(db: Queryable, subject: string): Promise<ForgetResult> {
    try {
      const { rows } = await db.query<{ is_new: boolean; snapshots: string }>(
        `select f.is_new, f.snapshots::text from ${quoteIdentifier(this.#schema)}.forget_subject($1::text) as f`,
        [subject],
      )
      return { isNew: rows[0]?.is_new === true, snapshots: Number(rows[0]?.snapshots ?? 0) }
    } catch (error) {
      throw eventError(error, 'Forgetting a subject', this.#schema)
    }
  }

  #newKey(subject: string): object {
    const keyId = randomUUID()
    const { secret, masterKey } = this.#masterKeys.wrap(randomBytes(keyBytes), boundTo(subject, keyId))
    return { subject, key_id: keyId, secret, master_key: masterKey }
  }

  #keysOf(rows: readonly KeyRow[]): Map<string, SubjectKey> {
    const keys = new Map<string, SubjectKey>()
    for (const { subject, key_id: keyId, secret, master_key: masterKey } of rows) {
      if (keyId === null || secret === null) continue
      keys.set(subject, {
        keyId,
        ...sealingKey(this.#masterKeys.unwrap({ secret, masterKey }, boundTo(subject, keyId))),
      })
    }
    return keys
  }

  async #call(db: Queryable, routine: string, list: readonly unknown[]): Promise<KeyRow[]> {
    try {
      const { rows } = await db.query<KeyRow>(
        `select k.subject, k.key_id, k.secret, k.master_key from ${quoteIdentifier(this.#schema)}.${routine}($1::text) as k`,
        [JSON.stringify(list)],
      )
      return rows
    } catch (error) {
      throw eventError(error, 'Reading the keys of subjects', this.#schema)
    }
  }
}

/** @throws InvalidInputError `invalid_subject`. The value is not in the message: it may be somebody's name. */
export function checkSubject(subject: unknown, where: string): string {
  const found =
    typeof subject !== 'string'
      ? `is ${subject === null ? 'null' : `of type ${typeof subject}`}`
      : subject === ''
        ? 'is empty'
        : subject.includes('\0') || !subject.isWellFormed()
          ? 'is no text that PostgreSQL can hold'
          : Buffer.byteLength(subject) > subjectBytesMax
            ? `is longer than ${subjectBytesMax} bytes`
            : undefined
  if (found === undefined) return subject as string
  throw new InvalidInputError(`${where}: the subject ${found}, expected a text.`, {
    code: 'invalid_subject',
    hint: 'Name whose data it is by an id that says nothing of the person, for example "customer-17".',
  })
}

function boundTo(subject: string, keyId: string): string {
  return JSON.stringify(['trunkline subject key 1', subject, keyId])
}

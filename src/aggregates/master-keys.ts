import { createHash } from 'node:crypto'
import { InvalidInputError, TrunklineError } from '../core/index.ts'
import { keyBytes, seal, sealingKey, type SealingKey, unseal } from './sealing.ts'

/** A secret as the database keeps it. */
export interface StoredSecret {
  /** Base64. */
  readonly secret: string
  /** Name of the master key that it is wrapped with; null: it is not wrapped. */
  readonly masterKey: string | null
}

/**
 * The application's own keys, which never reach the database: subjects' keys are wrapped with the first and opened with any.
 * Without one, subjects' keys are stored as they are.
 */
export class MasterKeys {
  readonly #keys: readonly { readonly name: string; readonly key: SealingKey }[]

  /** @throws InvalidInputError `invalid_option`: a key is not of 32 bytes. */
  constructor(keys: readonly Uint8Array[] = []) {
    for (const key of keys) {
      if (key instanceof Uint8Array && key.length === keyBytes) continue
      throw new InvalidInputError(`A master key is not of ${keyBytes} bytes.`, {
        code: 'invalid_option',
        hint: `Pass ${keyBytes} random bytes, for example Buffer.from(process.env.MASTER_KEY, 'base64').`,
      })
    }
    this.#keys = keys.map((key) => ({ name: nameOf(key), key: sealingKey(key) }))
  }

  wrap(secret: Uint8Array, boundTo: string): StoredSecret {
    const [first] = this.#keys
    if (first === undefined) return { secret: Buffer.from(secret).toString('base64'), masterKey: null }
    return { secret: seal(first.key, secret, boundTo), masterKey: first.name }
  }

  /** @throws TrunklineError `unknown_master_key`, `subject_key_unreadable`. */
  unwrap({ secret, masterKey }: StoredSecret, boundTo: string): Uint8Array {
    if (masterKey === null) return Buffer.from(secret, 'base64')
    const known = this.#keys.find(({ name }) => name === masterKey)
    if (known === undefined) {
      throw new TrunklineError(`A subject's key is wrapped with master key ${masterKey}, which was not given.`, {
        code: 'unknown_master_key',
        hint: 'Give it in events.masterKeys, behind the one that new keys are wrapped with.',
        details: { masterKey },
      })
    }
    try {
      return unseal(known.key, secret, boundTo)
    } catch (error) {
      throw new TrunklineError(
        'A key of a subject is not what was stored: its row was changed, or copied from another.',
        {
          code: 'subject_key_unreadable',
          hint: 'Restore subject_key from a backup.',
          details: { masterKey },
          cause: error,
        },
      )
    }
  }
}

/** Tells master keys apart without giving anything of them away. */
function nameOf(key: Uint8Array): string {
  return createHash('sha256').update('trunkline master key').update(key).digest('hex').slice(0, 16)
}

import { createCipheriv, createDecipheriv, createHmac, hkdfSync } from 'node:crypto'

/** Bytes of every key. */
export const keyBytes = 32
const nonceBytes = 12
const tagBytes = 16

/** A secret that seals: one key for AES-256-GCM, one that its nonces are made with. */
export interface SealingKey {
  readonly cipherKey: Uint8Array
  readonly nonceKey: Uint8Array
}

/** The sealing key of 32 random bytes. */
export function sealingKey(secret: Uint8Array): SealingKey {
  const derive = (use: string): Uint8Array =>
    new Uint8Array(hkdfSync('sha256', secret, new Uint8Array(0), `trunkline ${use}`, keyBytes))
  return { cipherKey: derive('cipher'), nonceKey: derive('nonce') }
}

/**
 * Encrypts with AES-256-GCM, in base64: nonce, ciphertext, tag. `bound` is authenticated with it and needed to open it. The nonce
 * is a MAC of both, so that it never repeats for two different texts, and the same event sent again is the same text.
 */
export function seal(key: SealingKey, plain: Uint8Array, bound: string): string {
  // The length keeps what is bound and what is sealed apart.
  const mac = createHmac('sha256', key.nonceKey)
    .update(`${Buffer.byteLength(bound)}:${bound}`)
    .update(plain)
  const nonce = mac.digest().subarray(0, nonceBytes)
  const cipher = createCipheriv('aes-256-gcm', key.cipherKey, nonce)
  cipher.setAAD(Buffer.from(bound))
  return Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]).toString('base64')
}

/** @throws Error when it was sealed with another key, or bound to something else, or changed. */
export function unseal(key: SealingKey, sealed: string, bound: string): Buffer {
  const bytes = Buffer.from(sealed, 'base64')
  if (bytes.length < nonceBytes + tagBytes) throw new Error('it is too short')
  const decipher = createDecipheriv('aes-256-gcm', key.cipherKey, bytes.subarray(0, nonceBytes), {
    authTagLength: tagBytes,
  })
  decipher.setAAD(Buffer.from(bound))
  decipher.setAuthTag(bytes.subarray(-tagBytes))
  return Buffer.concat([decipher.update(bytes.subarray(nonceBytes, -tagBytes)), decipher.final()])
}

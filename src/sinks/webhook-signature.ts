import { createHmac } from 'node:crypto'
import { InvalidInputError } from '../core/index.ts'

const prefix = 'whsec_'
/** Bytes of a secret, as Standard Webhooks asks for. */
const secretBytesMin = 24
const secretBytesMax = 64

/** Signs requests as Standard Webhooks asks for: HMAC-SHA256 over id, time and body, once for each secret. */
export class WebhookSigner {
  readonly #keys: readonly Buffer[]

  /**
   * @param secrets `whsec_` and 24 to 64 bytes in base64. Several while they are rotated: a receiver takes a request that one
   *   of its own secrets verifies.
   * @throws InvalidInputError `invalid_secret`
   */
  constructor(secrets: readonly string[]) {
    this.#keys = secrets.map(keyOf)
  }

  /** The headers of one attempt. `signedAt`: receivers refuse what is older than some minutes, so each attempt has its own. */
  headers(messageId: string, body: Buffer, signedAt: Date): Record<string, string> {
    const timestamp = String(Math.floor(signedAt.getTime() / 1000))
    const signatures = this.#keys.map((key) => {
      const hmac = createHmac('sha256', key).update(`${messageId}.${timestamp}.`).update(body)
      return `v1,${hmac.digest('base64')}`
    })
    return {
      'webhook-id': messageId,
      'webhook-timestamp': timestamp,
      ...(signatures.length > 0 && { 'webhook-signature': signatures.join(' ') }),
    }
  }
}

/** No message says anything of what the secret is. */
function keyOf(secret: string, index: number): Buffer {
  const text = secret.startsWith(prefix) ? secret.slice(prefix.length) : secret
  const key = Buffer.from(text, 'base64')
  const isBase64 = /^[A-Za-z0-9+/]+={0,2}$/.test(text)
  if (!isBase64 || key.length < secretBytesMin || key.length > secretBytesMax) {
    throw new InvalidInputError(
      `Secret ${index + 1} of the webhook is ${isBase64 ? `${key.length} bytes long` : 'no base64'}, expected ${secretBytesMin} to ${secretBytesMax} bytes in base64.`,
      { code: 'invalid_secret', hint: `Make one with: echo ${prefix}$(openssl rand -base64 32)` },
    )
  }
  return key
}

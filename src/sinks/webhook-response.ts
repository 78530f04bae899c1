import { DeliveryError, retryAfterMaxMs } from '../relay/index.ts'

/** What of a response decides. */
export interface WebhookResponse {
  readonly status: number
  readonly retryAfter: string | undefined
  /** The beginning of its body. */
  readonly text: string
}

/** Statuses below 500 that a later attempt can mend. */
const retryableStatuses = new Set([408, 425, 429])

/** Undefined: the receiver has taken it. */
export function failureOf(response: WebhookResponse, sinkName: string): DeliveryError | undefined {
  const { status } = response
  if (status >= 200 && status < 300) return undefined
  const { code, retryable, hint } = kindOf(status)
  const said = response.text === '' ? '' : `: ${response.text}`
  return new DeliveryError(`${sinkName} answered ${status}${said}.`, {
    code,
    retryable,
    hint,
    retryAfterMs: retryable ? retryAfterMs(response.retryAfter, Date.now()) : undefined,
    details: { status },
  })
}

function kindOf(status: number): { code: string; retryable: boolean; hint?: string } {
  if (status === 410) {
    return { code: 'receiver_gone', retryable: false, hint: 'The receiver wants no more: stop this relay.' }
  }
  if (status === 429) return { code: 'receiver_throttles', retryable: true }
  if (status >= 500 || retryableStatuses.has(status)) return { code: 'receiver_unavailable', retryable: true }
  if (status >= 400) return { code: 'receiver_refused', retryable: false }
  // Somebody mends the URL or the receiver; the event is not to blame.
  return {
    code: 'receiver_redirects',
    retryable: true,
    hint: 'Redirects are not followed: name the address where the receiver is.',
  }
}

/** Retry-After in milliseconds: seconds or a date. Undefined: it is neither. */
function retryAfterMs(header: string | undefined, now: number): number | undefined {
  if (header === undefined) return undefined
  const ms = /^\d+$/.test(header.trim()) ? Number(header) * 1000 : Date.parse(header) - now
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(ms, 0), retryAfterMaxMs)
}

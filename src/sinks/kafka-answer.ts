import { DeliveryError } from '../relay/index.ts'

interface KafkaError {
  readonly message?: string
  readonly apiId?: unknown
  readonly errors?: readonly unknown[]
  readonly cause?: unknown
}

interface Meaning {
  readonly code: string
  /** After the name of the sink, before that of the topic. */
  readonly text: string
  readonly retryable: boolean
  readonly hint: string
}

const tooLarge: Meaning = {
  code: 'message_too_large',
  text: 'the message is too large for topic',
  retryable: false,
  hint: 'Raise max.message.bytes of the topic, or send less: a reference instead of the whole.',
}
const missing: Meaning = {
  code: 'topic_missing',
  text: 'there is no topic',
  retryable: true,
  hint: 'Make the topic, or let the brokers do it (auto.create.topics.enable).',
}
const forbidden: Meaning = {
  code: 'not_authorized',
  text: 'this user may not write to topic',
  retryable: true,
  hint: 'Grant it WRITE and IDEMPOTENT_WRITE.',
}
const invalid: Meaning = {
  code: 'invalid_topic',
  text: 'the brokers refuse the name of topic',
  retryable: false,
  hint: 'A topic has 1 to 249 letters, digits, dots, hyphens and underscores.',
}

const meanings: Readonly<Record<string, Meaning>> = {
  MESSAGE_TOO_LARGE: tooLarge,
  RECORD_LIST_TOO_LARGE: tooLarge,
  INVALID_TOPIC_EXCEPTION: invalid,
  UNKNOWN_TOPIC_OR_PARTITION: missing,
  TOPIC_AUTHORIZATION_FAILED: forbidden,
  CLUSTER_AUTHORIZATION_FAILED: forbidden,
}

/** What the brokers have clearly answered; undefined: an error of any other kind. */
export function kafkaAnswer(error: unknown, sinkName: string, topic: string | undefined): DeliveryError | undefined {
  const meaning = meaningOf(error)
  if (meaning === undefined) return undefined
  const { code, text, retryable, hint } = meaning
  return new DeliveryError(`${sinkName}: ${text} ${topic}.`, { code, retryable, hint, details: { topic } })
}

function meaningOf(error: unknown): Meaning | undefined {
  if (typeof error !== 'object' || error === null) return undefined
  const { apiId, message = '', errors = [], cause } = error as KafkaError
  if (typeof apiId === 'string' && Object.hasOwn(meanings, apiId)) return meanings[apiId]
  // The client has no code for it.
  if (message.startsWith('Unknown topic ')) return missing
  for (const inner of [...errors, cause]) {
    const found = meaningOf(inner)
    if (found !== undefined) return found
  }
  return undefined
}

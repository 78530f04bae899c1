import { accepts } from './broker-process.ts'
import { isMissing } from './requirement.ts'

/** Kinds of brokers, with where they are if nothing else is said. */
const kinds = {
  REDIS: { url: 'redis://127.0.0.1:6379', port: 6379 },
  RABBITMQ: { url: 'amqp://guest:guest@127.0.0.1:5672', port: 5672 },
  NATS: { url: 'nats://127.0.0.1:4222', port: 4222 },
  MQTT: { url: 'mqtt://127.0.0.1:1883', port: 1883 },
  KAFKA: { url: 'kafka://127.0.0.1:9092', port: 9092 },
} as const

export type BrokerKind = keyof typeof kinds

/**
 * The URL of a broker that runs already: what TRUNKLINE_TEST_<kind> names, else what listens on its default port of this machine.
 * Undefined: there is none, and one line has said so.
 */
export async function findSharedBroker(kind: BrokerKind): Promise<string | undefined> {
  const variable = `TRUNKLINE_TEST_${kind}`
  const { url, port } = kinds[kind]
  const given = process.env[variable]
  if (given !== undefined) return given
  const isThere = await accepts(port)
  const mend = `run .ci/provide-brokers or docker compose up, or name one with ${variable}`
  return isMissing(`A running ${kind}`, isThere, mend) ? undefined : url
}

import { fileURLToPath } from 'node:url'
import { InvalidInputError, type Logger } from '../core/index.ts'
import type { Sink } from '../relay/index.ts'
import { FileSink } from './file.ts'
import { KafkaSink, type KafkaSinkOptions } from './kafka.ts'
import { MqttSink, type MqttSinkOptions } from './mqtt.ts'
import { NatsSink, type NatsSinkOptions } from './nats.ts'
import { RabbitMqSink, type RabbitMqSinkOptions } from './rabbitmq.ts'
import { RedisSink, type RedisSinkOptions } from './redis.ts'
import { StdoutSink } from './stdout.ts'
import { WebhookSink, type WebhookSinkOptions } from './webhook.ts'

/** What a URL does not say. Options of other kinds of sinks than the URL's are passed over. */
export interface SinkUrlOptions {
  /** Milliseconds that a call may take. Default: the sink's own. */
  readonly timeoutMs?: number | undefined
  readonly logger?: Logger | undefined
  readonly webhook?: Beyond<WebhookSinkOptions> | undefined
  readonly kafka?: Beyond<KafkaSinkOptions> | undefined
  readonly rabbitMq?: Beyond<RabbitMqSinkOptions> | undefined
  readonly nats?: Beyond<NatsSinkOptions> | undefined
  readonly redis?: Beyond<RedisSinkOptions> | undefined
  readonly mqtt?: Beyond<MqttSinkOptions> | undefined
}

/** Options of one kind of sink, beyond its URL and its time limit. */
export type Beyond<Options> = Omit<Options, 'url' | 'timeoutMs'>

type Maker = (url: string, options: SinkUrlOptions) => Sink

const webhook: Maker = (url, { timeoutMs, webhook: more }) => new WebhookSink({ ...more, url, timeoutMs })
const kafka: Maker = (url, { timeoutMs, kafka: more }) => new KafkaSink({ ...more, url, timeoutMs })
const amqp: Maker = (url, { timeoutMs, rabbitMq: more }) => new RabbitMqSink({ ...more, url, timeoutMs })
const nats: Maker = (url, { timeoutMs, nats: more }) => new NatsSink({ ...more, url, timeoutMs })
const redis: Maker = (url, { timeoutMs, redis: more }) => new RedisSink({ ...more, url, timeoutMs })
const mqtt: Maker = (url, { timeoutMs, mqtt: more }) => new MqttSink({ ...more, url, timeoutMs })

const makers: Readonly<Record<string, Maker>> = {
  file: (url, { timeoutMs, logger }) => new FileSink({ path: pathOf(url), timeoutMs, logger }),
  stdout: (_url, { timeoutMs }) => new StdoutSink({ timeoutMs }),
  http: webhook,
  https: webhook,
  kafka,
  kafkas: kafka,
  amqp,
  amqps: amqp,
  nats,
  'nats+tls': nats,
  redis,
  rediss: redis,
  mqtt,
  mqtts: mqtt,
}

/**
 * Makes the sink that a URL names. Nothing is connected before its `start()`.
 *
 * @throws InvalidInputError `unknown_sink_scheme` or `invalid_sink_url`; neither shows more of the URL than its scheme.
 */
export function sinkFromUrl(url: string, options: SinkUrlOptions = {}): Sink {
  const scheme = /^([a-z][a-z0-9+.-]*):/i.exec(url)?.[1]?.toLowerCase()
  const maker = scheme !== undefined && Object.hasOwn(makers, scheme) ? makers[scheme] : undefined
  if (maker !== undefined) return maker(url, options)
  const found = scheme === undefined ? 'has no scheme' : `has the unknown scheme ${scheme}:`
  const known = Object.keys(makers).map((name) => `${name}:`)
  throw new InvalidInputError(`The URL of the sink ${found}.`, {
    code: 'unknown_sink_scheme',
    hint: `Known are ${known.join(', ')}; for example file:events.ndjson.`,
    details: { scheme },
  })
}

/** `file:PATH` as it is written, relative or absolute; `file:///PATH` as a URL, with its %XX decoded. */
function pathOf(url: string): string {
  const path = url.slice('file:'.length)
  if (path.startsWith('//')) {
    const parsed = URL.parse(url)
    if (parsed !== null && (parsed.host === '' || parsed.host === 'localhost')) return fileURLToPath(parsed)
  } else if (path !== '') {
    return path
  }
  throw new InvalidInputError('The URL of the file sink names no local file.', {
    code: 'invalid_sink_url',
    hint: 'Write file:events.ndjson, file:/var/lib/app/events.ndjson or file:///var/lib/app/events.ndjson.',
  })
}

import { InvalidInputError } from '../../core/index.ts'
import type { Format } from '../format.ts'
import { cloudEventsFormat } from './cloudevents.ts'
import { debeziumFormat } from './debezium.ts'
import { plainFormat } from './plain.ts'

/**
 * `plain`: as `tail --json`, or the payload with headers. `cloudevents`: CloudEvents 1.0, structured; `cloudevents-binary`: with
 * the attributes as headers. `debezium`: as its outbox event router and its change envelope.
 */
export type FormatName = 'plain' | 'cloudevents' | 'cloudevents-binary' | 'debezium'

export interface FormatOptions {
  /** The sink's `transport`: formats choose the names of headers by it. */
  readonly transport?: string | undefined
  /** Of CloudEvents the attribute `source`, a URI reference. Default `/trunkline/<topic>`. */
  readonly source?: string | undefined
  /** Of Debezium's captured changes: topics are `<prefix>.<schema>.<table>`. Default `trunkline`. */
  readonly topicPrefix?: string | undefined
  /** Of Debezium's captured changes `source.db`. Default: empty. */
  readonly database?: string | undefined
}

/** @throws InvalidInputError `unknown_format` */
export function createFormat(name: string, options: FormatOptions = {}): Format {
  const { transport, source, topicPrefix, database } = options
  switch (name as FormatName) {
    case 'plain':
      return plainFormat(transport)
    case 'cloudevents':
      return cloudEventsFormat({ transport, source, mode: 'structured' })
    case 'cloudevents-binary':
      return cloudEventsFormat({ transport, source, mode: 'binary' })
    case 'debezium':
      return debeziumFormat({ transport, topicPrefix, database })
    default:
      throw new InvalidInputError(`There is no format "${name}".`, {
        code: 'unknown_format',
        hint: 'Take plain, cloudevents, cloudevents-binary or debezium.',
      })
  }
}

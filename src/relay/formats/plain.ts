import type { Format } from '../format.ts'
import { destinationOf, jsonBody, ownHeaders, textsOf } from './parts.ts'

/**
 * In lines: the change as `tail --json` prints it. Elsewhere an event's payload alone is the body, and a captured change is the
 * body as in lines; what it is about is in headers that begin with `trunkline-`, beside the event's own.
 */
export function plainFormat(transport: string | undefined): Format {
  const isLines = transport === 'lines'
  return {
    name: 'plain',
    encode: (change) => {
      const { messageId, key, operation, payload } = change
      const about = textsOf({
        'trunkline-message-id': messageId,
        'trunkline-topic': change.topic,
        'trunkline-key': operation === null ? key : null,
        'trunkline-type': change.type,
        'trunkline-table': change.table,
        'trunkline-operation': operation,
        'trunkline-created-at': change.createdAt,
      })
      return {
        messageId,
        destination: destinationOf(change),
        key,
        headers: isLines ? {} : { ...ownHeaders(change), ...about },
        contentType: 'application/json',
        body: jsonBody(isLines || operation !== null ? change : payload),
        change,
      }
    },
  }
}

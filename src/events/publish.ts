import { lockTimeoutMs, type Queryable, quoteIdentifier } from '../postgres/index.ts'
import { textList } from './option-checks.ts'

/**
 * Sets what is published, in one transaction that waits no longer than others may wait behind it.
 *
 * @throws InvalidInputError `invalid_option`.
 */
export async function publishEvents(db: Queryable, schema: string, categories: readonly string[]): Promise<void> {
  textList('Publishing events', 'categories', categories)
  const list = Buffer.from(JSON.stringify(categories)).toString('hex')
  // One simple query is one transaction. It takes no parameters: the list goes as digits.
  await db.query(`set local lock_timeout = '${lockTimeoutMs}ms';
    select ${quoteIdentifier(schema)}.publish_events(variadic array(
      select c from json_array_elements_text(convert_from('\\x${list}', 'UTF8')::json) as c
    ))`)
}

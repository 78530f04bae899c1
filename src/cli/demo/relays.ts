/**
 * The relays of the demo, in a process of their own: the same events to a webhook and to a file. Started by deliveries.ts with
 * DATABASE_URL, TRUNKLINE_SCHEMA, WEBHOOK_URL and FILE set.
 */
import { silentLogger } from '../../core/index.ts'
import { createTrunkline } from '../../index.ts'
import { endWithMain, tellMain } from './helper.ts'
import { orderTopic } from './orders.ts'

const trunkline = createTrunkline({
  url: process.env['DATABASE_URL'],
  schema: process.env['TRUNKLINE_SCHEMA'],
  logger: silentLogger,
})
const relays = [
  trunkline.relay({ name: 'webhook', topics: [orderTopic], sink: process.env['WEBHOOK_URL'] ?? '' }),
  trunkline.relay({ name: 'file', topics: [orderTopic], sink: `file:${process.env['FILE'] ?? ''}` }),
]
for (const relay of relays) await relay.start()
endWithMain(() => trunkline.stop())
tellMain({ tell: 'ready' })

/** A process of its own for file.test.ts: `node file-writer.ts PATH KEY COUNT|endless [BYTES]`,
 * with bodies of about so many bytes. Prints what was confirmed and what failed. */
import { writeSync } from 'node:fs'
import { sinkFromUrl } from '../../src/sinks/index.ts'
import { deliveriesOf } from '../../src/testing/sink-contract/deliveries.ts'

const [path = '', key = '', count = '', bytes = '0'] = process.argv.slice(2)
// A write past the limit fails, instead of ending the process.
process.on('SIGXFSZ', () => {})
const last = count === 'endless' ? Infinity : Number(count)
const sink = sinkFromUrl(`file:${path}`)
await sink.start()
for (let number = 1; number <= last; number += 5) {
  const batch = deliveriesOf(key, 5, number)
  const padding = ' '.repeat(Number(bytes))
  for (const delivery of batch) {
    Object.assign(delivery, { body: Buffer.from(delivery.body.toString().replace('}', `${padding}}`)) })
  }
  const outcomes = await sink.deliver(batch, new AbortController().signal)
  const lines = batch.map(({ messageId }, index) => {
    const outcome = outcomes[index]
    return outcome === undefined ? `confirmed ${messageId}\n` : `failed ${outcome.code}\n`
  })
  writeSync(1, lines.join(''))
}
await sink.stop()

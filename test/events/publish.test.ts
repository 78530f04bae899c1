import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { open, prepareDatabase } from '../relay/relaying.ts'
import { scratchDirectory } from '../sinks/scratch.ts'
import { describeEachPostgres, eventually } from '../support/index.ts'

describeEachPostgres('publishing events', (server) => {
  test('a relay delivers what is published, each stream in order, and nothing else', async () => {
    const database = await prepareDatabase(server)
    const trunkline = open(database.url)
    const { events } = trunkline
    await events.append('order-0', 0, { type: 'before', payload: null })
    await events.publish(['order', 'invoice'])
    await events.publish(['invoice', 'order'])
    const file = join(await scratchDirectory(), 'events.ndjson')
    const relay = trunkline.relay({ name: 'events', topics: ['order', 'invoice'], sink: `file:${file}` })
    onTestFinished(() => relay.stop())
    await relay.start()
    await events.append(
      'order-1',
      0,
      [1, 2, 3].map((n) => ({ type: 'added', payload: { n } })),
      {
        correlationId: 'c',
        traceparent: 't',
      },
    )
    await events.append('secret-1', 0, { type: 'hidden', payload: null })
    await Promise.all(
      ['order-1', 'order-2', 'invoice-1'].map(async (stream) => {
        for (let n = 0; n < 20; n += 1) await events.append(stream, 'any', { type: 'more', payload: { n } })
      }),
    )
    const lines = async (): Promise<Record<string, unknown>[]> =>
      (await readFile(file, 'utf8').catch(() => ''))
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as Record<string, unknown>)
    await eventually(async () => (await lines()).length >= 63, { what: 'all is delivered' })
    const delivered = await lines()
    expect(delivered).toHaveLength(63)
    const stored = await events.readAll({ categories: ['order', 'invoice'] })
    for (const [topic, key] of [
      ['order', '1'],
      ['order', '2'],
      ['invoice', '1'],
    ] as const) {
      expect(
        delivered
          .filter((line) => line['topic'] === topic && line['key'] === key)
          .map((line) => [line['type'], line['payload']]),
      ).toEqual(
        stored.filter((event) => event.stream === `${topic}-${key}`).map(({ type, payload }) => [type, payload]),
      )
    }
    const first = stored.find((event) => event.stream === 'order-1')
    expect(delivered.find((line) => line['type'] === 'added')).toMatchObject({
      topic: 'order',
      key: '1',
      headers: { eventId: first?.id, version: '1', correlationId: 'c', traceparent: 't' },
    })
    await events.publish([])
    await events.append('order-1', 'any', { type: 'after', payload: null })
    expect(await database.query(`select from trunkline.log where type in ('after', 'before', 'hidden')`)).toEqual([])
    expect(await database.query(`select from pg_trigger where tgname = 'event_publish'`)).toEqual([])
    await expect(events.publish(['order-1'])).rejects.toMatchObject({ code: 'invalid_argument' })
  })
})

import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Admin } from '@platformatic/kafka'
import { freePort } from '../../src/testing/embedded/free-port.ts'
import { type BrokerProcess, findProgram, startBroker } from './broker-process.ts'
import { isMissing } from './requirement.ts'

/** A Kafka of the test's own. */
export interface Kafka extends BrokerProcess {
  /** Where clients reach it directly, without credentials. */
  readonly bootstrap: string
  /** The listener that tells clients to come through `proxyPort`, and asks for `kafkaUser` and `kafkaPassword`. */
  readonly proxiedPort: number
}

export const kafkaUser = 'relay'
export const kafkaPassword = 'k4fka-s3cret'

/** For `describe.skipIf(lacksKafka())`: Java, and the jars that TRUNKLINE_TEST_KAFKA_LIBS names. */
export function lacksKafka(): boolean {
  const isThere = process.env['TRUNKLINE_TEST_KAFKA_LIBS'] !== undefined && findProgram('java') !== undefined
  return isMissing('Apache Kafka', isThere, 'run .ci/provide-brokers and set what it prints')
}

/** Starts Kafka. @param proxyPort where a TCP proxy before `proxiedPort` listens. */
export async function startKafka(proxyPort: number, proxiedPort: number): Promise<Kafka> {
  const [port, controllerPort] = [await freePort(), await freePort()]
  const libs = join(process.env['TRUNKLINE_TEST_KAFKA_LIBS'] ?? '', '*')
  const java = findProgram('java') ?? 'java'
  const jvm = ['-Xms128m', '-Xmx384m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-cp', libs]
  const broker = await startBroker({
    what: 'Kafka',
    program: java,
    port,
    args: (home) => [...jvm, 'kafka.Kafka', join(home, 'server.properties')],
    prepare: async (home) => {
      const file = join(home, 'server.properties')
      await writeFile(file, properties(home, { port, proxiedPort, proxyPort, controllerPort }))
      const clusterId = randomBytes(16).toString('base64url')
      await promisify(execFile)(java, [
        ...jvm,
        'kafka.tools.StorageTool',
        'format',
        `--cluster-id=${clusterId}`,
        '-c',
        file,
      ])
    },
    isReady: () => answers(`127.0.0.1:${port}`),
    readyTimeoutMs: 180_000,
  })
  return Object.assign(broker, { bootstrap: `127.0.0.1:${port}`, proxiedPort })
}

async function answers(bootstrap: string): Promise<boolean> {
  const admin = new Admin({ clientId: 'test', bootstrapBrokers: [bootstrap], retries: 0 })
  try {
    const { brokers } = await admin.metadata({ topics: [] })
    return brokers.size > 0
  } finally {
    await admin.close()
  }
}

interface Ports {
  readonly port: number
  readonly proxiedPort: number
  readonly proxyPort: number
  readonly controllerPort: number
}

function properties(home: string, { port, proxiedPort, proxyPort, controllerPort }: Ports): string {
  return `process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:${controllerPort}
listeners=DIRECT://127.0.0.1:${port},PROXIED://127.0.0.1:${proxiedPort},CONTROLLER://127.0.0.1:${controllerPort}
advertised.listeners=DIRECT://127.0.0.1:${port},PROXIED://127.0.0.1:${proxyPort}
controller.listener.names=CONTROLLER
inter.broker.listener.name=DIRECT
listener.security.protocol.map=DIRECT:PLAINTEXT,PROXIED:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
listener.name.proxied.sasl.enabled.mechanisms=PLAIN
listener.name.proxied.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_${kafkaUser}="${kafkaPassword}";
log.dirs=${join(home, 'data')}
num.partitions=4
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=true
controlled.shutdown.enable=false
`
}

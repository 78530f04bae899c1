import { randomUUID } from 'node:crypto'
import { chmod, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Connection } from 'rabbitmq-client'
import { freePort } from '../../src/testing/embedded/free-port.ts'
import { type BrokerProcess, findProgram, startBroker } from './broker-process.ts'
import { isMissing } from './requirement.ts'

/** Where Debian keeps the script that does not change the user first. */
const program = findProgram('../lib/rabbitmq/bin/rabbitmq-server')

export const rabbitUser = 'relay'
export const rabbitPassword = 'r4bbit-s3cret'

/** For `describe.skipIf(lacksRabbitMq())`. */
export function lacksRabbitMq(): boolean {
  return isMissing('RabbitMQ', program !== undefined, 'install the package rabbitmq-server')
}

/** Starts a RabbitMQ node of the test's own, beside any other; it takes messages of up to a megabyte. */
export async function startRabbitMq(): Promise<BrokerProcess> {
  const [port, distributionPort] = [await freePort(), await freePort()]
  const name = `trunkline-${randomUUID().slice(0, 8)}@localhost`
  const environment = (home: string): Record<string, string> => ({
    HOME: home,
    RABBITMQ_NODENAME: name,
    RABBITMQ_NODE_IP_ADDRESS: '127.0.0.1',
    RABBITMQ_NODE_PORT: String(port),
    RABBITMQ_DIST_PORT: String(distributionPort),
    RABBITMQ_MNESIA_BASE: join(home, 'mnesia'),
    RABBITMQ_LOG_BASE: join(home, 'log'),
    RABBITMQ_PID_FILE: join(home, 'pid'),
    RABBITMQ_CONF_ENV_FILE: join(home, 'none'),
    RABBITMQ_CONFIG_FILE: join(home, 'rabbitmq.conf'),
    RABBITMQ_ENABLED_PLUGINS_FILE: join(home, 'plugins'),
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '+S 1:1',
  })
  return startBroker({
    what: 'RabbitMQ',
    program: program ?? 'rabbitmq-server',
    port,
    args: () => [],
    env: environment,
    prepare: async (home) => {
      const configuration = `default_user = ${rabbitUser}\ndefault_pass = ${rabbitPassword}\nmax_message_size = 1000000\n`
      await writeFile(join(home, 'rabbitmq.conf'), configuration)
      await writeFile(join(home, 'plugins'), '[].\n')
      await writeFile(join(home, '.erlang.cookie'), randomUUID())
      await chmod(join(home, '.erlang.cookie'), 0o400)
    },
    readyTimeoutMs: 180_000,
    isReady: () => answers(`amqp://${rabbitUser}:${rabbitPassword}@127.0.0.1:${port}`),
  })
}

async function answers(url: string): Promise<boolean> {
  const connection = new Connection({ url, retryLow: 60_000 })
  const { promise, resolve } = Promise.withResolvers<boolean>()
  connection.on('connection', () => resolve(true))
  connection.on('error', () => resolve(false))
  return promise.finally(() => connection.unsafeDestroy())
}

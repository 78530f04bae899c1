import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { freePort } from '../../src/testing/embedded/free-port.ts'
import { type BrokerProcess, findProgram, startBroker } from './broker-process.ts'
import { isMissing } from './requirement.ts'

/** Of every small broker below. Messages may have a megabyte. */
export const brokerUser = 'relay'
export const brokerPassword = 'br0ker-s3cret'
export const messageBytesMax = 1_048_576

/** For `describe.skipIf(lacksNats())`. */
export function lacksNats(): boolean {
  return isMissing('NATS', findProgram('nats-server') !== undefined, 'install the package nats-server')
}

/** For `describe.skipIf(lacksRedis())`. */
export function lacksRedis(): boolean {
  return isMissing('Redis', findProgram('redis-server') !== undefined, 'install the package redis-server')
}

/** For `describe.skipIf(lacksMosquitto())`. */
export function lacksMosquitto(): boolean {
  return isMissing('Mosquitto', findProgram('mosquitto') !== undefined, 'install the package mosquitto')
}

export async function startNats(): Promise<BrokerProcess> {
  const port = await freePort()
  const credentials = ['--user', brokerUser, '--pass', brokerPassword]
  return startBroker({
    what: 'NATS',
    program: findProgram('nats-server') ?? 'nats-server',
    port,
    args: (home) => ['-a', '127.0.0.1', '-p', String(port), '-js', '-sd', home, ...credentials],
  })
}

/** Every write is on the disk before it is answered. */
export async function startRedis(): Promise<BrokerProcess> {
  const port = await freePort()
  const listen = ['--bind', '127.0.0.1', '--port', String(port), '--requirepass', brokerPassword]
  const keep = ['--appendonly', 'yes', '--appendfsync', 'always', '--save', '']
  return startBroker({
    what: 'Redis',
    program: findProgram('redis-server') ?? 'redis-server',
    port,
    args: (home) => [...listen, ...keep, '--dir', home, '--proto-max-bulk-len', String(messageBytesMax)],
  })
}

export async function startMosquitto(): Promise<BrokerProcess> {
  const port = await freePort()
  return startBroker({
    what: 'Mosquitto',
    program: findProgram('mosquitto') ?? 'mosquitto',
    port,
    args: (home) => ['-c', join(home, 'mosquitto.conf')],
    prepare: async (home) => {
      const passwords = join(home, 'passwords')
      await promisify(execFile)('mosquitto_passwd', ['-b', '-c', passwords, brokerUser, brokerPassword])
      await writeFile(join(home, 'mosquitto.conf'), mosquittoConfiguration(home, port, passwords))
    },
  })
}

function mosquittoConfiguration(home: string, port: number, passwords: string): string {
  return `listener ${port} 127.0.0.1
allow_anonymous false
password_file ${passwords}
user root
persistence true
persistence_location ${home}/
max_packet_size ${messageBytesMax}
max_queued_messages 0
`
}

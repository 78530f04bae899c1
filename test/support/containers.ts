import { GenericContainer, getContainerRuntimeClient } from 'testcontainers'
import type { EmbeddedPostgresVersion } from '../../src/testing/embedded-postgres.ts'
import { eventually } from './eventually.ts'
import { isMissing } from './requirement.ts'
import { type TestServer, prepareServer } from './server.ts'

/** A PostgreSQL in a container of its own. */
export interface PostgresContainer extends AsyncDisposable {
  /** For `createDatabase(container.server)`. */
  readonly server: TestServer
  /** Connects the superuser. */
  readonly url: string
  /** Stops and removes the container. */
  stop(): Promise<void>
}

const PORT = 5432
const SUPERUSER = 'postgres'
const PASSWORD = 'secret of the test'

/** For `describe.skipIf(await lacksDocker())`. */
export async function lacksDocker(): Promise<boolean> {
  const answers = await getContainerRuntimeClient().then(
    () => true,
    () => false,
  )
  return isMissing('Docker', answers, 'start a Docker engine, or name one with DOCKER_HOST')
}

/** Starts a container of the image that TRUNKLINE_TEST_IMAGE_<version> names, default `postgres:<version>`. */
export async function startContainer(
  version: EmbeddedPostgresVersion,
  settings: Readonly<Record<string, string>> = {},
): Promise<PostgresContainer> {
  const image = process.env[`TRUNKLINE_TEST_IMAGE_${version}`] ?? `postgres:${version}`
  const container = await new GenericContainer(image)
    .withEnvironment({ POSTGRES_USER: SUPERUSER, POSTGRES_PASSWORD: PASSWORD, POSTGRES_DB: 'postgres' })
    .withCommand(['postgres', ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])])
    .withExposedPorts(PORT)
    .start()
  const stop = async (): Promise<void> => void (await container.stop())
  const secret = encodeURIComponent(PASSWORD)
  const url = `postgres://${SUPERUSER}:${secret}@${container.getHost()}:${container.getMappedPort(PORT)}/postgres`
  try {
    // Docker opens the port before the server takes connections.
    const server = await eventually(() => prepareServer(url), { timeoutMs: 60_000, what: `${image} takes connections` })
    return { server, url, stop, [Symbol.asyncDispose]: stop }
  } catch (error) {
    await stop()
    throw error
  }
}

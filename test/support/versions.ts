import type { EmbeddedPostgresVersion } from '../../src/testing/embedded-postgres.ts'

const KNOWN: readonly EmbeddedPostgresVersion[] = ['12', '13', '14', '15', '16', '17', '18']

/** The versions that embedded servers are started in: TRUNKLINE_TEST_VERSIONS, with commas; default the oldest and newest. */
export function testVersions(): EmbeddedPostgresVersion[] {
  const wanted = (process.env['TRUNKLINE_TEST_VERSIONS'] ?? '12,18').split(',').map((version) => version.trim())
  return wanted.map((version) => {
    const known = KNOWN.find((candidate) => candidate === version)
    if (known !== undefined) return known
    throw new Error(`Expected TRUNKLINE_TEST_VERSIONS to name versions of ${KNOWN.join(', ')}, found "${version}".`)
  })
}

/**
 * Tells whether a suite has to be skipped because the machine lacks what it needs: `describe.skipIf(isMissing(…))`. A
 * skip prints one line, and is a failure with TRUNKLINE_REQUIRE_ALL=1 (set in CI).
 *
 * @param mend how to provide it.
 */
export function isMissing(requirement: string, isThere: boolean, mend: string): boolean {
  if (isThere) return false
  const message = `${requirement} is not there: ${mend}.`
  if (process.env['TRUNKLINE_REQUIRE_ALL'] === '1') throw new Error(message)
  console.warn(`Skipped: ${message}`)
  return true
}

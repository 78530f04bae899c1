import { Command } from 'commander'
import { TrunklineError } from '../../core/index.ts'
import { checkServerVersion, toTrunklineError } from '../../postgres/index.ts'
import { type CommandContext, CommandFailed, withContext } from '../context.ts'
import { error, type Finding, type Patient } from '../doctor/finding.ts'
import { checkListen } from '../doctor/listen.ts'
import { checkLog } from '../doctor/log.ts'
import { checkObjects, checkOwners } from '../doctor/objects.ts'
import { checkFoundation } from '../doctor/schema.ts'
import { checkOwnTriggers, checkTables } from '../doctor/tables.ts'
import { checkTransactions } from '../doctor/transactions.ts'

/** `trunkline doctor` */
export function doctorCommand(signal: AbortSignal): Command {
  return new Command('doctor')
    .summary('what is wrong with this database for trunkline, and the mend')
    .description('Looks for what is wrong with this database for trunkline. Exits 1 when it finds an error.')
    .addHelpText(
      'after',
      `
Examples:
  trunkline doctor
  trunkline doctor --json | jq 'select(.severity == "error")'`,
    )
    .action(async (_options: object, command: Command) => {
      await withContext(command, signal, visit)
    })
}

async function visit(context: CommandContext): Promise<void> {
  const findings = await examine(context)
  for (const finding of findings) context.print({ ...finding }, textOf(finding))
  if (!context.isJson && findings.length === 0) context.print({}, 'Nothing is wrong.')
  if (findings.some(({ severity }) => severity === 'error')) throw new CommandFailed()
}

async function examine(context: CommandContext): Promise<Finding[]> {
  const db = context.pool()
  try {
    const { rows } = await db.query<{ version: number }>(
      "select current_setting('server_version_num')::integer as version",
    )
    const version = rows[0]?.version ?? 0
    const tooOld = checkVersion(version)
    if (tooOld !== undefined) return [tooOld]
    const patient: Patient = { db, schema: context.schema, version }
    const findings: Finding[] = []
    for (const check of [checkFoundation, checkObjects, checkAll]) {
      // Without one of the first two, the next cannot even be asked.
      if (!findings.some(({ severity }) => severity === 'error')) findings.push(...(await check(patient)))
    }
    return [...findings, ...(await checkListen(context.listenUrl, db))]
  } catch (failure) {
    throw toTrunklineError(failure, 'Examining the database')
  }
}

async function checkAll(patient: Patient): Promise<Finding[]> {
  const findings: Finding[] = []
  for (const check of [checkOwners, checkTables, checkOwnTriggers, checkLog, checkTransactions])
    findings.push(...(await check(patient)))
  return findings
}

function checkVersion(version: number): Finding | undefined {
  try {
    checkServerVersion(version)
    return undefined
  } catch (failure) {
    if (!(failure instanceof TrunklineError)) throw failure
    return error(failure.code, failure.message, 'Upgrade the server.')
  }
}

function textOf({ severity, code, what, mend }: Finding): string {
  return `${severity}: ${what} [${code}]\n  ${mend}`
}

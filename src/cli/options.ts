import { type Command, Option } from 'commander'

/** What every command takes, before or after its name. */
export interface GlobalOptions {
  readonly url?: string
  readonly schema?: string
  readonly json?: boolean
  readonly config?: string
}

/** Adds the options of every command. */
export function addGlobalOptions(command: Command): void {
  command
    .addOption(new Option('--url <url>', 'PostgreSQL URL; default: DATABASE_URL'))
    .addOption(new Option('--schema <name>', 'schema of trunkline; default: TRUNKLINE_SCHEMA, else trunkline'))
    .addOption(new Option('--json', 'print one JSON object a line on standard output, and nothing else there'))
    .addOption(
      new Option('--config <file>', 'configuration module; default: trunkline.config.ts (or .js, .mjs), if there'),
    )
}

/** For options that may be given several times. */
export function collect(value: string, before: readonly string[] = []): string[] {
  return [...before, value]
}

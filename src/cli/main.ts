#!/usr/bin/env node
import { enableCompileCache } from 'node:module'

// A third of the time to start, from the second time on.
enableCompileCache()
// Loading the commands takes longer than some supervisors wait.
const { catchSignals } = await import('./signals.ts')
const signals = catchSignals()
const { runCommandLine } = await import('./run.ts')

process.exitCode = await runCommandLine(process.argv.slice(2), signals)
// All is done. What a broker's client still waits for keeps nobody.
setTimeout(() => process.exit(), 1_000).unref()

import { styleText } from 'node:util'
import { describeEvent, isBad } from './describe.ts'
import { type DemoEvent } from './events.ts'
import { LiveView } from './live-view.ts'

/** Where the demo's events go. */
export interface View {
  tell(event: DemoEvent): void
}

/** One JSON object a line with --json, a table that is redrawn on a terminal, else a line for each event. */
export function createView(isJson: boolean, output: NodeJS.WriteStream): View {
  if (isJson) return { tell: (event) => void output.write(`${JSON.stringify(event)}\n`) }
  return output.isTTY ? new LiveView(output) : { tell: (event) => void output.write(`${lineOf(event, output)}\n`) }
}

function lineOf(event: DemoEvent, output: NodeJS.WriteStream): string {
  const line = describeEvent(event)
  return isBad(event) ? styleText('red', line, { stream: output }) : line
}

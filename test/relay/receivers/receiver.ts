import type { BrokerProcess, TcpProxy } from '../../support/index.ts'

/** Where the relays of a campaign deliver to, in CloudEvents; it keeps all that arrives, in order. */
export interface Receiver extends AsyncDisposable {
  /** What the relays are given. */
  readonly sinkUrl: string
  /** Between the relays and the server. */
  readonly proxy?: TcpProxy
  readonly server?: Pick<BrokerProcess, 'start' | 'stop'>
  /** How much has arrived, roughly: a number that grows. May fail while the server is down. */
  count(): Promise<number>
  /** The bodies of all that arrived, each key's in the order of arrival. */
  bodies(): Promise<readonly string[]>
}

/** What the campaign compares of a body. */
export interface Arrived {
  readonly id: string
  readonly key: string
  readonly n: number
}

export function toArrived(body: string): Arrived {
  const { id, subject, data } = JSON.parse(body) as { id: string; subject: string; data: { n: number } }
  return { id, key: subject, n: data.n }
}

import type { Trunkline } from '../../src/index.ts'
import { eventually, type Standby } from '../support/index.ts'
import type { Findings, Trouble } from './campaign-load.ts'
import { disconnect, type Fleet, follow, nameOf, untilServing, withClient } from './fleet.ts'

/** What is done to a server, and undone. */
interface Fault {
  readonly name: string
  /** Requests may fail by it. */
  readonly isPrimarys?: boolean
  begin(): Promise<unknown>
  end(): Promise<unknown>
}

const nothing = async (): Promise<void> => undefined

export interface FaultsOptions {
  readonly fleet: Fleet
  readonly trunkline: Trunkline
  readonly findings: Findings
  readonly trouble: Trouble
  /** Pairs to wait for during and after each fault. */
  readonly spell: number
}

/** One fault after the other, each healed before the next, while the load goes on. */
export class Faults {
  readonly #options: FaultsOptions
  readonly #faults: readonly Fault[]
  readonly told: Record<string, number> = {}
  #turn = 0

  constructor(options: FaultsOptions) {
    this.#options = options
    const { standbys, proxies } = options.fleet
    const primarys = primaryFaults(options.fleet)
    // Every one of the primary once a round.
    this.#faults = standbys.flatMap((standby, place) =>
      standbyFaults(standby, proxies[place]!).concat(primarys.filter((_, each) => each % standbys.length === place)),
    )
  }

  /** True when each came. */
  get hasHadAll(): boolean {
    return this.#turn >= this.#faults.length
  }

  async next(): Promise<void> {
    const { trunkline, trouble } = this.#options
    const fault = this.#faults[this.#turn % this.#faults.length]!
    this.#turn += 1
    this.told[fault.name] = (this.told[fault.name] ?? 0) + 1
    if (fault.isPrimarys === true) trouble.begin()
    await fault.begin()
    await this.#more(fault.isPrimarys === true)
    await fault.end()
    if (fault.isPrimarys === true) {
      await this.#untilPrimary(nameOf(this.#options.fleet.primaryProxy.url))
      trouble.end()
    }
    await untilServing(trunkline, 2)
    await this.#more()
  }

  /**
   * The primary crashes under load, and a standby is promoted that lacks the last writes; the other one, which has even less,
   * follows it.
   */
  async failOver(): Promise<void> {
    const { fleet, trouble } = this.#options
    const [promoted, follower] = fleet.standbys as [Standby, Standby]
    // So that it is none of those whose history is ahead of the new one.
    await disconnect(follower)
    await this.#more()
    await disconnect(promoted)
    await this.#more()
    trouble.begin()
    await fleet.primary.postgres.stop('immediate')
    await promoted.promote()
    await follow(follower, promoted)
    await this.#untilPrimary(nameOf(fleet.replicaUrls[0]!))
    trouble.end()
  }

  async #untilPrimary(name: string): Promise<void> {
    await eventually(() => this.#options.trunkline.routing.status().primary === name, {
      what: `${name} is the primary`,
      timeoutMs: 30_000,
    })
  }

  /** Lets the load go on for a while: successes, or, where the primary is gone, whatever comes. */
  async #more(isFailing = false): Promise<void> {
    const { findings, spell } = this.#options
    const pairs = findings.pairs + spell
    const told = findings.toldCount + 12
    await eventually(() => findings.pairs >= pairs || (isFailing && findings.toldCount >= told), {
      what: `the load goes on (${this.#turn} faults)`,
      timeoutMs: 60_000,
    })
  }
}

function standbyFaults(standby: Standby, proxy: Fleet['proxies'][number]): Fault[] {
  return [
    { name: 'paused', begin: async () => standby.pauseReplay(), end: async () => standby.resumeReplay() },
    { name: 'reset', begin: async () => proxy.reset(), end: nothing },
    { name: 'cut', begin: async () => proxy.cut(), end: async () => proxy.resume() },
    { name: 'delayed', begin: async () => setDelay(standby, '150ms'), end: async () => setDelay(standby, '0') },
    {
      name: 'killed',
      begin: async () => standby.postgres.stop('immediate'),
      end: async () => standby.postgres.start(),
    },
    { name: 'stalled', begin: async () => proxy.stall(), end: async () => proxy.resume() },
    { name: 'restarted', begin: async () => standby.postgres.restart('fast'), end: nothing },
  ]
}

function primaryFaults({ primary: { postgres }, primaryProxy: proxy }: Fleet): Fault[] {
  const isPrimarys = true
  return [
    { isPrimarys, name: 'primary cut', begin: async () => proxy.cut(), end: async () => proxy.resume() },
    { isPrimarys, name: 'primary stalled', begin: async () => proxy.stall(), end: async () => proxy.resume() },
    { isPrimarys, name: 'primary reset', begin: async () => proxy.reset(), end: nothing },
    {
      isPrimarys,
      name: 'primary killed',
      begin: async () => postgres.stop('immediate'),
      end: async () => postgres.start(),
    },
  ]
}

async function setDelay(standby: Standby, delay: string): Promise<void> {
  await withClient(standby.postgres.url, async (client) => {
    await client.query(`alter system set recovery_min_apply_delay = '${delay}'`)
    await client.query('select pg_reload_conf()')
  })
}

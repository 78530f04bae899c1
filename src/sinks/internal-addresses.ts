import { lookup } from 'node:dns'
import { BlockList, isIP, type LookupFunction } from 'node:net'
import { InvalidInputError } from '../core/index.ts'
import { DeliveryError } from '../relay/index.ts'

/**
 * Whether a webhook may reach addresses that are not of the public internet: this machine, private networks, the metadata
 * service of a cloud.
 *
 * - `'as-written'`: when the URL says so itself: an internal address, `localhost`, or a name that cannot be a public one
 *   (without a dot, or under `.localhost`, `.local`, `.internal`, `.home.arpa`, `.svc`). A public name never leads inside.
 * - `false`: never. For URLs that others may choose.
 * - `true`: always.
 * - a list of addresses and networks (`10.1.0.0/16`, `fd00::/8`): only these.
 */
export type InternalAddresses = 'as-written' | boolean | readonly string[]

const notPublicIpv4 = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.0.2.0/24',
  '192.88.99.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
  '198.51.100.0/24',
  '203.0.113.0/24',
  '224.0.0.0/4',
  '240.0.0.0/4',
]
/** Inside of 2000::/3, which alone is public: Teredo and other protocol assignments, documentation, 6to4 with any IPv4 inside. */
const notPublicIpv6 = ['2001::/23', '2001:db8::/32', '2002::/16', '3fff::/20']

const internalIpv4 = blockList(notPublicIpv4)
const internalIpv6 = blockList(notPublicIpv6)
const publicIpv6 = blockList(['2000::/3'])
const internalName = /^(?:[^.]+|.+\.(?:localhost|local|internal|svc)|.+\.home\.arpa|.+\.svc\.cluster\.local)\.?$/i

/** Decides which addresses a host may be reached at. */
export class AddressGuard {
  readonly #host: string
  readonly #allowsAll: boolean
  readonly #allowed: BlockList

  /** @param host as the URL has it; an IPv6 address in brackets. */
  constructor(host: string, allow: InternalAddresses) {
    this.#host = host.replace(/^\[(.*)\]$/, '$1')
    this.#allowsAll = allow === true || (allow === 'as-written' && isInternalAsWritten(this.#host))
    this.#allowed = blockList(typeof allow === 'object' ? allow : [])
  }

  /** For a host that is an address: no name is looked up then, so nothing else would ask. @throws DeliveryError */
  checkHost(): void {
    if (isIP(this.#host) !== 0 && !this.#permits(this.#host)) throw this.#refused([this.#host])
  }

  /** Resolves a name to those of its addresses that are permitted; the connection is made to these and no others. */
  readonly lookup: LookupFunction = (hostname, options, callback) => {
    lookup(hostname, { ...options, all: true }, (error, addresses) => {
      if (error !== null) return callback(error, '', 0)
      const permitted = addresses.filter(({ address }) => this.#permits(address))
      const [first] = permitted
      if (first === undefined) {
        callback(this.#refused(addresses.map(({ address }) => address)), '', 0)
      } else if (options.all === true) {
        callback(null, permitted)
      } else {
        callback(null, first.address, first.family)
      }
    })
  }

  #permits(address: string): boolean {
    if (this.#allowsAll || !isInternal(address)) return true
    return this.#allowed.check(address, familyOf(address))
  }

  #refused(addresses: readonly string[]): DeliveryError {
    return new DeliveryError(
      `The webhook's host ${this.#host} is at ${addresses.join(', ')}, which is no public address, and such ones are not allowed.`,
      {
        code: 'internal_address',
        retryable: true,
        hint: 'Allow its network with internalAddresses, if events may go there.',
        details: { host: this.#host, addresses },
      },
    )
  }
}

/** True for every address that is not of the public internet. */
export function isInternal(address: string): boolean {
  if (familyOf(address) === 'ipv4') return internalIpv4.check(address, 'ipv4')
  return !publicIpv6.check(address, 'ipv6') || internalIpv6.check(address, 'ipv6')
}

function isInternalAsWritten(host: string): boolean {
  return isIP(host) === 0 ? internalName.test(host) : isInternal(host)
}

function familyOf(address: string): 'ipv4' | 'ipv6' {
  return isIP(address) === 4 ? 'ipv4' : 'ipv6'
}

function blockList(networks: readonly string[]): BlockList {
  const list = new BlockList()
  for (const network of networks) {
    const [address = '', prefix, ...more] = network.split('/')
    const family = isIP(address) === 4 ? 'ipv4' : 'ipv6'
    try {
      // An empty prefix would be the number 0, and the network everything.
      if (more.length > 0 || (prefix !== undefined && !/^\d{1,3}$/.test(prefix)))
        throw new Error('The prefix is no number.')
      list.addSubnet(address, prefix === undefined ? (family === 'ipv4' ? 32 : 128) : Number(prefix), family)
    } catch (error) {
      throw new InvalidInputError(`internalAddresses has "${network}", which is no address or network.`, {
        code: 'invalid_network',
        hint: 'Write 10.1.2.3, 10.1.0.0/16 or fd00::/8.',
        cause: error,
      })
    }
  }
  return list
}

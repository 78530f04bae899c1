import { isIP } from 'node:net'

/** The host's name for TLS (SNI), without which a server of several names shows the wrong certificate. Addresses have none. */
export function serverNameOf(host: string): { servername?: string } {
  return isIP(host) === 0 ? { servername: host } : {}
}

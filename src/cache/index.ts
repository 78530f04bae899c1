export {
  Cache,
  type CacheChange,
  type CacheEvents,
  type CacheOptions,
  type CacheStale,
  type FreshOptions,
  freshTimeoutMs,
} from './cache.ts'
export type { IndexDefinitions, Row } from './rows.ts'

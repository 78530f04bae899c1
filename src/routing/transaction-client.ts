import type { PoolClient } from 'pg'

type Query = (...args: unknown[]) => unknown

/**
 * A transaction's connection as its function sees it. What is sent over it after the end is refused: by then somebody else may have
 * the connection. `release` does nothing: the transaction gives it back.
 *
 * `refusal` gives the error once the function has ended.
 */
export function transactionClient(client: PoolClient, refusal: () => Error | undefined): PoolClient {
  const query: Query = (...args) => {
    const error = refusal()
    if (error === undefined) return (client.query as Query).apply(client, args)
    const [statement] = args
    // A cursor or stream has no promise to reject.
    if (typeof statement === 'object' && statement !== null && 'submit' in statement) throw error
    const callback = args.findLast((each) => typeof each === 'function') as ((error: Error) => void) | undefined
    if (callback === undefined) return Promise.reject(error)
    process.nextTick(callback, error)
    return undefined
  }
  return new Proxy(client, {
    get(target, name) {
      if (name === 'query') return query
      if (name === 'release') return () => undefined
      return Reflect.get(target, name, target) as unknown
    },
  })
}

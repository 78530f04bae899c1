/** What is used of a stream. */
interface DataStream {
  listeners(event: 'data'): unknown[]
  on(event: 'data', listener: (chunk: unknown) => void): this
  off(event: 'data', listener: (chunk: unknown) => void): this
  destroy(error: Error): unknown
}

const guarded = new WeakSet<DataStream>()

/**
 * Catches what those throw who listen for a stream's data: thrown there, it is in nobody's stack and ends the process. The stream is
 * destroyed with it instead, so that whoever uses it hears. For listeners that stand already; twice is harmless.
 *
 * @param toError what the stream is destroyed with; undefined: it is thrown on, being no business of the caller's.
 */
export function guardData(stream: DataStream, toError: (thrown: unknown) => Error | undefined): void {
  if (guarded.has(stream)) return
  guarded.add(stream)
  for (const listener of stream.listeners('data') as ((chunk: unknown) => void)[]) {
    stream.off('data', listener).on('data', (chunk: unknown) => {
      try {
        listener.call(stream, chunk)
      } catch (thrown) {
        const error = toError(thrown)
        if (error === undefined) throw thrown
        stream.destroy(error)
      }
    })
  }
}

/** How long calls in flight are waited for when the relay stops, in milliseconds; then they are told to give up. */
export const stopGraceMs = 10_000
/** The same while the receiver is out of reach: it will hardly confirm them, and they come again at the next start. */
const unreachedGraceMs = 1_000
/** How often it is asked whether the receiver is out of reach, in milliseconds. */
const lookMs = 100

/** Waits for what is begun, as long as a relay that stops may. False: it has not ended. */
export async function endedInTime(begun: Promise<void>, isOutOfReach: () => boolean): Promise<boolean> {
  const since = performance.now()
  const over = Promise.withResolvers<boolean>()
  const look = setInterval(() => {
    if (performance.now() - since >= (isOutOfReach() ? unreachedGraceMs : stopGraceMs)) over.resolve(false)
  }, lookMs)
  try {
    return await Promise.race([begun.then(() => true), over.promise])
  } finally {
    clearInterval(look)
  }
}

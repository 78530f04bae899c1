/** The value below which the given share of the values lies; `share` from 0 to 1. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((one, other) => one - other)
  const place = (sorted.length - 1) * share
  const lower = sorted[Math.floor(place)] ?? Number.NaN
  const upper = sorted[Math.ceil(place)] ?? Number.NaN
  return lower + (upper - lower) * (place - Math.floor(place))
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5)
}

/** Lowest and highest. */
export function spread(values: readonly number[]): [number, number] {
  return [Math.min(...values), Math.max(...values)]
}

/** Values of equal rounds divided one by one: what disturbs a round disturbs both of its values. */
export function ratios(values: readonly number[], bases: readonly number[]): number[] {
  return values.map((value, round) => value / (bases[round] ?? Number.NaN))
}

/** Fisher-Yates with a seed, so that a run can be repeated. */
export function shuffled<Value>(values: readonly Value[], seed = 1): Value[] {
  const result = [...values]
  let state = seed
  for (let place = result.length - 1; place > 0; place -= 1) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7f_ff_ff_ff
    const other = state % (place + 1)
    const value = result[place] as Value
    result[place] = result[other] as Value
    result[other] = value
  }
  return result
}

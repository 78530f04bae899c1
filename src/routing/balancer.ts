import type { Node } from './node.ts'

/**
 * Power of two choices: of two servers drawn at random, weighted, the one with less open work for its weight. A slow server
 * has more open work, so it gets less new, and no two processes herd to the same one.
 */
export function choose(nodes: readonly Node[], random: () => number = Math.random): Node | undefined {
  const first = draw(nodes, random)
  if (first === undefined || nodes.length === 1) return first
  const second = draw(
    nodes.filter((node) => node !== first),
    random,
  )
  if (second === undefined) return first
  // On a tie the first: it was drawn by weight, so that idle servers share by weight, too.
  return second.open / second.weight < first.open / first.weight ? second : first
}

function draw(nodes: readonly Node[], random: () => number): Node | undefined {
  if (nodes.length < 2) return nodes[0]
  const total = nodes.reduce((sum, { weight }) => sum + weight, 0)
  let left = random() * total
  return nodes.find(({ weight }) => (left -= weight) < 0) ?? nodes.at(-1)
}

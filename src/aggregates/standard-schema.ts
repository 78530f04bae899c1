/**
 * What trunkline asks of a schema library: the interface of Standard Schema (standardschema.dev), version 1. Zod, Valibot,
 * ArkType and others have it.
 */
export interface StandardSchema<Input = unknown, Output = unknown> {
  readonly '~standard': {
    readonly version: 1
    readonly vendor: string
    readonly validate: (value: unknown) => SchemaResult<Output> | Promise<SchemaResult<Output>>
    /** For the compiler only. */
    readonly types?: { readonly input: Input; readonly output: Output } | undefined
  }
}

/** A value, or what is wrong with the one that was given. */
export type SchemaResult<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | { readonly issues: readonly SchemaIssue[] }

export interface SchemaIssue {
  readonly message: string
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined
}

/** Issues that a message names, at most. */
const issuesNamedMax = 5

/**
 * What is wrong with a value, each with its path; undefined: nothing. `secret`: paths of fields of which nothing may be told but
 * where they are. Some libraries put the value into their messages.
 */
export async function problemsOf(
  schema: StandardSchema,
  value: unknown,
  secret: readonly string[] = [],
): Promise<string[] | undefined> {
  const answer = schema['~standard'].validate(value)
  const result = answer instanceof Promise ? await answer : answer
  return result.issues?.map((issue) => describe(issue, secret))
}

/** A list of problems as one text. */
export function joinProblems(problems: readonly string[]): string {
  const named = problems.slice(0, issuesNamedMax).join('; ')
  return problems.length > issuesNamedMax ? `${named}; and ${problems.length - issuesNamedMax} more` : named
}

function describe({ message, path = [] }: SchemaIssue, secret: readonly string[]): string {
  const place = path.map((part) => String(typeof part === 'object' ? part.key : part)).join('.')
  // An issue of what a secret field is in may be about it, too.
  const isSecret = secret.some(
    (field) => place === '' || `${place}.`.startsWith(`${field}.`) || field.startsWith(`${place}.`),
  )
  if (isSecret) return `${place === '' ? 'the payload' : place}: not as it should be (personal data is not told)`
  return place === '' ? message : `${place}: ${message}`
}

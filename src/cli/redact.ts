/** What examples in hints say: nobody's password. */
const placeholder = 'user:password@'

/** A text in which no URL shows its password or its parameters' secrets. */
export function redact(text: string): string {
  return (
    text
      // Up to the last @: a password may hold one that its writer did not encode.
      .replaceAll(/([a-z][a-z0-9+.-]*:\/\/)([^\s:/@]*):[^\s]*@/gi, (found, scheme: string, user: string) =>
        found === scheme + placeholder ? found : `${scheme}${user}:***@`,
      )
      .replaceAll(/((?:password|passwd|pwd|token|secret|sslkey)=)[^\s&'"]+/gi, '$1***')
  )
}

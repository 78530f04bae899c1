/** A text in which no URL shows its password or its parameters' secrets. */
export function redact(text: string): string {
  return text
    .replaceAll(/([a-z][a-z0-9+.-]*:\/\/[^\s:/@]*):[^\s@]*@/gi, '$1:***@')
    .replaceAll(/((?:password|passwd|pwd|token|secret|sslkey)=)[^\s&'"]+/gi, '$1***')
}

// Loaded before a program: lets it find none of the brokers' clients, as if they had not been installed.
import { registerHooks } from 'node:module'

registerHooks({
  resolve(specifier, context, next) {
    if (/^(?:@platformatic\/kafka|rabbitmq-client|@nats-io\/|@redis\/client|mqtt)/.test(specifier)) {
      throw Object.assign(new Error(`Cannot find package '${specifier}'`), { code: 'ERR_MODULE_NOT_FOUND' })
    }
    return next(specifier, context)
  },
})

export {
  type BackendFilter,
  backendPid,
  findBackends,
  terminateBackends,
  untilBackends,
  untilBlocked,
} from './backends.ts'
export {
  type TestDatabase,
  type TestDatabaseOptions,
  type TestRole,
  createDatabase,
  ensureTemplate,
  useDatabase,
} from './database.ts'
export { type EventuallyOptions, eventually, eventuallyPasses } from './eventually.ts'
export { type BrokerProcess } from './broker-process.ts'
export {
  brokerPassword,
  brokerUser,
  lacksMosquitto,
  lacksNats,
  lacksRedis,
  messageBytesMax,
  startMosquitto,
  startNats,
  startRedis,
} from './brokers.ts'
export { type Kafka, kafkaPassword, kafkaUser, lacksKafka, startKafka } from './kafka.ts'
export { type OwnCluster, ownCluster } from './own-cluster.ts'
export { type PgBouncer, type PgBouncerOptions, lacksPgBouncer, startPgBouncer } from './pgbouncer.ts'
export { lacksRabbitMq, rabbitPassword, rabbitUser, startRabbitMq } from './rabbitmq.ts'
export { isMissing } from './requirement.ts'
export { OWNER_ROLE, type TestServer, USER_ROLE, describeEachPostgres, describeEachVersion } from './server.ts'
export { type BrokerKind, findSharedBroker } from './shared-broker.ts'
export { type Standby, createStandby } from './standby.ts'
export { type TcpProxy, startTcpProxy } from './tcp-proxy.ts'

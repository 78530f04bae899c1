/** Data of a test is lost with the machine anyway: no flush, and little memory a server. */
export const TEST_CLUSTER_SETTINGS: Readonly<Record<string, string>> = {
  fsync: 'off',
  synchronous_commit: 'off',
  full_page_writes: 'off',
  shared_buffers: '64MB',
  max_prepared_transactions: '50',
}

/** All test files of a run share these servers, several at once. */
export const SHARED_CLUSTER_SETTINGS: Readonly<Record<string, string>> = {
  ...TEST_CLUSTER_SETTINGS,
  max_connections: '400',
}

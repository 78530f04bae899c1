import { type Row } from '../../index.ts'

/** What the main process asks an instance. Every question is answered by the message of the same id. */
export type Question =
  | { readonly ask: 'status' }
  /** Waits until all that had committed is in the caches, then gives a fingerprint of every row. */
  | { readonly ask: 'fingerprints' }
  /** The rows of a table in full, in the order of their keys: to find out what differs. */
  | { readonly ask: 'rows'; readonly table: string }
  | { readonly ask: 'stop' }

/** What an instance answers to each question. */
export interface Answers {
  status: InstanceStatus
  fingerprints: readonly TableFingerprint[]
  rows: readonly Row[]
  stop: undefined
}

export type Request = Question & { readonly id: number }

/** What an instance says. */
export type Message =
  | { readonly tell: 'ready'; readonly copy: CopyFigures }
  | ({ readonly tell: 'seen' } & Seen)
  | { readonly tell: 'warning'; readonly text: string }
  | { readonly tell: 'answer'; readonly id: number; readonly answer: Answers[Question['ask']] }
  | { readonly tell: 'failure'; readonly id: number | undefined; readonly text: string }

/** What the first copy of the largest table took. */
export interface CopyFigures {
  readonly table: string
  readonly rows: number
  readonly copyMs: number
  /** Of the heap, indexes included. */
  readonly bytesPerRow: number
}

/** One step of an instance's caches: the transactions whose rows became visible with it. */
export interface Seen {
  /** By the machine's monotonic clock. */
  readonly atMs: number
  readonly revisions: readonly RevisionRows[]
}

export interface RevisionRows {
  readonly revision: number
  /** Rows written by it that became visible, over all tables. */
  readonly rows: number
}

export interface InstanceStatus {
  /** How it learns of commits at present. */
  readonly mode: 'listen' | 'poll'
  readonly isLive: boolean
  /** A read without any I/O, made to answer this: the name of a country. */
  readonly read: string | undefined
}

/** All rows of a cache, each as a hash, in the order of their keys. */
export interface TableFingerprint {
  readonly table: string
  /** Eight bytes a row. */
  readonly hashes: Uint8Array
  /** SHA-256 over the columns' names and all hashes. */
  readonly digest: string
}

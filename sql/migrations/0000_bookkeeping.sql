-- What of this directory is applied: read and written by the migration runner, and by the file that
-- `trunkline migrate --print` makes.
--
-- Locks: creates new objects only; touches no table of the application.
-- By hand: create schema trunkline; then psql -v schema=trunkline -f 0000_bookkeeping.sql

create table :"schema".migration (
  number smallint primary key,
  name text not null,
  -- SHA-256 of the file's text, before the schema's name is put in.
  checksum text not null,
  applied_at timestamptz not null default now()
);

-- Routines are replaced when their text changes.
create table :"schema".routine (
  name text primary key,
  checksum text not null,
  -- The package that wrote it: an older one does not write over it.
  version text not null,
  applied_at timestamptz not null default now()
);

-- The inbox: which messages a consumer has handled, written in the transaction that handles them.
--
-- Locks: creates new objects; adds a column with a constant default to the one-row table installation (no rewrite).
-- By hand: psql -v schema=trunkline -f 0003_inbox.sql

create table :"schema".inbox (
  consumer text not null,
  message_id text not null,
  handled_at timestamptz not null default now(),
  primary key (consumer, message_id)
);

-- For cleaning by age.
create index inbox_handled_at on :"schema".inbox (handled_at);

-- How long a handled message is remembered: longer than any broker delivers it again.
alter table :"schema".installation add column inbox_retention interval not null default '30 days';

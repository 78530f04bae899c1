-- Checkpoints of relays become rows that are only ever added: an update leaves a dead version behind, and while any
-- transaction stays open none of them can be taken away, so that each save of 16 rows made the next one dearer.
--
-- Locks: creates new objects; takes ACCESS EXCLUSIVE on relay_slot (16 rows a relay) for a moment: relays wait.
-- By hand: psql -v schema=trunkline --single-transaction -f 0007_relay_checkpoints.sql

-- Written to one of two children in turn; the other is emptied by TRUNCATE when it holds nothing that counts any more
-- (relay_turn()). What counts of a slot is the row with the highest id. See relay_place.
create table :"schema".relay_checkpoint (
  -- Children inherit a default, not an identity.
  -- squawk-ignore prefer-identity
  id bigserial not null,
  relay text not null,
  slot smallint not null,
  position text not null,
  snapshot txid_snapshot not null
);

create table :"schema".relay_checkpoint_0 () inherits (:"schema".relay_checkpoint);
create table :"schema".relay_checkpoint_1 () inherits (:"schema".relay_checkpoint);
create index relay_checkpoint_0_place on :"schema".relay_checkpoint_0 (relay, slot, id);
create index relay_checkpoint_1_place on :"schema".relay_checkpoint_1 (relay, slot, id);

-- One row: which child is written to.
create table :"schema".relay_turn (
  only_row boolean primary key default true check (only_row),
  side smallint not null default 0 check (side in (0, 1)),
  -- The last id before it was the turn of this child.
  first_id bigint not null default 0,
  -- Rows after which the other child is written to.
  rows_max bigint not null default 20000,
  -- What counts of the other child has been copied.
  copied boolean not null default false,
  -- Of the last step: between two of them whoever reads must have ended.
  changed_at timestamptz not null default now(),
  pause interval not null default '10 seconds'
);

insert into :"schema".relay_turn default values;

insert into :"schema".relay_checkpoint_0 (relay, slot, position, snapshot)
select s.relay, s.slot, s.position, s.snapshot from :"schema".relay_slot as s;

-- They return the columns that go, or take part in what is new.
drop view if exists :"schema".outbox;
drop function if exists :"schema".relay_take;
drop function if exists :"schema".relay_due;
drop function if exists :"schema".relay_settle_attempts;
-- squawk-ignore ban-drop-column
alter table :"schema".relay_slot drop column position;
-- squawk-ignore ban-drop-column
alter table :"schema".relay_slot drop column snapshot;
-- squawk-ignore ban-drop-column
alter table :"schema".relay_slot drop column updated_at;

-- Slots with how far each of them is: all before that position is delivered, or stored as failed. (No routine: the view outbox,
-- which is one, stands on it.)
create view :"schema".relay_place as
select s.relay, s.slot, s.owner, s.epoch, s.suspect, c.position, c.snapshot
from :"schema".relay_slot as s
cross join lateral (
  select p.position, p.snapshot from :"schema".relay_checkpoint as p
  where p.relay = s.relay and p.slot = s.slot
  order by p.id desc limit 1
) as c;

-- What is due soonest. Deliveries that wait behind another of their key have the time infinity: nobody looks at them before
-- it is their turn.
-- squawk-ignore require-concurrent-index-creation
create index failed_delivery_due on :"schema".failed_delivery (relay, retry_at, id) where state = 'retry';

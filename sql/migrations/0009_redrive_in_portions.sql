-- Dead letters that are redriven wait in a state of their own until their relay takes them up, some hundreds at a time: 200,000
-- at once made every look for what is due as long as there were many, and left no room for what is read from the log.
--
-- Locks: takes ACCESS EXCLUSIVE on failed_delivery while it is read once: relays wait.
-- By hand: psql -v schema=trunkline --single-transaction -f 0009_redrive_in_portions.sql

alter table :"schema".failed_delivery drop constraint failed_delivery_state_check;
-- retry: to be attempted from retry_at on, when it is the first of its key; dead: a dead letter; redrive: one that is to be attempted
-- anew, and not taken up yet; done: delivered, and kept until the slot's position covers it.
-- squawk-ignore constraint-missing-not-valid
alter table :"schema".failed_delivery add constraint failed_delivery_state_check check (state in ('retry', 'dead', 'redrive', 'done'));

-- squawk-ignore require-concurrent-index-creation
create index failed_delivery_redrive on :"schema".failed_delivery (relay, slot, id) where state = 'redrive';

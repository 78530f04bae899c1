-- True when a reader of the topic is asleep: it holds the lock shared then. An eventcount
-- (docs/log.md, "Waking"). One CASE, so that no interrupt can come between lock and unlock: a
-- session that kept the lock would keep readers from sleeping. Inlined into its callers.
-- Another writer that asks at the same moment holds the lock exclusively: it refuses us the shared one too, and
-- proves that no reader has it. Without that look two writers would notify all listeners for each other's sake.
create or replace function :"schema".somebody_sleeps(lock_class integer, lock_key integer) returns boolean
language sql
volatile
as $function$
  select case
    when pg_catalog.pg_try_advisory_lock($1, $2) then not pg_catalog.pg_advisory_unlock($1, $2)
    when not pg_catalog.pg_try_advisory_lock_shared($1, $2) then false
    when not pg_catalog.pg_advisory_unlock_shared($1, $2) then true
    when pg_catalog.pg_try_advisory_lock($1, $2) then not pg_catalog.pg_advisory_unlock($1, $2)
    else true
  end
$function$;

revoke execute on function :"schema".somebody_sleeps from public;

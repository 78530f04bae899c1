-- Keeps the log bounded: empties children that are past retention and that every durable reader has
-- passed, and moves writers on to the next child when the present one has served half the retention.
-- Returns what it did: 'rotated', 'truncated', 'nothing' or 'busy'. Safe to call at any time from any
-- number of processes; never waits for more than the lock timeout, and no writer ever waits for it.
create or replace function :"schema".rotate() returns text
language plpgsql
security definer
set search_path = pg_catalog, :"schema", pg_temp
set lock_timeout = '100ms'
as $function$
declare
  place installation%rowtype;
  present constant integer := log_slot();
  following constant integer := (present + 1) % 3;
  candidate slot%rowtype;
  done text := 'nothing';
begin
  select * into strict place from installation;
  if not pg_try_advisory_xact_lock(place.lock_class::integer, -1) then
    return 'busy';
  end if;

  for candidate in
    select * from slot as s where s.slot <> present and s.closed_at < now() - place.retention
  loop
    if empty_slot(candidate.slot, place.hold) then
      done := 'truncated';
    end if;
  end loop;

  if (select s.opened_at < now() - place.retention / 2 from slot as s where s.slot = present)
    and (select s.opened_at is null from slot as s where s.slot = following)
  then
    execute format(
      'create or replace function %s.log_slot() returns integer language sql stable as %L',
      (select relnamespace::regnamespace from pg_class where oid = 'log'::regclass),
      'select ' || following
    );
    update slot as s set closed_at = clock_timestamp() where s.slot = present;
    update slot as s set opened_at = clock_timestamp(), closed_at = null where s.slot = following;
    -- Those that rows are still read by stay, however old: a reader far behind goes from one to the next.
    delete from tick as t using installation as i
    where txid_snapshot_xmax(t.snapshot) <= i.truncated_xid and t.xid <= i.truncated_xid;
    done := 'rotated';
  end if;
  return done;
end
$function$;

revoke execute on function :"schema".rotate from public;

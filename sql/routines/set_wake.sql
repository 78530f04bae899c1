-- Sets who is told of a commit, for all tables without a setting of their own and for events:
--   'elided'  NOTIFY only when a reader sleeps (default)
--   'always'  NOTIFY in every transaction that writes to the log
--   'off'     never; readers poll. Needed where PREPARE TRANSACTION is used, which refuses after NOTIFY
create or replace function :"schema".set_wake(mode text) returns void
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
begin
  if mode is null or mode not in ('elided', 'always', 'off') then
    raise exception using errcode = 'TL005', message = format('wake is %L, expected ''elided'', ''always'' or ''off''', mode),
      hint = 'For example: select trunkline.set_wake(''elided'').';
  end if;
  perform pg_advisory_xact_lock(hashtextextended('trunkline set_wake', 'log'::regclass::oid::bigint));
  execute format(
    'create or replace function %s.wake_mode() returns text language sql stable as %L',
    (select relnamespace::regnamespace from pg_class where oid = 'log'::regclass),
    format('select %L::text', mode)
  );
end
$function$;

revoke execute on function :"schema".set_wake from public;

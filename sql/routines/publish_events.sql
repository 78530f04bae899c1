-- Has the events of these aggregate types written to the log too, from here on, so that relays deliver them: the type is the
-- topic, the aggregate's id the key. These and no others: call it with all of them; with none to publish nothing. Idempotent.
-- Waits for appends under way, and appends wait for it, for a moment.
create or replace function :"schema".publish_events(variadic categories text[] default '{}') returns void
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  wanted constant text[] := coalesce((select array_agg(distinct c order by c) from unnest(categories) as c), '{}');
  wrong text;
  present text[];
  target constant text := (select format('%I.event', n.nspname) from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = 'event'::regclass);
begin
  select format('%L', c) into wrong from unnest(categories) as c where c is null or c = '' or c like '%-%' limit 1;
  if wrong is not null then
    raise exception using errcode = 'TL005', message = format('publish_events: %s is no type of aggregates', wrong),
      hint = 'Name the part of the streams before the first ''-'', for example: select publish_events(''order'').';
  end if;
  -- Two at once: one after the other.
  select i.published into present from installation as i for update;
  if present = wanted then
    return;
  end if;
  update installation as i set published = wanted;
  if present <> '{}' then
    execute format('drop trigger event_publish on %s', target);
  end if;
  if wanted = '{}' then
    return;
  end if;
  insert into topic (id, name)
  select hashtextextended(w, 0), w from unnest(wanted) as w
  where not exists (select from topic as t where t.id = hashtextextended(w, 0));
  execute format(
    'create trigger event_publish after insert on %s referencing new table as trunkline_new for each statement execute function %s.publish_event(%s)',
    target, split_part(target, '.event', 1), (select string_agg(quote_literal(w), ', ') from unnest(wanted) as w)
  );
end
$function$;

revoke execute on function :"schema".publish_events from public;

-- Of the triggers a captured table must have, those that are missing, differ, or are disabled.
create or replace function :"schema".missing_triggers(spec :"schema".topic)
returns table (relation oid, name text, event text, function_name text, arguments text[], stands boolean)
language sql
stable
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  select w.relation, w.name, w.event, w.function_name, w.arguments, t.oid is not null
  from wanted_triggers(spec) as w
  left join pg_trigger as t on t.tgrelid = w.relation and t.tgname = w.name::name
  where t.oid is null
    or t.tgenabled not in ('O', 'A')
    or t.tgfoid is distinct from (select p.oid from pg_proc as p
      where p.proname = w.function_name and p.pronamespace = (select l.relnamespace from pg_class as l where l.oid = 'log'::regclass))
    -- Stored as text after text, each ended by a zero byte.
    or t.tgargs <> (select decode(string_agg(encode(convert_to(a.argument, getdatabaseencoding()), 'hex') || '00', '' order by a.place), 'hex')
      from unnest(w.arguments) with ordinality as a (argument, place))
$function$;

revoke execute on function :"schema".missing_triggers from public;

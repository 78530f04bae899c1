-- Names the rules by which rows of a topic enter the log: changes when they do.
create or replace function :"schema".topic_rules(spec :"schema".topic) returns text
language sql
stable
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  select md5(concat_ws('|', spec.rows, spec.exclude::text, spec.filter, spec.key_columns::text))
$function$;

revoke execute on function :"schema".topic_rules from public;

-- Changes when rows of the topic have to be decoded in another way: with the table's name, its columns, its
-- primary key, and what of it is captured. Readers ask with each page. Events need nothing: ''.
create or replace function :"schema".topic_signature(topic_id bigint) returns text
language sql
stable
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  select case when t.relation is null then '' else md5(concat_ws('|',
    t.name, t.rows, t.exclude, t.key_columns, n.nspname, c.relname,
    (select i.indkey::text from pg_index as i where i.indrelid = t.relation and i.indisprimary),
    (select string_agg(concat_ws(' ', a.attnum, a.attname, a.atttypid, a.atttypmod), ',' order by a.attnum)
      from pg_attribute as a where a.attrelid = t.relation and a.attnum > 0 and not a.attisdropped)
  )) end
  from topic as t
  left join pg_class as c on c.oid = t.relation
  left join pg_namespace as n on n.oid = c.relnamespace
  where t.id = topic_id
  limit 1
$function$;

revoke execute on function :"schema".topic_signature from public;

-- The keys of subjects (a JSON list). Those who are forgotten have a row without a secret; of the unknown there is none.
create or replace function :"schema".subject_keys(in_subjects text)
returns table (subject text, key_id text, secret text, master_key text)
language sql
stable
-- Nobody needs a right to the table.
security definer
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  select k.subject, k.key_id::text, k.secret, k.master_key
  from subject_key as k
  where k.subject in (select json_array_elements_text(in_subjects::json))
$function$;

revoke execute on function :"schema".subject_keys from public;

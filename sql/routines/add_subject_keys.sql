-- Adds keys of subjects who have none yet, and returns those that hold: of two who add at the same time the second waits, and gets
-- the key of the first. in_keys: a JSON list of {subject, key_id, secret, master_key}.
create or replace function :"schema".add_subject_keys(in_keys text)
returns table (subject text, key_id text, secret text, master_key text)
language plpgsql
-- Nobody needs a right to the table.
security definer
set search_path = pg_catalog, :"schema", pg_temp
as $function$
#variable_conflict use_column
begin
  -- In one order, so that two transactions do not wait for each other.
  insert into subject_key (subject, key_id, secret, master_key)
  select k.subject, k.key_id, k.secret, k.master_key
  from json_to_recordset(in_keys::json) as k (subject text, key_id uuid, secret text, master_key text)
  order by k.subject
  on conflict do nothing;
  return query
  select k.subject, k.key_id::text, k.secret, k.master_key
  from subject_key as k
  where k.subject in (select n.subject from json_to_recordset(in_keys::json) as n (subject text));
end
$function$;

revoke execute on function :"schema".add_subject_keys from public;

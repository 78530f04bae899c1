-- True: none of these subjects is forgotten, or unknown.
create or replace function :"schema".has_subject_keys(in_subjects text[]) returns boolean
language sql
stable
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  select in_subjects = '{}' or not exists (
    select from unnest(in_subjects) as s (subject)
    where not exists (select from subject_key as k where k.subject = s.subject and k.secret is not null)
  )
$function$;

revoke execute on function :"schema".has_subject_keys from public;

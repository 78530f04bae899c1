-- Ends the caller's transaction with an error: a handler of an inline projection failed, and nothing of the append may stay.
create or replace function :"schema".projection_fail(reason text) returns void
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
begin
  raise exception using errcode = 'TL014', message = reason;
end
$function$;

revoke execute on function :"schema".projection_fail from public;

-- A process begins to work on a build. False: there is no such build any more.
create or replace function :"schema".projection_join(in_projection text, in_build bigint, in_owner uuid, in_process text, in_lease_ms integer)
returns boolean
language plpgsql
volatile
set search_path = pg_catalog, :"schema", pg_temp
as $function$
begin
  perform from projection_build as b where b.projection = in_projection and b.build = in_build for key share;
  if not found then
    return false;
  end if;
  insert into projection_member (projection, build, owner, process, expires_at)
  values (in_projection, in_build, in_owner, in_process, clock_timestamp() + in_lease_ms * interval '1 millisecond');
  return true;
end
$function$;

revoke execute on function :"schema".projection_join from public;

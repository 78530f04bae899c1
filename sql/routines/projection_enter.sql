-- An inline writer enters the gates of these projections, and learns what is live. Volatile: what it reads is of after the
-- locks. A transaction whose snapshot is older than that is met with 40001. in_token: found again in trunkline.inline, as long as the
-- transaction lasts.
create or replace function :"schema".projection_enter(in_projections text[], in_token text)
returns table (projection text, version integer, mode text, replay_until bigint, is_snapshot boolean)
language plpgsql
volatile
security definer
set search_path = pg_catalog, :"schema", pg_temp
as $function$
#variable_conflict use_column
declare
  keeps_snapshot constant boolean := current_setting('transaction_isolation') <> 'read committed';
begin
  perform set_config('trunkline.inline', in_token, true);
  -- In order: two writers never wait for each other.
  perform projection_gate(n.name) from (select u.name from unnest(in_projections) as u (name) order by u.name) as n;
  if keeps_snapshot then
    perform from projection_build as b where b.projection = any (in_projections) for share;
  end if;
  return query
    select n.name, b.version, b.mode, b.replay_until, keeps_snapshot
    from unnest(in_projections) as n (name)
    left join projection_build as b on b.projection = n.name and b.state = 'live';
end
$function$;

revoke execute on function :"schema".projection_enter from public;

-- Stores a snapshot of an aggregate; false: it is not worth it, or not true any more. in_subjects: a JSON list of those whose
-- personal data it holds.
--
-- The keys of those are locked until the end of the transaction: forget_subject() waits for it and then deletes the snapshot,
-- or was first, and then nothing is stored.
create or replace function :"schema".save_aggregate_snapshot(
  in_type text,
  in_id text,
  in_schema_version integer,
  in_version bigint,
  in_event_id uuid,
  in_state text,
  in_subjects text
) returns boolean
language plpgsql
-- Writers need no right to the table.
security definer
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  wanted constant text[] := array(select json_array_elements_text(in_subjects::json));
  locked integer;
begin
  if wanted <> '{}' then
    perform from subject_key as k
    where k.subject = any (wanted) and k.secret is not null
    order by k.subject
    for share;
    get diagnostics locked = row_count;
    if locked < cardinality(wanted) then
      return false;
    end if;
  end if;
  if not is_event_at(in_type, in_id, in_version, in_event_id) then
    return false;
  end if;
  insert into aggregate_snapshot as s (aggregate_type, aggregate_id, schema_version, version, event_id, state, subjects)
  values (in_type, in_id, in_schema_version, in_version, in_event_id, in_state::json, wanted)
  on conflict (aggregate_type, aggregate_id, schema_version) do update set
    version = excluded.version,
    event_id = excluded.event_id,
    state = excluded.state,
    subjects = excluded.subjects,
    written_at = excluded.written_at
  -- A newer one stays, unless it belongs to a history that the stream does not have.
  where s.version < excluded.version or not is_event_at(in_type, in_id, s.version, s.event_id);
  return found;
end
$function$;

revoke execute on function :"schema".save_aggregate_snapshot from public;

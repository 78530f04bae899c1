-- What append_events() answers when it could not write: the first result, if the very same events were appended before;
-- else an error that says why. own: positions that it has written itself, which the error takes back.
create or replace function :"schema".append_repeated(
  in_type text,
  in_id text,
  in_expected bigint,
  in_ids uuid[],
  in_types text[],
  in_schema_versions integer[],
  in_payloads json,
  own text,
  out first_version bigint,
  out positions text,
  out created_at timestamptz
)
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
#variable_conflict use_column
declare
  in_count constant integer := cardinality(in_ids);
  stream constant text := in_type || case when in_id = '' then '' else '-' || in_id end;
  known bigint;
  same bigint;
  actual bigint;
  taken record;
begin
  -- \u0000 is what jsonb cannot hold; such payloads are compared as they are written.
  select count(*), count(*) filter (
      where k.aggregate_type = in_type and k.aggregate_id = in_id and k.type = e.type
        and k.schema_version = coalesce(e.schema_version, 1)
        and case
          when k.payload::text = e.payload::text then true
          when k.payload::text ~ '\\u0000' or e.payload::text ~ '\\u0000' then false
          else k.payload::jsonb = e.payload::jsonb
        end
        and k.version - e.ordinal = k.base
    ), min(k.version), string_agg(k.position::text, ',' order by k.version), min(k.created_at)
  into known, same, first_version, positions, created_at
  from rows from (
    unnest(in_ids, in_types, in_schema_versions), json_array_elements(in_payloads)
  ) with ordinality as e (id, type, schema_version, payload, ordinal)
  join (
    select x.*, min(x.version) over () - 1 as base
    from unnest(in_ids) as i (id) cross join lateral (select * from event as k where k.id = i.id limit 1) as x
    where x.position::text <> all (string_to_array(own, ','))
  ) as k on k.id = e.id;

  if known = in_count and same = in_count then
    return;
  end if;
  if known > 0 then
    select k.id, k.aggregate_type || case when k.aggregate_id = '' then '' else '-' || k.aggregate_id end as stream, k.version
    into taken
    from unnest(in_ids) as i (id) cross join lateral (select * from event as e where e.id = i.id limit 1) as k
    where k.position::text <> all (string_to_array(own, ','))
    order by k.position
    limit 1;
    raise exception using errcode = 'TL012',
      message = format('append to %s: event id %s is taken by version %s of %s, which is not the same append', stream, taken.id, taken.version, taken.stream),
      detail = json_build_object('stream', stream, 'id', taken.id, 'takenBy', taken.stream, 'version', taken.version, 'known', known, 'given', in_count),
      hint = 'To repeat an append, give all of its events again, in their order and with the same payloads. For other events make new ids.';
  end if;
  select coalesce(max(e.version), 0) into actual from event as e where e.aggregate_type = in_type and e.aggregate_id = in_id;
  raise exception using errcode = 'TL010',
    message = format('%s is at version %s, expected %s', stream, actual,
      case in_expected when 0 then 'no stream' when -2 then 'an existing stream' when -1 then 'any version' else in_expected::text end),
    detail = json_build_object('stream', stream, 'expected',
      case in_expected when 0 then '"no-stream"' when -2 then '"stream-exists"' when -1 then '"any"' else in_expected::text end::json, 'actual', actual),
    hint = 'Read the stream again, decide again, append with the new version.';
end
$function$;

revoke execute on function :"schema".append_repeated from public;

-- Appends events to a stream, in the caller's transaction, and returns the stream's version after them.
--
-- stream: 'order-17': aggregate type and id, divided by the first '-'.
-- expected_version: the version that the stream must have (0: it must not exist), or as text 'any', 'no-stream',
--   'stream-exists' or a number. Anything else raises TL010, with stream, expected and actual in DETAIL as JSON.
-- events: {type, payload, id, schemaVersion, metadata} or a list of them; only type is needed. The same ids again are
--   answered with the first result.
--
-- Two of one name in this file: the second is the first for numbers.
create or replace function :"schema".append(stream text, expected_version text, events jsonb) returns bigint
language plpgsql
security definer
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  divider constant integer := position('-' in stream);
  list constant jsonb := case when jsonb_typeof(events) = 'object' then jsonb_build_array(events) else events end;
  place text;
  wrong text;
  ids uuid[];
  types text[];
  schema_versions integer[];
  payloads json;
  metadata json;
  result record;
begin
  if coalesce(stream, '') = '' or divider = 1 then
    raise exception using errcode = 'TL005', message = format('append: the stream is %L, expected ''type-id''', stream),
      hint = 'For example: select append(''order-17'', ''no-stream'', ''{"type": "created", "payload": {}}'').';
  end if;
  -- What the library could not read, either.
  if octet_length(stream) - least(divider, 1) >= 1000 then
    raise exception using errcode = 'TL005',
      message = format('append: the stream %L has a name of %s bytes', left(stream, 50) || '…', octet_length(stream)),
      hint = 'Type and id have less than 1,000 bytes together.';
  end if;
  if expected_version is null or expected_version !~ '^(any|no-stream|stream-exists|[0-9]{1,18})$' then
    raise exception using errcode = 'TL005',
      message = format('append to %s: the expected version is %L', stream, expected_version),
      hint = 'Expected a number from 0 on, ''any'', ''no-stream'' or ''stream-exists''.';
  end if;
  if jsonb_typeof(list) is distinct from 'array' or list = '[]' then
    raise exception using errcode = 'TL005',
      message = format('append to %s: events are %s', stream, case when list = '[]' then 'an empty list' else 'a JSON ' || coalesce(jsonb_typeof(list), 'null') end),
      hint = 'Pass an object with type and payload, or a list of such objects.';
  end if;
  select e.ordinal, p.problem into place, wrong
  from jsonb_array_elements(list) with ordinality as e (value, ordinal)
  cross join lateral (
    select case
      when jsonb_typeof(e.value) <> 'object' then 'is a JSON ' || jsonb_typeof(e.value) || ', expected an object'
      when jsonb_typeof(e.value -> 'type') is distinct from 'string' or e.value ->> 'type' = '' then 'has no type'
      when jsonb_typeof(e.value -> 'metadata') not in ('object', 'null') then 'has metadata that is a JSON ' || jsonb_typeof(e.value -> 'metadata')
      when e.value ->> 'schemaVersion' !~ '^[1-9][0-9]{0,8}$' then 'has a schemaVersion that is no number from 1 on'
      when e.value ->> 'id' !~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then 'has an id that is no uuid'
    end as problem
  ) as p
  where p.problem is not null
  order by e.ordinal
  limit 1;
  if wrong is null then
    select min(d.second), 'has the id of another' into place, wrong
    from (
      select max(e.ordinal) as second
      from jsonb_array_elements(list) with ordinality as e (value, ordinal)
      where e.value ->> 'id' is not null
      group by lower(e.value ->> 'id')
      having count(*) > 1
    ) as d
    having count(*) > 0;
  end if;
  if wrong is not null then
    raise exception using errcode = 'TL005', message = format('append to %s: event %s %s', stream, place, wrong),
      hint = 'An event is {"type": "created", "payload": {}}, and may have id (a uuid), schemaVersion and metadata (an object).';
  end if;

  select array_agg(coalesce((e.value ->> 'id')::uuid, event_id()) order by e.ordinal), array_agg(e.value ->> 'type' order by e.ordinal),
    array_agg((e.value ->> 'schemaVersion')::integer order by e.ordinal), json_agg(e.value -> 'payload' order by e.ordinal),
    json_agg(coalesce(nullif(e.value -> 'metadata', 'null'), '{}') order by e.ordinal)
  into ids, types, schema_versions, payloads, metadata
  from jsonb_array_elements(list) with ordinality as e (value, ordinal);
  select * into result
  from append_events(
    case when divider = 0 then stream else left(stream, divider - 1) end,
    case when divider = 0 then '' else substr(stream, divider + 1) end,
    case expected_version when 'any' then -1 when 'stream-exists' then -2 when 'no-stream' then 0 else expected_version::bigint end,
    ids,
    types,
    schema_versions,
    payloads,
    metadata
  );
  return result.first_version + jsonb_array_length(list) - 1;
end
$function$;

create or replace function :"schema".append(stream text, expected_version bigint, events jsonb) returns bigint
language sql
volatile
security definer
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  select append($1, $2::text, $3)
$function$;

revoke execute on function :"schema".append(text, text, jsonb), :"schema".append(text, bigint, jsonb) from public;

-- Appends events to one stream, in the caller's transaction. What append() and the library call.
--
-- in_expected: the version that the stream must have (0: it must not exist), -1 any, -2 any but none.
-- The events, at least one, column by column, which costs a fourth of what a list of objects does: in_payloads and in_metadata are
-- JSON lists. in_schema_versions null: all are 1. in_metadata null: all are {}.
--
-- Two writers of one version meet in the unique index: the second waits there for the first, and then has written nothing
-- ("on conflict do nothing", rows are counted), which needs no subtransaction. Writers without an expected version queue on a
-- lock of the stream before they read its end, so that they do not fail. Invariants E1 to E6 of docs/events.md.
create or replace function :"schema".append_events(
  in_type text,
  in_id text,
  in_expected bigint,
  in_ids uuid[],
  in_types text[],
  in_schema_versions integer[],
  in_payloads json,
  in_metadata json,
  -- Version of the first event.
  out first_version bigint,
  -- Positions in order, as text with commas.
  out positions text,
  out created_at timestamptz,
  -- The same events had been appended before: this is what that gave.
  out is_repeated boolean
)
language plpgsql
-- Writers need no right to the table.
security definer
set search_path = pg_catalog, :"schema", pg_temp
as $function$
#variable_conflict use_column
declare
  in_count constant integer := cardinality(in_ids);
  tail bigint;
  tail_at timestamptz;
  written integer;
begin
  is_repeated := false;
  if in_expected < 0 then
    perform pg_advisory_xact_lock(hashtextextended(in_type || '-' || in_id, 7));
  end if;
  loop
    if in_expected <> 0 then
      select e.version, e.created_at into tail, tail_at
      from event as e
      where e.aggregate_type = in_type and e.aggregate_id = in_id
      order by e.version desc
      limit 1;
      -- The stream is not as expected, or the events are repeated.
      exit when coalesce(tail, 0) <> in_expected and in_expected <> -1 and (in_expected <> -2 or tail is null);
    end if;
    first_version := coalesce(tail, 0) + 1;
    created_at := greatest(tail_at, date_trunc('milliseconds', clock_timestamp()));

    -- The first row decides: whoever has written it owns the versions after it.
    insert into event (id, aggregate_type, aggregate_id, version, type, schema_version, payload, metadata, created_at)
    values (in_ids[1], in_type, in_id, append_events.first_version, in_types[1], coalesce(in_schema_versions[1], 1), in_payloads -> 0,
      coalesce((in_metadata -> 0)::jsonb, '{}'), append_events.created_at)
    on conflict do nothing
    returning position into positions;
    get diagnostics written = row_count;
    if written = 1 and in_count > 1 then
      -- An id that is known is told of by append_repeated(). One that somebody writes at this very moment is a unique_violation:
      -- "on conflict" would make each row half as dear again.
      -- One id after the other: for "= any" a plan that was made while the table was small reads all of it.
      exit when exists (
        select from unnest(in_ids) as i (id) cross join lateral (select k.position from event as k where k.id = i.id limit 1) as k
        where k.position <> append_events.positions::bigint
      );
      with rest as (
        insert into event (id, aggregate_type, aggregate_id, version, type, schema_version, payload, metadata, created_at)
        select e.id, in_type, in_id, append_events.first_version + e.ordinal - 1, e.type, coalesce(e.schema_version, 1),
          e.payload, coalesce(e.metadata::jsonb, '{}'), append_events.created_at
        from rows from (
          unnest(in_ids, in_types, in_schema_versions), json_array_elements(in_payloads), json_array_elements(in_metadata)
        ) with ordinality as e (id, type, schema_version, payload, metadata, ordinal)
        where e.ordinal > 1
        order by e.ordinal
        returning position
      )
      select append_events.positions || ',' || string_agg(w.position::text, ',' order by w.position), 1 + count(*)
      into positions, written
      from rest as w;
    end if;

    if written = in_count then
      if wake_mode() <> 'off' and (
        wake_mode() = 'always' or somebody_sleeps(1953658222, wake_key('event'::regclass::oid::bigint))
      ) then
        perform pg_notify((select i.channel from installation as i), '');
      end if;
      return;
    end if;
    -- A writer with an expected version was faster than one without: after it, then. Unless an id is taken.
    exit when in_expected >= 0 or written > 0 or exists (
      select from unnest(in_ids) as i (id) cross join lateral (select from event as k where k.id = i.id limit 1) as k
    );
  end loop;

  -- Tells the first result when these very events are there, raises otherwise.
  select r.first_version, r.positions, r.created_at, true into first_version, positions, created_at, is_repeated
  from append_repeated(in_type, in_id, in_expected, in_ids, in_types, in_schema_versions, in_payloads, coalesce(positions, '')) as r;
end
$function$;

revoke execute on function :"schema".append_events from public;

-- Events in the global order, as far as it is settled (docs/events.md, G1 to G4): at most in_rows of them are looked at,
-- and in_limit given of the types and categories wanted (null: all), none after their payloads as stored have in_bytes.
--
-- in_settled: up to here the caller knows that nothing is open any more.
-- last_position, writers: every position up to last_position that is not visible now belongs to one of writers, or to nobody. writers
-- is null where nobody looked: so much is settled that a page is there without, and a look at all locks costs as much as 200 events.
-- events: null where there are none; else column by column, which costs the server half of what rows do, one JSON list of: ids;
-- positions, or the first one as a text where they follow each other; versions as 16 hexadecimal digits each, or the first one as a
-- number where they follow each other; types; by position the schema versions that are not 1; microseconds since 2000 as 16
-- hexadecimal digits each; metadata, 0 for {}; payloads; aggregate types and ids, where the caller does not know them.
-- event_stream_page() and the library's query() write the same.
--
-- up_to: all up to here was given. is_level: that is all there is.
create or replace function :"schema".event_page(
  in_after bigint,
  in_settled bigint,
  in_types text[],
  in_categories text[],
  in_rows integer,
  in_bytes bigint,
  in_limit integer,
  out last_position bigint,
  out writers text[],
  out events text,
  out up_to bigint,
  out is_level boolean
)
language plpgsql
-- Each statement has a snapshot of its own: their order is the proof.
volatile
set search_path = pg_catalog, :"schema", pg_temp
-- Planning for each page would cost more than it finds: the indexes serve any range.
set plan_cache_mode = force_generic_plan
as $function$
declare
  settled bigint := in_settled;
  looked_at bigint;
  given bigint;
  bytes bigint;
  first_given bigint;
  last_given bigint;
  is_cut boolean;
  is_all constant boolean := in_types is null and in_categories is null;
  is_dense boolean;
begin
  if pg_is_in_recovery() or current_setting('transaction_isolation') <> 'read committed' then
    raise exception using errcode = 'TL013',
      message = case when pg_is_in_recovery() then 'a standby does not know the open writers of events'
        else 'events in their global order are read in READ COMMITTED, found ' || upper(current_setting('transaction_isolation')) end,
      hint = 'Read on the primary, outside of a transaction; leave default_transaction_isolation at read committed.';
  end if;
  select case when s.is_called then s.last_value else 0 end into last_position from event_position_seq as s;
  if in_settled - in_after < in_rows then
    writers := event_writers();
    if writers = '{}' then
      settled := last_position;
    end if;
  end if;

  -- How far: mostly all of what is settled, or a whole page of it. Sizes are looked at first, which reads no payload that is stored
  -- out of line.
  if is_all then
    select count(*), sum(b.bytes), min(b.position), max(b.position) into looked_at, bytes, first_given, up_to
    from (
      select e.position, pg_column_size(e.payload) as bytes
      from event as e
      where e.position > in_after and e.position <= least(settled, last_position)
      order by e.position
      limit in_rows
    ) as b;
    given := looked_at;
    last_given := up_to;
    is_cut := looked_at = in_rows;
  else
    -- Looks no further than the page needs: where most are wanted, that is far less than in_rows.
    select count(*) > in_limit, least(count(*), in_limit), sum(b.bytes) filter (where b.place <= in_limit), min(b.position),
      max(b.position) filter (where b.place <= in_limit)
    into is_cut, given, bytes, first_given, last_given
    from (
      select w.position, w.bytes, row_number() over (order by w.position) as place
      from (
        select e.position, case
            when (in_types is null or e.type = any (in_types)) and (in_categories is null or e.aggregate_type = any (in_categories))
            then pg_column_size(e.payload)
          end as bytes
        from event as e
        where e.position > in_after and e.position <= least(settled, last_position)
        order by e.position
        limit in_rows
      ) as w
      where w.bytes is not null
      order by w.position
      limit in_limit + 1
    ) as b;
    if is_cut then
      up_to := last_given;
    else
      select count(*) = in_rows, max(b.position) into is_cut, up_to
      from (
        select e.position
        from event as e
        where e.position > in_after and e.position <= least(settled, last_position)
        order by e.position
        limit in_rows
      ) as b;
    end if;
  end if;
  if (not is_cut and settled < last_position) or given > in_limit or bytes >= in_bytes then
    -- As events follow each other without a gap, or below the mark, and as they fit.
    select is_cut or count(*) = in_rows or count(*) > count(*) filter (where b.fits), max(b.position) filter (where b.fits),
      count(b.bytes) filter (where b.fits), min(b.position) filter (where b.fits and b.bytes is not null),
      max(b.position) filter (where b.fits and b.bytes is not null)
    into is_cut, up_to, given, first_given, last_given
    from (
      select w.position, w.bytes, bool_and(w.follows) over o as is_settled, coalesce(sum(w.bytes) over p, 0) < in_bytes and count(w.bytes) over p < in_limit as fits
      from (
        select e.position,
          e.position <= settled or e.position = 1 + greatest(settled, lag(e.position, 1, in_after) over (order by e.position)) as follows,
          case
            when (in_types is null or e.type = any (in_types)) and (in_categories is null or e.aggregate_type = any (in_categories))
            then pg_column_size(e.payload)
          end as bytes
        from event as e
        where e.position > in_after and e.position <= case when is_cut then up_to else last_position end
        order by e.position
        limit in_rows
      ) as w
      window o as (order by w.position rows unbounded preceding),
        p as (order by w.position rows between unbounded preceding and 1 preceding)
    ) as b
    where b.is_settled;
  end if;

  if given > 0 then
    is_dense := last_given - first_given + 1 = given;
    select concat(
      '[["', string_agg(e.id::text, '","'), '"],',
      case when is_dense then '"' || first_given || '"'
        else '["' || string_agg(case when not is_dense then e.position::text end, '","') || '"]' end,
      ',"', encode(string_agg(int8send(e.version), ''), 'hex'), '",', json_agg(e.type),
      ',{', string_agg(case when e.schema_version <> 1 then '"' || e.position || '":' || e.schema_version end, ','),
      '},"', encode(string_agg(timestamptz_send(e.created_at), ''), 'hex'),
      '",[', string_agg(case when e.metadata = '{}' then '0' else e.metadata::text end, ','),
      '],[', string_agg(e.payload::text, ','), '],', json_agg(e.aggregate_type), ',', json_agg(e.aggregate_id), ']'
    )
    into events
    from (
      select *
      from event as e
      where e.position between first_given and last_given
        and (is_all or ((in_types is null or e.type = any (in_types)) and (in_categories is null or e.aggregate_type = any (in_categories))))
      order by e.position
    ) as e;
  end if;
  up_to := case when is_cut then up_to else greatest(in_after, settled, up_to) end;
  is_level := not is_cut and up_to = greatest(in_after, last_position);
end
$function$;

revoke execute on function :"schema".event_page from public;

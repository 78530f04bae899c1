-- Events in the global order, as far as it is settled (docs/events.md, G1 to G4): at most in_rows of them are looked at,
-- and in_limit given of the types and categories wanted (null: all), none after their payloads as stored have in_bytes.
--
-- in_settled: up to here the caller knows that nothing is open any more.
-- last_position, writers: every position up to last_position that is not visible now belongs to one of writers, or to nobody.
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
as $function$
declare
  settled bigint := in_settled;
  is_cut boolean;
begin
  if pg_is_in_recovery() or current_setting('transaction_isolation') <> 'read committed' then
    raise exception using errcode = 'TL013',
      message = case when pg_is_in_recovery() then 'a standby does not know the open writers of events'
        else 'events in their global order are read in READ COMMITTED, found ' || upper(current_setting('transaction_isolation')) end,
      hint = 'Read on the primary, outside of a transaction; leave default_transaction_isolation at read committed.';
  end if;
  select case when s.is_called then s.last_value else 0 end into last_position from event_position_seq as s;
  writers := event_writers();
  if writers = '{}' then
    settled := last_position;
  end if;

  -- How far: as events follow each other without a gap, or below the mark, and as they fit.
  select count(*) = in_rows or count(*) > count(*) filter (where b.fits), max(b.position) filter (where b.fits)
  into is_cut, up_to
  from (
    select w.position, bool_and(w.follows) over o as is_settled, coalesce(sum(w.bytes) over p, 0) < in_bytes and count(w.bytes) over p < in_limit as fits
    from (
      select e.position,
        e.position <= settled or e.position = 1 + greatest(settled, lag(e.position, 1, in_after) over (order by e.position)) as follows,
        case
          when (in_types is null or e.type = any (in_types)) and (in_categories is null or e.aggregate_type = any (in_categories))
          then pg_column_size(e.payload)
        end as bytes
      from event as e
      where e.position > in_after and e.position <= last_position
      order by e.position
      limit in_rows
    ) as w
    window o as (order by w.position rows unbounded preceding),
      p as (order by w.position rows between unbounded preceding and 1 preceding)
  ) as b
  where b.is_settled;

  select '[' || string_agg(event_line(e), ',') || ']' into events
  from (
    select *
    from event as e
    where e.position > in_after and e.position <= event_page.up_to
      and (in_types is null or e.type = any (in_types)) and (in_categories is null or e.aggregate_type = any (in_categories))
    order by e.position
  ) as e;
  up_to := case when is_cut then up_to else greatest(in_after, settled, up_to) end;
  is_level := not is_cut and up_to = greatest(in_after, last_position);
end
$function$;

revoke execute on function :"schema".event_page from public;

-- Writes the rows that one INSERT (or COPY, MERGE) made to the log: plain tables, full images.
--
-- Arguments of all capture triggers: 0 topic, 1 wake ('' inherits), 2 and 3 the advisory lock on which
-- readers of the topic sleep, 4 channel, 5 operation of a TRUNCATE (t or x). A trigger with a wake of
-- its own has an eighth.
--
-- The hot path of every write of the application. Each expression of PL/pgSQL is set up anew in each
-- transaction, which costs as much as a tenth of the INSERT below; so there are few, with few calls,
-- and no casts of arguments: the topic is the table's oid, the lock's class a constant (docs/log.md,
-- "What a write pays"). Three branches, because the planner knows a table only by its name.
create or replace function :"schema".capture_insert() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, :"schema", pg_temp
-- row_to_json prints ranges, intervals and floats as the session is set.
set datestyle = 'ISO'
set intervalstyle = 'postgres'
set extra_float_digits = 1
as $function$
-- A captured table may have columns of any name: tg_relid is ours, and n.* is never a column n.
#variable_conflict use_variable
declare
  written bigint;
begin
  if log_slot() = 0 then
    insert into log_0 (topic, operation, new)
    select tg_relid, 'i', row_to_json(n.*) from trunkline_new as n;
  elsif log_slot() = 1 then
    insert into log_1 (topic, operation, new)
    select tg_relid, 'i', row_to_json(n.*) from trunkline_new as n;
  else
    insert into log_2 (topic, operation, new)
    select tg_relid, 'i', row_to_json(n.*) from trunkline_new as n;
  end if;
  get diagnostics written = row_count;

  -- In one expression: is there anything left to do? A tick is due with each id that is a multiple of 4,096.
  -- And an eventcount (docs/log.md, "Waking"): readers that sleep hold the lock shared, and no interrupt can come
  -- between taking it and giving it back.
  if written > 0 and (
    currval('log_id_seq') % 4096 < written
    or tg_nargs > 7
    or case wake_mode()
      when 'elided' then case
        when pg_try_advisory_lock(1953658222, tg_relid::integer) then not pg_advisory_unlock(1953658222, tg_relid::integer)
        else true
      end
      else wake_mode() = 'always'
    end
  ) then
    perform finish_capture(tg_argv, written);
  end if;
  return null;
end
$function$;

revoke execute on function :"schema".capture_insert from public;

-- Grants a role what a process needs that only reads (caches, tail, status): the log and what describes
-- it, checkpoints of its own, and no table of the application. Run as the owner of the schema.
create or replace function :"schema".grant_reader(role name) returns void
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
declare
  place constant name := (select n.nspname from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = 'log'::regclass);
begin
  if not exists (select from pg_roles as r where r.rolname = grant_reader.role) then
    raise exception using errcode = 'TL005', message = format('role %I does not exist', role),
      hint = format('Create it first: create role %I login.', role);
  end if;
  execute format('grant usage on schema %I to %I', place, role);
  execute format(
    'grant select on installation, log, log_0, log_1, log_2, log_id_seq, event, event_position_seq, migration, routine, slot, tick, topic, '
    || 'relay, relay_member, relay_slot, relay_place, relay_turn, failed_delivery, outbox, '
    || 'projection, projection_build, projection_member, projection_partition, parked_event to %I',
    role
  );
  execute format('grant select, insert, update, delete on reader to %I', role);
  -- rotate() runs as its owner and does nothing that is not due: whoever reads keeps the log bounded.
  execute format(
    'grant execute on function decodable, event_page, event_stream_page, event_streams, event_writers, find_table, first_xid, is_covered, key_slot, log_identity, inbox_clean, log_page, log_slot, message_id, missing_triggers, next_tick, '
    || 'open_writers, rotate, standing_triggers, stray_triggers, table_fingerprint, table_tree, tick_xids, topic_rules, '
    || 'topic_signature, wake_key, wake_mode, wanted_triggers to %I',
    role
  );
end
$function$;

revoke execute on function :"schema".grant_reader from public;

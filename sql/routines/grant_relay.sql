-- Grants a role what a process needs that runs relays and handles messages: all of grant_reader, the tables of relays,
-- and the functions of the inbox. Run as the owner of the schema.
create or replace function :"schema".grant_relay(role name) returns void
language plpgsql
set search_path = pg_catalog, :"schema", pg_temp
as $function$
begin
  perform grant_reader(role);
  execute format('grant select, insert, update, delete on relay, relay_member, relay_slot, relay_mark, failed_delivery to %I', role);
  execute format('grant select, insert on relay_checkpoint, relay_checkpoint_0, relay_checkpoint_1 to %I', role);
  execute format('grant usage on sequence relay_checkpoint_id_seq to %I', role);
  execute format(
    'grant execute on function inbox_claim, inbox_forget, log_beginning, relay_beat, relay_begin_attempts, relay_behind, '
    || 'relay_due, relay_join, relay_leave, relay_mark_attempts, relay_owns, relay_save, relay_settle_attempts, '
    || 'relay_store_failures, relay_take, relay_turn to %I',
    role
  );
end
$function$;

revoke execute on function :"schema".grant_relay from public;

-- True: the consumer has not handled the message before, and handles it in this transaction. A second transaction that claims
-- the same waits until this one ends, and handles it only if this one rolled back.
create or replace function :"schema".inbox_claim(in_consumer text, in_message_id text) returns boolean
language plpgsql
-- Consumers need no right to the table.
security definer
set search_path = pg_catalog, :"schema", pg_temp
as $function$
begin
  -- In autocommit both are the moment at which the statement came in.
  if transaction_timestamp() = statement_timestamp() then
    raise exception using errcode = 'TL008', message = 'inbox: there is no transaction for the message to be handled in',
      hint = 'Begin one, claim the message, do what it asks for, commit: all on one connection.';
  end if;
  if coalesce(in_consumer, '') = '' or coalesce(in_message_id, '') = '' then
    raise exception using errcode = 'TL005', message = 'inbox: consumer and message id are texts that are not empty',
      hint = 'The message id is what the sender sends as id: the header of the broker, or webhook-id.';
  end if;
  insert into inbox (consumer, message_id) values (in_consumer, in_message_id) on conflict do nothing;
  return found;
end
$function$;

revoke execute on function :"schema".inbox_claim from public;

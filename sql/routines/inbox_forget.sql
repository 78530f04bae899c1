-- The consumer has not handled the message after all, although it claimed it in this transaction. What an earlier one
-- committed stays.
create or replace function :"schema".inbox_forget(in_consumer text, in_message_id text) returns void
language sql
security definer
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  delete from inbox as b where b.consumer = in_consumer and b.message_id = in_message_id and b.handled_at = transaction_timestamp();
$function$;

revoke execute on function :"schema".inbox_forget from public;

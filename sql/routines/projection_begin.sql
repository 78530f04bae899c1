-- Begins the transaction of a batch: bounds how long it may idle and how long one statement may take, marks it, and enters the gate.
-- False: the partition is not its owner's any more.
create or replace function :"schema".projection_begin(
  in_projection text,
  in_build bigint,
  in_partition integer,
  in_owner uuid,
  in_epoch bigint,
  in_timeout_ms integer
) returns boolean
language plpgsql
volatile
set search_path = pg_catalog, :"schema", pg_temp
as $function$
begin
  perform set_config('idle_in_transaction_session_timeout', (in_timeout_ms + 5000)::text, true),
    set_config('statement_timeout', in_timeout_ms::text, true),
    -- A COMMIT or ROLLBACK of a handler's would take it away: projection_save() misses it then.
    set_config('trunkline.batch', in_owner::text, true);
  perform projection_gate(in_projection);
  return exists (
    select from projection_partition as p
    where p.projection = in_projection and p.build = in_build and p.partition = in_partition and p.owner = in_owner and p.epoch = in_epoch
  );
end
$function$;

revoke execute on function :"schema".projection_begin from public;

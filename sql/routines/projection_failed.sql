-- Notes the event that does not go through. Returns its attempts so far; null: the partition is somebody else's.
-- in_counts: whether this was an attempt that counts.
create or replace function :"schema".projection_failed(
  in_projection text,
  in_build bigint,
  in_partition integer,
  in_owner uuid,
  in_epoch bigint,
  in_position bigint,
  in_stream text,
  in_code text,
  in_error text,
  in_counts boolean
) returns bigint
language sql
volatile
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  update projection_partition as p set
    attempts = case when p.failing_position is not distinct from in_position then p.attempts else 0 end + in_counts::integer,
    failing_since = case when p.failing_position is not distinct from in_position then p.failing_since else clock_timestamp() end,
    failing_position = in_position, failing_stream = in_stream, error_code = in_code, error = in_error, updated_at = clock_timestamp()
  where p.projection = in_projection and p.build = in_build and p.partition = in_partition and p.owner = in_owner and p.epoch = in_epoch
  returning p.attempts
$function$;

revoke execute on function :"schema".projection_failed from public;

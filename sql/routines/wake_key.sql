-- Second key of the advisory lock on which readers of a topic sleep: the low 32 bits of its id. Two
-- topics that share them wake each other's readers, no more.
create or replace function :"schema".wake_key(topic bigint) returns integer
language sql
immutable
as $function$
  select $1::pg_catalog.bit(32)::pg_catalog.int4
$function$;

revoke execute on function :"schema".wake_key from public;

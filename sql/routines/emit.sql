-- Writes an event to the log, in the caller's transaction: it exists if and only if that commits.
-- Returns the event's id. Events of one topic and key keep the order in which their transactions
-- held the key: a transaction-level lock on it is taken before the id is drawn, so a second
-- transaction with the same key waits for the first to end. Emit several keys in sorted order.
create or replace function :"schema".emit(
  topic text,
  key text,
  type text,
  payload jsonb,
  headers jsonb default null
) returns bigint
language plpgsql
security definer
set search_path = pg_catalog, :"schema", pg_temp
as $function$
#variable_conflict use_column
declare
  topic_key bigint := hashtextextended(emit.topic, 0);
  place installation%rowtype;
  known boolean;
  written bigint;
begin
  if coalesce(emit.topic, '') = '' then
    raise exception using errcode = 'TL005', message = 'emit: the topic is missing',
      hint = 'Name the topic, for example: select emit(''order'', ''42'', ''created'', ''{}'').';
  end if;
  if emit.headers is not null and jsonb_typeof(emit.headers) <> 'object' then
    raise exception using errcode = 'TL005',
      message = format('emit: headers are a JSON %s, expected an object', jsonb_typeof(emit.headers)),
      hint = 'Pass headers as an object of names and values, or null.';
  end if;
  if emit.key is not null then
    perform pg_advisory_xact_lock(hashtextextended(emit.topic || chr(31) || emit.key, 0));
  end if;
  select * into strict place from installation;
  known := exists (select from topic as t where t.id = topic_key);
  if not known then
    insert into topic (id, name) values (topic_key, emit.topic);
  end if;

  if log_slot() = 0 then
    insert into log_0 (topic, operation, key, type, payload, headers)
    values (topic_key, 'e', emit.key, emit.type, emit.payload::json, emit.headers::json)
    returning id into written;
  elsif log_slot() = 1 then
    insert into log_1 (topic, operation, key, type, payload, headers)
    values (topic_key, 'e', emit.key, emit.type, emit.payload::json, emit.headers::json)
    returning id into written;
  else
    insert into log_2 (topic, operation, key, type, payload, headers)
    values (topic_key, 'e', emit.key, emit.type, emit.payload::json, emit.headers::json)
    returning id into written;
  end if;

  if written % 4096 = 0 then
    insert into tick (log_id) values (written);
  end if;
  -- A reader of every topic does not sleep on one that it has not met yet.
  if wake_mode() <> 'off' and (
    not known or wake_mode() = 'always' or somebody_sleeps(place.lock_class::integer, wake_key(topic_key))
  ) then
    perform pg_notify(place.channel, '');
  end if;
  return written;
end
$function$;

-- Any role may write an event; whoever must not is refused USAGE of the schema.
grant execute on function :"schema".emit to public;

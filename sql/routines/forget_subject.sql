-- Forgets a subject for good: its key, without which its personal data in events cannot be read, and the aggregate snapshots that
-- hold some of it. Harmless when repeated, and when the subject is unknown.
create or replace function :"schema".forget_subject(
  in_subject text,
  -- It was not forgotten before.
  out is_new boolean,
  out snapshots bigint
)
language plpgsql
security definer
set search_path = pg_catalog, :"schema", pg_temp
as $function$
begin
  -- With one snapshot for all of the transaction a row that was written meanwhile would not be seen.
  if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
    raise exception using errcode = 'TL005',
      message = format('forget: the transaction is %s, expected read committed', current_setting('transaction_isolation')),
      hint = 'Begin it with: begin isolation level read committed.';
  end if;
  if coalesce(in_subject, '') = '' then
    raise exception using errcode = 'TL005', message = 'forget: the subject is empty', hint = 'Pass the id that events name.';
  end if;
  is_new := not exists (select from subject_key as k where k.subject = in_subject and k.secret is null);
  insert into subject_key as k (subject, forgotten_at)
  values (in_subject, clock_timestamp())
  on conflict (subject) do update set
    key_id = null,
    secret = null,
    master_key = null,
    forgotten_at = coalesce(k.forgotten_at, excluded.forgotten_at);
  delete from aggregate_snapshot as s where s.subjects <> '{}' and s.subjects @> array[in_subject];
  get diagnostics snapshots = row_count;
end
$function$;

revoke execute on function :"schema".forget_subject from public;

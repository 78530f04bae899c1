-- What others hung on tables, so that they cannot be exchanged for new ones: names in words. Tables as SQL writes them; those that do not
-- exist have nothing.
create or replace function :"schema".projection_hung_on(in_tables text[]) returns text[]
language sql
stable
set search_path = pg_catalog, :"schema", pg_temp
as $function$
  with t as (
    select to_regclass(u.name)::oid as id, u.name from unnest(in_tables) as u (name) where to_regclass(u.name) is not null
  )
  select array(
    select w.what from (
      select 'view ' || r.ev_class::regclass::text || ' on ' || t.name as what
      from t join pg_depend as d on d.refclassid = 'pg_class'::regclass and d.refobjid = t.id and d.classid = 'pg_rewrite'::regclass
      join pg_rewrite as r on r.oid = d.objid and r.ev_class <> t.id
      union
      select 'foreign key ' || k.conname || ' of ' || k.conrelid::regclass::text || ' to ' || t.name
      from t join pg_constraint as k on k.contype = 'f' and k.confrelid = t.id
      where k.conrelid not in (select t.id from t)
      union
      select 'rule ' || r.rulename || ' on ' || t.name from t join pg_rewrite as r on r.ev_class = t.id
      union
      select 'publication ' || p.pubname || ' of ' || t.name
      from t join pg_publication_rel as r on r.prrelid = t.id join pg_publication as p on p.oid = r.prpubid
      union
      select 'trigger ' || g.tgname || ' on ' || t.name from t join pg_trigger as g on g.tgrelid = t.id and not g.tgisinternal
      union
      select 'policy ' || p.polname || ' on ' || t.name from t join pg_policy as p on p.polrelid = t.id
      union
      select 'table ' || i.inhrelid::regclass::text || ' inherits ' || t.name
      from t join pg_class as c on c.oid = t.id and c.relkind = 'r' join pg_inherits as i on i.inhparent = t.id
    ) as w
    order by w.what
  )
$function$;

revoke execute on function :"schema".projection_hung_on from public;

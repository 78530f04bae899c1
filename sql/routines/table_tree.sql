-- The table and everything that inherits from it or is a partition of it.
create or replace function :"schema".table_tree(root oid) returns table (relation oid, is_root boolean, is_leaf boolean)
language sql
stable
set search_path = pg_catalog, pg_temp
as $function$
  with recursive tree as (
    select root as relation
    union
    select i.inhrelid from tree join pg_inherits as i on i.inhparent = tree.relation
  )
  select tree.relation, tree.relation = root, not exists (select from pg_inherits as i where i.inhparent = tree.relation)
  from tree
$function$;

revoke execute on function :"schema".table_tree from public;

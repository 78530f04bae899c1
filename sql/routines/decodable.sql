-- The image with every escape that json accepts and decoding refuses (\u0000, surrogates) made into plain
-- text, `@trunkline:u0000`: only a column of type json can hold one. Readers turn it back. Rows without
-- such an escape (nearly all) pass as they are. Inlined.
create or replace function :"schema".decodable(image json) returns json
language sql
immutable
as $function$
  select case
    when pg_catalog.strpos($1::pg_catalog.text, '\u') = 0 then $1
    else pg_catalog.regexp_replace(
      $1::pg_catalog.text,
      '(?<!\\)((?:\\\\)*)\\u(0000|[dD][89a-fA-F][0-9a-fA-F]{2})',
      '\1@trunkline:u\2',
      'g'
    )::pg_catalog.json
  end
$function$;

revoke execute on function :"schema".decodable from public;

-- The routines that append events take them column by column, which the server reads at a fourth of the cost. The one that reads a
-- stream tells more of a page than its events.
--
-- Locks: none on tables. Roles that append or read events need their rights again: select grant_events('role').
-- By hand: psql -v schema=trunkline -f 0008_append_by_columns.sql

-- Other parameters make another routine, other results none at all.
drop function if exists :"schema".append_events;
drop function if exists :"schema".append_group;
drop function if exists :"schema".append_repeated;
drop function if exists :"schema".event_stream_page;

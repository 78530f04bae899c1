-- The routines that append events take them column by column, which the server reads at a fourth of the cost.
--
-- Locks: none on tables. Roles that append need their right again: select grant_events('role').
-- By hand: psql -v schema=trunkline -f 0008_append_by_columns.sql

-- Other parameters make another routine.
drop function if exists :"schema".append_events;
drop function if exists :"schema".append_group;
drop function if exists :"schema".append_repeated;

-- Least rights in the ledger's database, for psql -v owner=… -v night=… -v reader=… -v eraser=…  (passwords).
--   nightingale_owner   owns the tables; `nightingale database upgrade` only
--   nightingale_night   the night: reads, inserts, updates; no delete, no change of tables
--   nightingale_reader  dashboards and auditors: reads
--   nightingale_eraser  `nightingale forget`: reads, updates and deletes rows; inserts nothing
-- Run as a superuser inside the database, once; it may be run again.
\set ON_ERROR_STOP on
select format('create role %I login', name)
  from unnest(array['nightingale_owner', 'nightingale_night', 'nightingale_reader', 'nightingale_eraser']) as name
 where not exists (select from pg_roles where rolname = name) \gexec
alter role nightingale_owner password :'owner';
alter role nightingale_night password :'night';
alter role nightingale_reader password :'reader';
alter role nightingale_eraser password :'eraser';

select format('revoke all on database %I from public', current_database()) \gexec
select format('grant connect on database %I to nightingale_owner, nightingale_night, nightingale_reader, nightingale_eraser',
              current_database()) \gexec
revoke all on schema public from public;
grant usage on schema public to nightingale_night, nightingale_reader, nightingale_eraser;
grant usage, create on schema public to nightingale_owner;

-- Tables that the owner makes later get the same rights without another visit here.
alter default privileges for role nightingale_owner in schema public
  grant select, insert, update on tables to nightingale_night;
alter default privileges for role nightingale_owner in schema public
  grant usage on sequences to nightingale_night;
alter default privileges for role nightingale_owner in schema public grant select on tables to nightingale_reader;
alter default privileges for role nightingale_owner in schema public
  grant select, update, delete on tables to nightingale_eraser;

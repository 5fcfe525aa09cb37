#!/bin/sh
# First start of the PostgreSQL container: two databases, five roles, passwords from the secret `roles` (name=value lines).
set -eu
password() { sed -n "s/^$1=//p" /run/secrets/roles; }
psql -v ON_ERROR_STOP=1 -U postgres -d postgres -v airflow="$(password airflow)" <<'SQL'
create role airflow login password :'airflow';
create database airflow owner airflow;
create database nightingale;
SQL
psql -U postgres -d nightingale -f /opt/nightingale/roles.sql \
  -v owner="$(password nightingale_owner)" -v night="$(password nightingale_night)" \
  -v reader="$(password nightingale_reader)" -v eraser="$(password nightingale_eraser)"

#!/bin/sh
# Make the secrets of compose.yaml once, from the machine's random source; an existing folder is left alone.
# Usage: deploy/containers/make_secrets.sh [folder]
set -eu
folder=${1:-$(dirname "$0")/secrets}
if [ -e "$folder" ]; then
  echo "$folder is there already; remove it yourself if you mean to make new secrets" >&2
  exit 1
fi
umask 077
mkdir -p "$folder"
cd "$folder"
word() { od -An -N "$1" -tx1 /dev/urandom | tr -d ' \n'; }
base64url() { head -c "$1" /dev/urandom | base64 | tr -d '\n' | tr '+/' '-_'; }
postgres=$(word 24) redis=$(word 24) airflow=$(word 24) owner=$(word 24) night=$(word 24) reader=$(word 24) eraser=$(word 24)
put() { printf '%s' "$2" > "$1"; }
put postgres_password "$postgres"
put redis_password "$redis"
put roles "airflow=$airflow
nightingale_owner=$owner
nightingale_night=$night
nightingale_reader=$reader
nightingale_eraser=$eraser
"
put nightingale_owner "postgresql+psycopg://nightingale_owner:$owner@postgres/nightingale"
put nightingale_database "postgresql+psycopg://nightingale_night:$night@postgres/nightingale"
put nightingale_eraser "postgresql+psycopg://nightingale_eraser:$eraser@postgres/nightingale"
put airflow_database "postgresql+psycopg://airflow:$airflow@postgres/airflow"
put airflow_database_async "postgresql+psycopg_async://airflow:$airflow@postgres/airflow"
put airflow_results "db+postgresql+psycopg://airflow:$airflow@postgres/airflow"
put broker "redis://:$redis@redis:6379/0"
put fernet_key "$(base64url 32)"
put api_key "$(base64url 48)"
put jwt_key "$(base64url 96)"
ui=$(base64url 18)
put ui_passwords "{\"nightingale\": \"$ui\"}"
put orthanc.json "{\"RegisteredUsers\": {\"nightingale\": \"$(word 18)\"}}"
# The folder is closed to every other user of this machine; the files are open, because the containers that mount
# them run as different users (50000, postgres, redis).
chmod 0644 -- *
echo "Secrets written to $folder. User of the UI: nightingale, password in ui_passwords."

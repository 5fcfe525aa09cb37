#!/bin/sh
# Turn secret files into variables, then become the command: NAME_FILE=/run/secrets/x gives NAME=<content of x>.
# A variable that is set already wins. Secrets stay out of the image, of compose files and of `docker inspect`.
set -eu
for pair in $(env | grep -E '^(AIRFLOW__|AIRFLOW_CONN_|NIGHTINGALE_)[A-Z0-9_]*_FILE=' | grep -vE '^[A-Z0-9_]*(PASSWORDS|PRIVATE_KEY)_FILE=' | cut -d= -f1); do
  name=${pair%_FILE}
  eval "path=\${$pair}"
  eval "present=\${$name+yes}"
  [ "${present:-}" = yes ] && continue
  if [ ! -r "$path" ]; then
    echo "$pair names $path, which cannot be read" >&2
    exit 1
  fi
  export "$name=$(cat "$path")"
done
exec "$@"

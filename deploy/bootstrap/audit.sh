#!/bin/sh
# Vulnerabilities, bill of materials, licences. Tools from PyPI into .venv/lint; results to var/audit.
set -eu
cd "$(dirname "$0")/../.."
tools=${1:-.venv/lint}
if [ ! -x "$tools/bin/pip-audit" ] || [ ! -x "$tools/bin/cyclonedx-py" ]; then
  .venv/bin/uv venv --quiet --python .venv/bin/python --allow-existing "$tools"
  .venv/bin/uv pip install --quiet --python "$tools/bin/python" pip-audit==2.10.1 cyclonedx-bom==7.5.0
fi
out=var/audit-supply-chain
mkdir -p "$out"
status=0
"$tools/bin/cyclonedx-py" environment .venv/bin/python --output-reproducible -o "$out/sbom.json"
echo "SBOM: $out/sbom.json"
.venv/bin/python deploy/bootstrap/licences.py || status=1
"$tools/bin/pip-audit" -r requirements.lock --require-hashes --disable-pip --progress-spinner off -f json \
  -o "$out/vulnerabilities.json" 2> "$out/pip-audit.log" || status=1
.venv/bin/python - "$out/vulnerabilities.json" <<'PY' || status=1
import json, sys
try:
    found = json.load(open(sys.argv[1], encoding="utf-8"))["dependencies"]
except (OSError, ValueError):
    sys.exit("vulnerabilities: pip-audit wrote no result; see pip-audit.log beside it")
audited = [item for item in found if "skip_reason" not in item]
bad = [(item["name"], item["version"], [v["id"] for v in item["vulns"]]) for item in audited if item["vulns"]]
for name, version, ids in bad:
    print(f"vulnerable: {name} {version}: {', '.join(ids)}")
print(f"vulnerabilities: {len(audited)} of {len(found)} packages audited, {len(bad)} with known ones")
if not audited:
    sys.exit("NOT AUDITED: no vulnerability service was reached (a mirror of packages alone has none)")
sys.exit(1 if bad else 0)
PY
exit "$status"

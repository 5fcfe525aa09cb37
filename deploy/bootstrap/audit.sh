#!/bin/sh
# Vulnerabilities, bill of materials, licences; results to var/audit-supply-chain.
# Usage: deploy/bootstrap/audit.sh [folder for the tools]
# Exit status: 1 a licence that nobody has read, 2 known vulnerabilities, 3 no vulnerability service was reached.
set -eu
cd "$(dirname "$0")/../.."
tools=${1:-.venv/lint}
deploy/bootstrap/lint_tools.sh "$tools"
out=var/audit-supply-chain
mkdir -p "$out"
"$tools/bin/cyclonedx-py" environment .venv/bin/python --output-reproducible -o "$out/sbom.json"
echo "SBOM: $out/sbom.json"
.venv/bin/python deploy/bootstrap/licences.py || exit 1
rm -f "$out/vulnerabilities.json"
"$tools/bin/pip-audit" -r requirements.lock --require-hashes --disable-pip --progress-spinner off -f json \
  -o "$out/vulnerabilities.json" 2> "$out/pip-audit.log" || : # its result is judged below
exec .venv/bin/python - "$out/vulnerabilities.json" <<'PY'
import json, sys
try:
    found = json.load(open(sys.argv[1], encoding="utf-8"))["dependencies"]
except (OSError, ValueError):
    found = []
audited = [item for item in found if "skip_reason" not in item]
bad = [(item["name"], item["version"], [v["id"] for v in item["vulns"]]) for item in audited if item["vulns"]]
for name, version, ids in bad:
    print(f"vulnerable: {name} {version}: {', '.join(ids)}")
print(f"vulnerabilities: {len(audited)} of {len(found)} packages audited, {len(bad)} with known ones")
if not audited:
    print("NOT AUDITED: no vulnerability service was reached (a mirror of packages alone has none)")
sys.exit(2 if bad else 0 if audited else 3)
PY

#!/bin/sh
# Lint what cannot run here by the tools made for it; deploy/bootstrap/lint_tools.sh installs them.
# Usage: deploy/containers/lint.sh [folder for the tools]     AIRFLOW_CHART=<unpacked chart>: render it too (needs helm)
set -eu
cd "$(dirname "$0")/../.."
tools=${1:-.venv/lint}
deploy/bootstrap/lint_tools.sh "$tools"
bin=$tools/bin
echo "hadolint:            $("$bin/hadolint" --version)"
"$bin/hadolint" deploy/containers/Dockerfile .devcontainer/Dockerfile
echo "docker compose:      $("$bin/docker-compose" version --short)"
compose=deploy/containers/compose.yaml
"$bin/docker-compose" -f "$compose" config --quiet
"$bin/docker-compose" -f "$compose" -f deploy/containers/compose.cuda.yaml --profile demo config --quiet
echo "kubernetes-validate: against Kubernetes 1.37"
"$bin/kubernetes-validate" --strict --quiet deploy/helm/manifests/*.yaml deploy/helm/gpu_pod.yaml
"$bin/yamllint" -d '{extends: relaxed, rules: {line-length: {max: 140}}}' deploy/helm deploy/containers
for script in deploy/containers/*.sh deploy/database/*.sh deploy/bootstrap/*.sh; do
  sh -n "$script"
done
if [ -n "${AIRFLOW_CHART:-}" ] && command -v helm >/dev/null 2>&1; then
  rendered=$(mktemp --suffix .yaml)
  helm template airflow "$AIRFLOW_CHART" -f deploy/helm/values.yaml > "$rendered"
  "$bin/kubernetes-validate" --quiet "$rendered"
  rm -f "$rendered"
  echo "helm template:       rendered and valid"
else
  echo "helm template:       not run (set AIRFLOW_CHART to the unpacked official chart and install helm)"
fi
echo "all clean"

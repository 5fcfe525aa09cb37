# Nightingale: `make help` lists what there is.
SHELL := /bin/sh
.DEFAULT_GOAL := help
VENV := .venv/bin
SETUP := deploy/bootstrap/setup.sh
FHIR ?= folder
# Measured: 78.5 % of lines and branches; two runs differ by some tenths, for Hypothesis draws anew.
COVERAGE_GATE ?= 77
export PYTHONHASHSEED := 0
export GX_ANALYTICS_ENABLED := False
# uv trusts what the machine trusts: many hospitals look into TLS with a certificate authority of their own.
export UV_SYSTEM_CERTS ?= 1
export AIRFLOW__CORE__LOAD_EXAMPLES := False

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk 'BEGIN {FS = ":.*## "} {printf "  make %-18s %s\n", $$1, $$2}'

.PHONY: setup
setup: ## Install what running needs into .venv
	@$(SETUP) runtime

.PHONY: setup-dev
setup-dev: ## Install what developing and testing need into .venv
	@$(SETUP) dev

.PHONY: demo
demo: setup ## The main job end to end on a synthetic hospital (FHIR=hapi: against a real HAPI and Orthanc)
	@$(VENV)/nightingale demo --fhir $(FHIR)

.PHONY: faults
faults: setup-dev ## Every fault of the menu, injected: case, injected, lost, duplicated, outcome
	@$(VENV)/python -m deploy.faults --json var/faults.json

.PHONY: test
test: setup-dev ## Static checks, the fast tests with their coverage gate, then every other test
	@$(MAKE) --no-print-directory check coverage
	@$(VENV)/python -m pytest -q -m "not fast"

.PHONY: check
check: setup-dev ## Lint, format, types, import arrows
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(VENV)/lint-imports --no-cache
	@$(VENV)/mypy

# One process a core, and one thread in each: torch's own threads would only stand in each other's way.
FAST := OMP_NUM_THREADS=1 $(VENV)/python -m pytest -q -n auto --dist worksteal -m fast tests/unit tests/contract

.PHONY: fast
fast: setup-dev ## Unit and contract tests that take less than ten seconds each, on every core
	@$(FAST)

.PHONY: coverage
coverage: setup-dev ## The same with coverage; fails below the gate
	@$(FAST) --cov --cov-report=term:skip-covered --cov-fail-under=$(COVERAGE_GATE)

.PHONY: lock
lock: setup-dev ## Resolve the locks again
	$(VENV)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header deploy/bootstrap/uv.in -o deploy/bootstrap/uv.lock.txt
	$(VENV)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header pyproject.toml --extra build -o requirements.lock
	$(VENV)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header pyproject.toml --extra build --extra test --extra docs -c requirements.lock -o requirements-dev.lock

.PHONY: lock-celery
lock-celery: setup-dev ## Resolve the lock of Celery workers again
	$(VENV)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-deps deploy/airflow/celery.in -c deploy/containers/requirements.lock -o deploy/airflow/celery.lock

.PHONY: test-celery
test-celery: setup-dev ## Airflow on two Celery workers, PostgreSQL and Redis; one worker is killed (minutes)
	@$(VENV)/uv pip install --quiet --python $(VENV)/python --target var/celery --no-deps --require-hashes -r deploy/airflow/celery.lock
	@PYTHONPATH=$(CURDIR)/var/celery $(VENV)/python -m pytest -q tests/integration/test_airflow_celery.py

.PHONY: bench
bench: setup-dev ## Every claim of speed beside a named peer, whole nights at 1, 10 and 100 times the demo hospital
	@$(VENV)/python tests/benchmark/bench.py

.PHONY: bench-profile
bench-profile: setup-dev ## Where the time goes: torch's profiler on MedFuse, Python's on scoring with explanations
	@$(VENV)/python tests/benchmark/bench_profile.py

.PHONY: bench-gpu
bench-gpu: setup-dev ## On a GPU: every model beside the released loop, roofline, busy share, agreement with the CPU
	@$(VENV)/python tests/benchmark/bench_gpu.py

.PHONY: bench-map
bench-map: setup-dev ## Rows/s and peak memory of mapping chartevents, beside pandas, row by row and gzip -dc
	@$(VENV)/python tests/benchmark/bench_map.py --repeat 2

.PHONY: bench-models
bench-models: setup-dev ## PhysioNet 2012 cross-validated, PTB-XL and NIH encoders: runs what is missing, prints tables (hours)
	@$(VENV)/python -m modelling.benchmarks.physionet2012 --data "$${NIGHTINGALE_DATA:-../shared/data}/physionet2012"
	@$(VENV)/python -m modelling.benchmarks.ptbxl --data "$${NIGHTINGALE_DATA:-../shared/data}/ptbxl"
	@$(VENV)/python -m modelling.benchmarks.nih --data "$${NIGHTINGALE_DATA:-../shared/data}/nih-cxr14"

.PHONY: bench-validation
bench-validation: setup-dev ## Confusion table of planted faults, false alarms on real signals, speed beside Great Expectations
	@$(VENV)/python tests/benchmark/bench_validation.py

.PHONY: reference
reference: setup-dev ## Write docs/configuration.md from the settings models
	@$(VENV)/python -m deploy.configuration.page

.PHONY: lint-deploy
lint-deploy: setup-dev ## Lint Dockerfile, compose, Kubernetes manifests and shell scripts by their own tools
	@deploy/containers/lint.sh

.PHONY: docs
docs: setup-dev ## Build the documentation site into site/, strictly
	@NO_MKDOCS_2_WARNING=1 $(VENV)/mkdocs build --strict && echo "site/index.html"

.PHONY: pictures
pictures: setup-dev ## Exercise the runbook on real servers; writes docs/pictures and var/exercise.txt
	@$(VENV)/python -m deploy.documentation.exercise

.PHONY: audit
audit: setup-dev ## Known vulnerabilities, CycloneDX bill of materials, licences
	@deploy/bootstrap/audit.sh

.PHONY: lock-containers
lock-containers: setup-dev ## Resolve the container's lock again
	$(VENV)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header pyproject.toml deploy/containers/requirements.in --extra build -c requirements.lock -o deploy/containers/requirements.lock

.PHONY: clean
clean: ## Remove what runs and the demo wrote
	rm -rf var

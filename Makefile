# batchgen: everything a clean machine with Python 3.11, pip and make needs is set up by the first target that needs it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MANIFEST ?= jobs/demo.yaml
API ?= sandbox
SEEDS ?= 0 5000
INTEROP := tests/interop/node_modules/.package-lock.json

.PHONY: help run test debian soak nights endurance bench mutants format clean
.DEFAULT_GOAL := help

help: ## list these targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 11

run: $(VENV)/installed ## make the pictures of MANIFEST (jobs/demo.yaml) by API (sandbox; nebula for real ones)
	@exec $(BIN)/batchgen run $(MANIFEST) --api $(API)

# The tests start hundreds of processes: what is compiled is kept for them, whatever the environment says.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(VENV)/installed-dev debian $(INTEROP) ## what CI runs: style, types, import contract, tests with coverage
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2 --dist loadgroup --cov --cov-report=term

# Programs that tests read pictures and pages with: installed where that is possible, else their tests are skipped.
debian:
	@missing=; for name in $$(cat tests/debian.txt); do dpkg -s $$name >/dev/null 2>&1 || missing="$$missing $$name"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
	  && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null; then exit 0; fi; \
	echo "not installed, tests that need them are skipped:$$missing"

soak: $(VENV)/installed-dev ## the long form of crash tests and properties: all file operations, hundreds of kills, new examples
	BATCHGEN_SOAK=1 $(BIN)/python -m pytest tests/test_crash.py --timeout 3600 -q
	BATCHGEN_SOAK=1 $(BIN)/python -m pytest -m hypothesis -n 2 --timeout 3600 -q

nights: $(VENV)/installed-dev ## thousands of simulated nights (SEEDS="0 5000"), every failing file operation, every cut byte
	PYTHONPATH=tests $(BIN)/python -m nights $(SEEDS)
	BATCHGEN_SOAK=1 $(BIN)/python -m pytest -n 2 tests/test_io_sweep.py --timeout 7200 -q

endurance: $(VENV)/installed ## an hour with faults, then 100,000 jobs: does memory grow, do the numbers add up
	$(BIN)/python benchmarks/soak.py hour
	$(BIN)/python benchmarks/soak.py jobs

mutants: $(VENV)/installed-dev ## break the code that decides about money, one place at a time: does a test notice?
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[mutants]'
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/mutmut run --max-children 2
	$(BIN)/python tests/mutants.py

bench: benchmarks/.venv/installed ## batchgen beside the ways that others fetch the same pictures (needs nginx: apt-get install nginx-light)
	benchmarks/.venv/bin/python benchmarks/bench.py
	benchmarks/.venv/bin/python benchmarks/scale.py

format: $(VENV)/installed-dev ## bring all code into the project's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what make made; pictures and logs stay
	rm -rf $(VENV) tests/interop/node_modules mutants .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage .coverage.*

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/installed-dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/installed

# A server that others wrote, for tests; without npm they are skipped and say so.
$(INTEROP): tests/interop/package.json tests/interop/package-lock.json
	@if command -v npm >/dev/null; then \
	  cd tests/interop && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && touch node_modules/.package-lock.json; \
	else echo "npm is not here: the tests against aimock are skipped"; fi

benchmarks/.venv/installed: pyproject.toml
	$(PYTHON) -m venv benchmarks/.venv
	benchmarks/.venv/bin/pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

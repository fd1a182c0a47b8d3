# One name per habit. `make run` needs only Python 3.11+, make and a package index.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Byte-code makes the second start twice as fast; some environments switch it off.
export PYTHONDONTWRITEBYTECODE :=

INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --compile-bytecode \
	--build-constraints requirements/build.txt

# For tools that import the settings and connect to nothing.
SETTINGS := SCALE_SECRET_KEY=check DATABASE_URL=postgresql:///check?host=/nonexistent

.PHONY: run test check check-fast faults bench bench-rest docs lock clean

run: $(VENV)/run.stamp ## install what is missing and start everything on this machine
	@exec $(BIN)/scale up $(UP)

test: $(VENV)/dev.stamp ## every test, acceptance tests too
	$(BIN)/pytest

check-fast: $(VENV)/dev.stamp ## what the pre-commit hook runs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

check: check-fast ## format, lint, types, import layers, migrations, unit tests
	$(SETTINGS) $(BIN)/mypy
	$(BIN)/lint-imports
	$(SETTINGS) $(BIN)/python -W ignore manage.py makemigrations --check --dry-run
	$(BIN)/python docs/generate.py --check
	$(BIN)/pytest tests/unit

faults: $(VENV)/dev.stamp ## kill every part under load, e.g. make faults SEED=7 COUNT=1000
	$(BIN)/python -W error tests/faults --seed $(or $(SEED),1) --count $(or $(COUNT),500)
	SCALE_TEST_FLOOD_MIB=1024 $(BIN)/pytest -q -s tests/acceptance/test_bad_logs.py -k memory

bench: $(VENV)/dev.stamp ## the figures of docs/benchmarks.md
	$(BIN)/python tests/bench
	$(BIN)/python tests/bench/reconcile.py

bench-rest: $(VENV)/dev.stamp ## the REST interface over large tables, e.g. make bench-rest ROWS="10000 1000000"
	$(BIN)/python tests/bench/rest.py $(ROWS)

docs: $(VENV)/dev.stamp ## the pages that are made from code
	$(BIN)/python docs/generate.py

lock: $(VENV)/uv.stamp ## resolve the dependencies; UPGRADE=--upgrade takes the newest
	sh requirements/lock.sh $(BIN)/uv $(UPGRADE)

clean: ## remove the environment and the caches
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/uv.stamp: requirements/bootstrap.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'Scale needs Python 3.11 or later; set PYTHON=/path/to/python3.11'; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo 'python3 cannot make a virtual environment; on Debian: apt install python3-venv'; exit 1; }
	@echo 'Installing into $(VENV) ...'
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

$(VENV)/run.stamp: $(VENV)/uv.stamp requirements/run.txt requirements/build.txt setup.cfg compat/http-parser/pyproject.toml
	@$(INSTALL) -r requirements/run.txt ./compat/http-parser --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp requirements/dev.txt
	@$(INSTALL) -r requirements/dev.txt
	@touch $@

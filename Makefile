# Agora: `make demo` and `make test` need Python 3.11 to 3.13 and make, nothing else.

SHELL := /bin/sh
PYTHON ?= python3
# uv from PATH, else one of our own in .uv (made below)
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
BIN := .venv/bin
# modules side by side, each with servers of its own
TWO_AT_A_TIME := -n 2 --dist loadfile
DEMO_USERS ?= 10000
DEMO_EVENTS ?= 300000

.DEFAULT_GOAL := help
.PHONY: help install demo test test-unit test-integration test-faults test-faults-quick lint ui down clean

help: ## Show this list
	@echo "make TARGET, where TARGET is one of:"
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/.installed ## Make the environment (.venv); nothing outside the checkout is touched

.venv/.installed: pyproject.toml uv.lock | $(UV)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	    { echo "Agora needs Python 3.11, 3.12 or 3.13: PYTHON=/path/to/python3.11 make $(MAKECMDGOALS)" >&2; exit 2; }
	VIRTUAL_ENV= UV_PROJECT_ENVIRONMENT=.venv $(UV) sync --frozen --quiet --python "$(PYTHON)"
	@touch $@

.uv/bin/uv:
	@echo "Fetching uv into .uv"
	@$(PYTHON) -m venv .uv 2>/dev/null && .uv/bin/python -m pip install --quiet --disable-pip-version-check uv \
	    || { rm -rf .uv && $(PYTHON) -m pip install --quiet --disable-pip-version-check --prefix .uv uv; } \
	    || { echo "uv could not be installed: install Python's venv module (Debian: python3-venv) or uv itself" >&2; exit 2; }
	@test -x $@ || { mkdir -p .uv/bin && ln -sf ../local/bin/uv $@ && test -x $@; }

demo: install ## Simulate a shop, land, build, fit, publish, and show the result
	@$(BIN)/agora up
	@$(BIN)/agora simulate ecommerce --out .agora/demo/ecommerce --seed 1 --users $(DEMO_USERS) --events $(DEMO_EVENTS) --months 2
	@$(BIN)/agora load ecommerce.events .agora/demo/ecommerce
	@$(BIN)/agora run ecommerce

test: install lint test-unit test-integration test-faults-quick ## All checks and tests but the slow fault tests

lint: install ## ruff, mypy, import contracts, dg check defs (sqlfluff needs a server: test-integration runs it)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	AGORA_HOME="$(CURDIR)/.agora" VIRTUAL_ENV="$(CURDIR)/.venv" $(BIN)/dg check defs

test-unit: install ## Tests that need no server
	$(BIN)/python -m pytest tests/unit -q $(TWO_AT_A_TIME)

test-integration: install ## Tests on a real Postgres: once on the socket, once over TCP with role passwords
	$(BIN)/python -m pytest tests/integration -q --transport=socket $(TWO_AT_A_TIME)
	$(BIN)/python -m pytest tests/integration -q --transport=tcp $(TWO_AT_A_TIME)

test-faults: install ## Kills, full disks, bad company; AGORA_FAULT_SEED=N repeats the moments of a run
	$(BIN)/python -m pytest tests/faults -q $(TWO_AT_A_TIME)

test-faults-quick: install ## The quick ones of them
	$(BIN)/python -m pytest tests/faults -q -m "not slow" $(TWO_AT_A_TIME)

bench-%: install ## Run a benchmark: prints a table, writes benchmarks/results/WHAT.json
	$(BIN)/python benchmarks/$(subst -,_,$*).py

ui: install ## Open Dagster on this machine
	@$(BIN)/agora ui

down: install ## Stop the embedded server
	@$(BIN)/agora down

clean: ## Remove the environment (state in .agora stays)
	rm -rf .venv .uv

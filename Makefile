# Reprise. `make` alone lists what there is; every other target sets up `.venv` first, so none needs a step before it.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# `.venv` is made from the first of these that is new enough. `make PYTHON=/path/to/python …` names another.
PYTHON ?= python3 python3.13 python3.12 python3.11

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-toolchains soak lint format guests bench screenshots clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv and install Reprise in it, editable, with everything

$(STAMP): pyproject.toml
	@set -e; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	    found=; without_venv=; \
	    for candidate in $(PYTHON); do \
	        "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
	        if "$$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then found=$$candidate; break; fi; \
	        without_venv=$${without_venv:-$$candidate}; \
	    done; \
	    if [ -z "$$found" ] && [ -n "$$without_venv" ]; then \
	        echo "error: $$without_venv has no venv module: install it (on Debian and Ubuntu, the package python3-venv), then run make again" >&2; \
	        exit 1; \
	    elif [ -z "$$found" ]; then \
	        echo "error: no Python 3.11 or newer found (tried $(PYTHON)): install one, or name it with make PYTHON=/path/to/python" >&2; \
	        exit 1; \
	    fi; \
	    echo "Making $(VENV) with $$("$$found" --version)" >&2; \
	    "$$found" -m venv --clear $(VENV); \
	fi
	@echo "Installing Reprise and its tools into $(VENV); the first time takes a minute or two" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all,dev]'
	@touch $@

demo: $(STAMP) ## record an agent, replay it, and look at it: the tour
	@$(BIN)/reprise demo

test: lint ## what a change must pass: lint, types, layers, tests
	$(BIN)/pytest -n auto -m 'not toolchain and not soak'

test-toolchains: $(STAMP) ## rebuild the guests with their compilers and compare the bytes
	$(BIN)/pytest -m toolchain

soak: $(STAMP) ## the tests that run for minutes
	$(BIN)/pytest -m soak

lint: $(STAMP) ## ruff, formatting, mypy, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

screenshots: $(STAMP) ## draw the pictures of the documentation
	$(BIN)/python -m tests.inspector.scenes docs/images

format: $(STAMP) ## format the code and apply ruff's safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

guests: $(STAMP) ## build the test guests from their sources
	$(BIN)/python tests/guests/build.py

bench: $(STAMP) ## measure the ratios, side by side in one run
	$(BIN)/python benchmarks/bench.py

clean: ## remove .venv, caches and build output
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# `make demo` and `make test` set up what they need: a machine with make and Python >= 3.11 is enough.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RECIPE := recipes/dsco_digits_3.yaml
OFFLINE := -m "not gpu and not network and not browser"
# Tests of a file share what they build, so that files go to workers whole; a worker takes up to 2 GB.
WORKERS := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
export DVC_NO_ANALYTICS = 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-gpu lint format types check build clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY)  ## make .venv and install distillhub with everything its developers use

$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 found; name one with: make PYTHON=/path/to/python3"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

demo: $(READY)  ## build the demo dataset from the built-in digits, a few minutes on two cores
	$(BIN)/distillhub build $(RECIPE)

test: $(READY)  ## all tests that need no GPU, no network and no browser
	$(BIN)/python -m pytest $(OFFLINE) $(WORKERS) $(ARGS)

test-fast: $(READY)  ## the tests to run while working
	$(BIN)/python -m pytest $(ARGS)

test-gpu: $(READY)  ## the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu $(ARGS)

lint: $(READY)  ## what ruff says
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)  ## let ruff mend what it can
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

types: $(READY)  ## what mypy says
	@mkdir -p build/types && ln -sfn ../../cli build/types/distillhub_cli
	$(BIN)/mypy -p distillhub -p distillhub_cli

check: lint types test  ## what has to pass before a change goes in

build: $(READY)  ## a wheel and a source archive in dist/
	$(BIN)/python -m build

clean:  ## remove what the tools left behind; datasets and checkpoints stay (see `distillhub clean`)
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

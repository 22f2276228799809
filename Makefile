# One short command per habit. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The interpreter that makes .venv; and the one that makes .venv-tensorflow, for which 3.11 is the
# newest that TensorFlow 2.15 is published for.
PYTHON ?= python3
PYTHON_TENSORFLOW ?= $(PYTHON)
# How long the random part of `make faults` goes on.
SOAK_SECONDS ?= 75
# Fast tests compute, so one process for each core; the others mostly wait for daemons and jobs.
CORES := $(shell nproc)
FAST_WORKERS ?= $(CORES)
E2E_WORKERS ?= $(shell echo $$(($(CORES) * 3 / 2)))
VENV := .venv
VENV_TENSORFLOW := .venv-tensorflow
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-19s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(INSTALLED) ## make .venv and install the package into it (1 minute the first time)

$(INSTALLED): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed: make PYTHON=… $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	    f"Python 3.11 or later is needed, and this is {sys.version.split()[0]}: make PYTHON=python3.11 …")'
	@echo "setup: installing the package and its tools into $(VENV): a minute the first time"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

.PHONY: horovod
horovod: setup ## add PyTorch and Horovod to .venv (2 minutes, once per machine)
	@$(BIN)/python tools/build_horovod.py --framework torch --venv $(VENV)

.PHONY: horovod-tensorflow
horovod-tensorflow: ## make .venv-tensorflow with TensorFlow and Horovod (6 minutes, once per machine)
	@$(PYTHON_TENSORFLOW) tools/build_horovod.py --framework tensorflow --venv $(VENV_TENSORFLOW)

.PHONY: demo
demo: horovod ## train a real model through a control plane and two agents on this machine
	@$(BIN)/python tools/demo.py

.PHONY: picture
picture: horovod ## run the demonstration, and draw what it shows into docs/demo.svg
	@$(BIN)/python tools/picture.py

.PHONY: serve
serve: horovod ## serve what `make demo` made, until Ctrl-C; `source .demo/env` points ccctl at it
	@$(BIN)/python tools/demo.py --serve

.PHONY: check
check: lint ## the quick loop: lint, types, import rules, fast tests
	$(BIN)/pytest -q -n $(FAST_WORKERS) --dist worksteal \
	    -m "not e2e and not slow and not tensorflow and not guest"

.PHONY: lint
lint: setup ## only the part of `check` that runs no code
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/buf lint protos

.PHONY: format
format: setup ## put code into form, and mend what can be mended without thought
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: test
test: export EXAMPLES ?= 1
test: check horovod ## everything: `check`, then real daemons, real jobs, real Horovod
	$(BIN)/pytest -q -n $(E2E_WORKERS) --dist worksteal \
	    -m "(e2e or slow) and not tensorflow and not guest"

.PHONY: faults
faults: setup ## have every process die, stop or be cut off at every step, then all at random
	$(BIN)/python -m tests.faults
	$(BIN)/python -m tests.faults.soak --seconds $(SOAK_SECONDS)

.PHONY: soak
soak: setup ## five minutes of every fault at random, with 16 clients; SOAK="--seed 7" replays
	$(BIN)/python -m tests.faults.soak $(SOAK)

.PHONY: test-tensorflow
test-tensorflow: setup horovod-tensorflow ## the tests that train with TensorFlow
	$(BIN)/pytest -q -m tensorflow

.PHONY: test-guest
test-guest: setup ## power cuts, and control groups of version 2, in machines of their own (as root; 15 minutes)
	$(BIN)/pytest -q -s -m guest

.PHONY: protos
protos: setup ## generate controlplane/v1 from protos/
	$(BIN)/buf lint protos
	$(BIN)/python tools/protos.py

.PHONY: bench
bench: setup ## measure throughput and latency, and print the table
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.steps
	$(BIN)/python -m benchmarks.logs
	$(BIN)/python -m benchmarks.preflight
	$(BIN)/python -m benchmarks.reports
	$(BIN)/python -m benchmarks.watching
	$(BIN)/python -m benchmarks.registry
	$(BIN)/python -m benchmarks.scheduler

.PHONY: clean
clean: ## remove what was made here; kept wheels of Horovod stay in the user's cache
	rm -rf $(VENV) $(VENV_TENSORFLOW) .demo build dist ./*.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

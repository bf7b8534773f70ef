# Everything here sets itself up: only make and Python 3.11-3.13 (with venv) are needed.
# PYTHON=python3.12 picks another interpreter; PIP_ARGS="..." goes to pip (an index of CPU-only torch wheels, say).

VENV := .venv
LOWEST := .venv-lowest
BIN := $(VENV)/bin
SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,$(shell $(p) -c '$(SUITABLE)' 2>/dev/null && echo $(p))))
# A file's tests stay together: they may share what is dear to start. A good part of their time they wait, for processes
# and clocks: there is one worker more than cores.
WORKERS = $(shell $(BIN)/python -c 'import os; print(min(4, 1 + (os.cpu_count() or 1)))')
PARALLEL = --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
# What Ray of those days leaves to Python's collector, and says of days to come.
OLD_WARNINGS := -W ignore::pytest.PytestUnraisableExceptionWarning -W ignore:Tip:FutureWarning
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Hundreds of processes start below: each would compile hierfl anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-all test-lowest check bench clean
.DEFAULT_GOAL := help

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.installed ## Train four real hospitals together on Ray, and show what came out
	@$(BIN)/hierfl run configs/heart.yaml --report

test: check ## Format, lint, types, and all tests but the slow ones
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

test-all: check ## The same with the slow tests
	$(BIN)/python -m pytest $(PARALLEL)

test-lowest: ## The tests but the slow ones, with the oldest packages that pyproject.toml admits
	@$(MAKE) --no-print-directory VENV=$(LOWEST) $(LOWEST)/bin/python
	$(LOWEST)/bin/python -m pip --disable-pip-version-check --quiet install uv
	$(LOWEST)/bin/uv pip install --python $(LOWEST) --resolution lowest-direct --quiet $(PIP_ARGS) -e '.[dev]'
	$(LOWEST)/bin/python -m pytest $(PARALLEL) -m "not slow" $(OLD_WARNINGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@$(BIN)/python -m pytest --collect-only --quiet > /dev/null 2>&1 & $(BIN)/mypy; found=$$?; wait; exit $$found

bench: $(VENV)/.installed-dev ## Measure, beside a plain loop and a bare Ray actor pool
	$(BIN)/python -m benchmarks

clean: ## Remove the environment and the caches; runs/ stays
	rm -rf $(VENV) $(LOWEST) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(or $(PYTHON),false) -c '$(SUITABLE)' 2>/dev/null || { echo "$(or $(PYTHON),nothing here) is no Python 3.11-3.13 \
	with venv; install one (on Debian python3 and python3-venv), or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# A .venv of another Python, made by hand or by an older checkout, is told; pip would only name the two versions.
FITTING = $(BIN)/python -c '$(SUITABLE)' 2>/dev/null || { echo "$(VENV) has no Python 3.11-3.13: make clean" >&2; exit 1; }

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@$(FITTING)
	@echo "installing hierfl into $(VENV); torch and Ray are large, the first time takes minutes"
	$(PIP) install --upgrade pip
	$(PIP) install $(PIP_ARGS) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@$(FITTING)
	@echo "installing hierfl and its tools into $(VENV); torch and Ray are large, the first time takes minutes"
	$(PIP) install --upgrade pip
	$(PIP) install $(PIP_ARGS) -e '.[dev]'
	@touch $(VENV)/.installed $@

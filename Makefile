# Every command sets up what it needs: a .venv made by uv from requirements.lock.
.PHONY: help install demo test test-all faults lint serve stack bench docs lock
.DEFAULT_GOAL := help

PYTHON ?= python3
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
BIN := .venv/bin

help:
	@echo "make demo     attack, harden and attack again a real classifier, through the REST API"
	@echo "make serve    the service on http://127.0.0.1:8000"
	@echo "make stack    a team's service as processes: Postgres, Redis, API, worker, reconciler; docs/deploy.md"
	@echo "make test     the tests        make lint   ruff, mypy --strict, import-linter, hadolint"
	@echo "make test-all the long tests as well"
	@echo "make bench    speed, against peers      make faults   kill -9, cut wires, full disks: all fault tests"
	@echo "make docs     the documentation as a site, in site/"

install: .venv/installed

.venv/installed: requirements.lock pyproject.toml client/pyproject.toml | $(UV)
	@echo "temper: installing into .venv (torch is large: a few minutes the first time)"
	@$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	@$(UV) pip install --quiet --python $(BIN)/python -r requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable . --editable ./client
	@touch $@
	@echo "temper: installed"

.uv/bin/uv:
	@echo "temper: fetching uv"
	@$(PYTHON) -m venv .uv
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check uv

demo: install
	@$(BIN)/python examples/demo.py

serve: install
	@$(BIN)/temperd serve

# Ctrl-C ends it; the data stays in temper-stack/. ARGS="--help" says what it takes.
stack: install
	@$(BIN)/python -m stack $(ARGS)

# One thread a process: torch's own threads would fight over the cores. More processes than cores: fault tests mostly wait.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(shell echo $$(($$(env -u OMP_NUM_THREADS nproc) * 3 / 2))) --dist worksteal

test: install
	@$(PYTEST)

# The long ones too: before a release.
test-all: install
	@$(PYTEST) -m "long or not long"

# All about crashes, the long ones too; those that take seconds are among the tests already.
faults: install
	@$(PYTEST) tests/faults tests/team tests/jobs tests/worker -m "long or not long"

lint: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/hadolint Dockerfile

bench: install
	@$(BIN)/python -m benchmarks

# The documentation as a site in site/; docs/api.md is written from the code.
docs: install
	@$(BIN)/python -m api.reference > docs/api.md
	@$(BIN)/zensical build --strict

# Exact versions of everything, without index addresses; written anew by hand when dependencies change. The second one is
# what of it runs in production, and what the container image installs.
COMPILE := pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-header --no-annotate
lock: | $(UV)
	@$(UV) $(COMPILE) --extra dev --output-file requirements.lock pyproject.toml
	@$(UV) $(COMPILE) --constraint requirements.lock --output-file requirements-run.lock pyproject.toml

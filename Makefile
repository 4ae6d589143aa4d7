# Every command sets up what it needs: a .venv made by uv from requirements.lock.
.PHONY: help install demo test lint serve bench lock
.DEFAULT_GOAL := help

PYTHON ?= python3
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
BIN := .venv/bin

help:
	@echo "make demo     attack, harden and attack again a real classifier, through the REST API"
	@echo "make serve    the service on http://127.0.0.1:8000"
	@echo "make test     the tests        make lint   ruff, mypy --strict, import-linter"
	@echo "make bench    speed, against peers"

install: .venv/installed

.venv/installed: requirements.lock pyproject.toml | $(UV)
	@echo "temper: installing into .venv (torch is large: a few minutes the first time)"
	@$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	@$(UV) pip install --quiet --python $(BIN)/python -r requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
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

# One thread a process, one process a core: torch's own threads would fight over the cores.
test: install
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

lint: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: install
	@$(BIN)/python -m benchmarks

# Exact versions of everything, without index addresses; written anew by hand when dependencies change.
lock: | $(UV)
	@$(UV) pip compile --quiet --universal --python-version 3.11 --extra dev --no-emit-index-url \
		--no-header --no-annotate --output-file requirements.lock pyproject.toml

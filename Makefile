# `make test` makes .venv if it is missing, installs, then runs linters and tests.
PYTHON ?= python3
BIN := .venv/bin

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -e ".[mri,demo,log,dev]"
	touch $@

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

.PHONY: test

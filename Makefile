# Each target makes .venv if it is missing and installs: `make demo` then shows the main job on bundled data,
# `make test` runs linters and tests, `make docs` writes the documentation as a site to build/site.
PYTHON ?= python3
BIN := .venv/bin

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -e ".[mri,demo,log,dev,docs]"
	touch $@

demo: .venv/installed
	$(BIN)/msm demo

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest --numprocesses auto

docs: .venv/installed
	$(BIN)/sphinx-build -q -W --keep-going -c docs . build/site
	@echo build/site/index.html

.PHONY: demo test docs

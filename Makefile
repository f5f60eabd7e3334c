# PYTHON and VENV may be set on the command line: make test PYTHON=python3.13 VENV=.venv-3.13
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: train test test-slow test-all test-release check mutants benchmark docs

train: $(VENV)/installed
	$(BIN)/kaem train --config digits

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

# What takes long: processes, laws of draws, runs in full. With UNTIL, a Unix time in seconds, what would start later is
# skipped.
test-slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "slow and not release" $(if $(UNTIL),--start_until=$(UNTIL))

# Both of these tiers.
test-all: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not release"

# What makes sense before a release only.
test-release: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m release

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

# Random mistakes in src, and the fast tests that execute them; half an hour of two cores.
mutants: $(VENV)/installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[mutants]'
	$(BIN)/python tools/mutants.py

benchmark: $(VENV)/installed
	$(BIN)/python benchmarks/prior.py
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/launch.py

# Warnings are errors, and the tutorial is run.
docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ $(VENV)/installed

# Every target makes its own environment: a fresh machine needs Python 3.11+ only.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# One process a core, at most eight: each holds 2 GB. An idle one takes tests of another.
PYTEST := $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=8 --dist=worksteal
DOCS_INSTALLED := $(VENV)/.installed-docs

.PHONY: demo test test-slow test-all coverage lint format check bench bench-check docs notebooks build release clean

demo: $(INSTALLED)
	$(BIN)/python tools/demo.py

test: $(INSTALLED)
	$(PYTEST)

test-slow: $(INSTALLED)
	$(PYTEST) -m slow

test-all: $(INSTALLED)
	$(PYTEST) -m "slow or not slow"

coverage: $(INSTALLED)
	$(PYTEST) --cov

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint test

bench: $(INSTALLED)
	$(BIN)/python -m tools.benchmark

bench-check: $(INSTALLED)
	$(BIN)/python -m tools.benchmark.check

# Material's notice on MkDocs 2 is not about this site.
docs: $(DOCS_INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

notebooks: $(DOCS_INSTALLED)
	$(BIN)/python -m jupytext --to ipynb notebooks/*.py

build: $(INSTALLED)
	$(BIN)/python -m build

release: $(INSTALLED)
	$(BIN)/python -m tools.release

$(INSTALLED): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else \
	"Python 3.11 or later is needed: received %s. Try: make PYTHON=python3.12 ..." \
	% sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

$(DOCS_INSTALLED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .coverage* .mypy_cache .pytest_cache .ruff_cache runs site \
		notebooks/*.ipynb

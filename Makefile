# Everything is installed inside the checkout: in .venv, and in .bench the other queues that `make bench` measures.
# Needed: git, make, and Python 3.11 or later with pip. Another interpreter: make test PYTHON=python3.13
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Dependency groups of pyproject.toml that the tests use. CI adds `typing`.
DEPENDENCIES ?= test integrations lint
# Tests spend more than half of their time waiting for processes.
AT_ONCE ?= $(shell echo $$((3 * $$(nproc 2>/dev/null || echo 1))))
PYTEST = $(BIN)/python -m pytest -n $(AT_ONCE) --dist load --maxschedchunk 1

.DEFAULT_GOAL := help
.PHONY: help demo dashboard test test-all test-oldest tests-with-oldest mutants lint bench docs clean

help:
	@echo "make demo      half a minute: enqueue, retry, kill -9, recover"
	@echo "make dashboard the dashboard, on a demo database with workers; Ctrl-C ends it"
	@echo "make test      half an hour: every test, each on the engines that can make it fail"
	@echo "make test-all  every test on every engine, and the tests of integrations with the oldest libraries"
	@echo "make test-oldest  tests of integrations with the oldest libraries that pyproject.toml allows"
	@echo "make mutants   break the code on purpose, one fault at a time, and check that the tests notice"
	@echo "make lint      ruff and mypy"
	@echo "make bench     measure the figures of docs/benchmarks.md"
	@echo "make docs      build the documentation site into docs/_build/html"
	@echo "make clean     remove what the other commands installed"

demo: $(VENV)/.demo
	@$(BIN)/dbtaskqueue demo

dashboard: $(VENV)/.dashboard
	@$(BIN)/dbtaskqueue demo --dashboard $(ARGS)

# SECOND_TRY=1, for CI: what has failed beside other tests runs again, alone, and must then pass. Such a test, or the
# code that it tests, still has a fault: its first failure is in the log.
test: $(VENV)/.test
	$(PYTEST) $(ARGS) $(if $(SECOND_TRY),|| { echo "SECOND TRY of the tests that have failed"; \
	    $(PYTEST) $(ARGS) -n 0 --last-failed --last-failed-no-failures none; })

test-all: $(VENV)/.test
	$(PYTEST) --all-engines $(ARGS)
	@$(MAKE) --no-print-directory test-oldest

# In an environment of its own. ARGS of test-all may name files, so they are not passed on.
test-oldest:
	@$(MAKE) --no-print-directory VENV=.venv-oldest tests-with-oldest

tests-with-oldest: $(VENV)/.oldest
	$(PYTEST) tests/integrations tests/dashboard/test_mounts.py

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

mutants: $(VENV)/.test
	$(BIN)/python tests/mutants $(ARGS)

bench: $(VENV)/.test
	$(BIN)/python -m bench $(ARGS)

docs: $(VENV)/.docs
	@rm -rf docs/_build
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --fresh-env --quiet docs docs/_build/html $(ARGS)
	@echo "The site is in docs/_build/html/index.html"

# The interpreter is part of a file's name, so a different one gets a new environment. This code runs on every Python,
# including those that are too old.
PYTHON_NAME := $(shell $(PYTHON) -c 'import sys, zlib; print("%d.%d.%d-%08x" % (sys.version_info[:3] + (zlib.crc32(sys.prefix.encode()) & 0xffffffff,)))' 2>/dev/null)
ENVIRONMENT = $(VENV)/.python-$(PYTHON_NAME)
# The cache is off, so that nothing is written outside the checkout; the variable is for the pip that builds in isolation.
INSTALL = PIP_NO_CACHE_DIR=1 $(PYTHON) -m pip --python $(BIN)/python install --quiet --no-cache-dir --disable-pip-version-check

# A fresh Debian may lack python3-venv, so the environment is made without pip, and filled from outside.
$(ENVIRONMENT):
	@command -v $(PYTHON) >/dev/null || { \
	    echo "dbtaskqueue needs Python 3.11 or later; there is no $(PYTHON) here. Name yours: make demo PYTHON=python3.13" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "dbtaskqueue needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another: make demo PYTHON=python3.13" >&2; exit 1; }
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || { \
	    echo "dbtaskqueue needs pip to install what it depends on; $(PYTHON) has none (Debian: apt install python3-pip)" >&2; exit 1; }
	@echo "Making a virtual environment in $(VENV) with $$($(PYTHON) -V)."
	@rm -rf $(VENV)
	@$(PYTHON) -m venv --without-pip $(VENV)
	@touch $@

$(VENV)/.demo: $(ENVIRONMENT) pyproject.toml
	@echo "Installing dbtaskqueue and its command line into $(VENV)."
	@$(INSTALL) --editable .
	@touch $@

$(VENV)/.dashboard: $(ENVIRONMENT) pyproject.toml
	@echo "Installing dbtaskqueue with its dashboard into $(VENV)."
	@$(INSTALL) --editable '.[dashboard]'
	@touch $@ $(VENV)/.demo

$(VENV)/.test: $(ENVIRONMENT) pyproject.toml
	@echo "Installing dbtaskqueue, the drivers and the test tools into $(VENV), PostgreSQL among them: 300 MB."
	@$(INSTALL) --editable . $$($(BIN)/python bench/requirements.py $(DEPENDENCIES))
	@touch $@ $(VENV)/.demo

$(VENV)/.oldest: $(ENVIRONMENT) pyproject.toml
	@echo "Installing dbtaskqueue, the oldest libraries that it works with and the test tools into $(VENV)."
	@$(INSTALL) --editable . $$($(BIN)/python bench/requirements.py --oldest test)
	@touch $@ $(VENV)/.demo

$(VENV)/.docs: $(ENVIRONMENT) pyproject.toml
	@echo "Installing dbtaskqueue and Sphinx into $(VENV)."
	@$(INSTALL) --editable . $$($(BIN)/python bench/requirements.py docs)
	@touch $@ $(VENV)/.demo

clean:
	rm -rf .venv .venv-* .bench docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis

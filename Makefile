# Everything is set up inside of the checkout: .venv (and .bench for the rivals of `make bench`).
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
# half of what tests do is to wait for processes of theirs
AT_ONCE ?= $(shell echo $$((2 * $$(nproc 2>/dev/null || echo 1))))

.PHONY: demo test lint bench clean

demo: $(STAMP)
	$(BIN)/dbtaskqueue demo
	@echo
	@$(BIN)/python examples/long_task.py

test: $(STAMP)
	$(BIN)/python -m pytest -n $(AT_ONCE) --dist worksteal $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python -m bench $(ARGS)

# A fresh Debian may lack python3-venv: then the environment is made without pip, and filled from outside.
# No cache: nothing is written outside of the checkout; the variable is for the pip that builds in isolation.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv --without-pip $(VENV)
	PIP_NO_CACHE_DIR=1 $(PYTHON) -m pip --python $(BIN)/python install --quiet --no-cache-dir --disable-pip-version-check \
	    --editable . $$($(BIN)/python bench/requirements.py test lint)
	touch $@

clean:
	rm -rf .venv .venv-* .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis

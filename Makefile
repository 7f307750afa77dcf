# make demo   train, sample and score a model of real digits; writes runs/digits/report.html
# make test   every test; test-fast leaves out what is slow, test-optimised compiles as users do
# make lint   style, format and types
# Each command first makes .venv and installs jaxdiff in it, when that is not done yet.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= auto
# The newer Pythons that are here, each once.
NEWEST ?= $(shell for v in 3.12 3.13; do for p in python$$v $(HOME)/.pyenv/versions/$$v*/bin/python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && echo $$p && break; done; done)

.PHONY: install demo test test-fast test-optimised test-newest lint format clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "jaxdiff needs Python 3.11 or newer, got $$($(PYTHON) --version 2>&1); name one with make PYTHON=python3.11" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/jaxdiff train --config=configs/digits.py --workdir=runs/digits
	$(BIN)/jaxdiff evaluate --workdir=runs/digits
	$(BIN)/jaxdiff report --workdir=runs/digits

# A worker takes a run of neighbours, and steals the far half of another's: a file is hardly ever divided, and so what its
# tests share is made once.
test: install
	$(BIN)/python -m pytest --numprocesses=$(JOBS) --dist=worksteal $(PYTEST)

test-fast: override PYTEST += -m "not slow"
test-fast: test

# XLA's optimisations and its own flags: what is said in the environment, tests/conftest.py leaves as it is.
test-optimised: export JAX_DISABLE_MOST_OPTIMIZATIONS = 0
test-optimised: export XLA_FLAGS = --xla_force_host_platform_device_count=4
test-optimised: test

test-newest:
ifeq ($(strip $(NEWEST)),)
	@echo "no Python 3.12 or newer found: name one with make test-newest NEWEST=/path/to/python3.12"
else
	@for python in $(NEWEST); do \
		$(MAKE) test PYTHON=$$python VENV=.venv-$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])') || exit; \
	done
endif

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf runs build dist *.egg-info .pytest_cache .ruff_cache

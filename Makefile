# make demo   train, sample and score a model of real digits; writes runs/digits/report.html
# make test   every test
# make lint   style, format and types
# Each command first makes .venv and installs jaxdiff in it, when that is not done yet.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= auto
NEWEST ?= $(shell for p in python3.13 python3.12 $(HOME)/.pyenv/versions/3.12*/bin/python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && echo $$p && break; done)

.PHONY: install demo test test-newest lint format notebooks bench clean

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

test: install
	$(BIN)/python -m pytest --numprocesses=$(JOBS) --dist=worksteal $(PYTEST)

test-newest:
ifeq ($(strip $(NEWEST)),)
	@echo "no Python 3.12 or newer found: name one with make test-newest NEWEST=/path/to/python3.12"
else
	$(MAKE) test PYTHON=$(NEWEST) VENV=.venv-newest
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

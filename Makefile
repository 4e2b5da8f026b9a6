# Keystead's workshop. Two commands matter on a fresh machine with Python 3.11 or later, and each does its own set-up:
#   make demo    runs the product, embedded
#   make test    runs the gates and the tests
# `make help` lists the rest. PYTHON names the interpreter that makes .venv/ (default: python3).

SHELL := /bin/sh
MAKEFLAGS += --no-builtin-rules
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
OPA_VERSION := 1.22.2
VERSITYGW_VERSION := 1.8.0

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
# Processes for the tests; more than eight gain nothing, since the slowest test bounds the run.
PYTEST_ARGS ?= --numprocesses=auto --maxprocesses=8 --dist=worksteal
FUZZ_SECONDS ?= 60
PACKAGES := keystead attestation policy audit sealed keybroker attester

# The set-up builds opa and versitygw into .cache/bin only where none that matches was found, so first on PATH it shadows nothing wanted.
export PATH := $(CURDIR)/.cache/bin:$(PATH)

.PHONY: help demo test check fuzz mutate bench docs lock protos clean setup tools \
	check-format check-lint check-types check-layers check-docstrings check-protos check-policies

help: ## Print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1|\2/' | awk -F'|' '{printf "  %-16s %s\n", $$1, $$2}'

demo: $(VENV)/.keystead ## Set up what it needs and run the demo: attest, decide, release, audit, in one process
	$(BIN)/keystead demo

test: setup check ## Set up everything, run the gates, then every test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: check-format check-lint check-types check-layers check-docstrings check-protos check-policies ## Run the gates: format, lint, types, layers, docstrings, protos, policies

check-format: $(VENV)/.dev
	$(BIN)/ruff format --check .

check-lint: $(VENV)/.dev
	$(BIN)/ruff check .

check-types: $(VENV)/.dev
	$(BIN)/mypy
	$(BIN)/mypy scripts
	$(BIN)/mypy bench

check-layers: $(VENV)/.dev
	$(BIN)/lint-imports --no-logo

check-docstrings: $(VENV)/.dev
	@$(BIN)/interrogate --quiet $(PACKAGES) scripts || \
		{ $(BIN)/interrogate -vv --omit-covered-files $(PACKAGES) scripts; exit 1; }

check-protos: $(VENV)/.dev
	$(BIN)/python scripts/generate_protos.py --check
	$(BIN)/buf lint
	sh scripts/check_breaking.sh $(BIN)/buf

check-policies: $(VENV)/.dev tools
	$(BIN)/python -m policy.gate

fuzz: $(VENV)/.dev ## Fuzz every parser, FUZZ_SECONDS each (default 60); FUZZ_TARGETS names some of them
	$(BIN)/python tests/fuzz/fuzz_campaign.py --seconds $(FUZZ_SECONDS) $(FUZZ_TARGETS)

mutate: $(VENV)/.mutation ## Break the verifiers a little, thousands of times, and list what no test notices; MUTANTS names some
	$(BIN)/python scripts/mutate.py run $(MUTANTS)
	$(BIN)/python scripts/mutate.py survivors

bench: $(VENV)/.dev ## Measure, side by side in one run, and print the tables; RECORDS of the large log (default 1000000)
	KEYSTEAD_BENCH_RECORDS=$(RECORDS) $(BIN)/python -m bench

docs: $(VENV)/.dev ## Write docs/reference/ from the code and check that every link in the documents resolves
	$(BIN)/python scripts/generate_reference.py
	$(BIN)/python scripts/check_docs.py

protos: $(VENV)/.dev ## Generate keystead/v1 from protos/
	$(BIN)/python scripts/generate_protos.py

lock: ## Resolve pyproject.toml into requirements/*.txt (UPGRADE=1 takes the newest versions)
	PYTHON="$(PYTHON)" UPGRADE="$(UPGRADE)" sh scripts/lock.sh

setup: $(VENV)/.dev tools ## Make .venv/ with the development tools, and find or install opa, versitygw and PostgreSQL

tools: $(VENV)/.dev
	@sh scripts/setup_opa.sh $(OPA_VERSION)
	@sh scripts/setup_versitygw.sh $(VERSITYGW_VERSION)
	@sh scripts/setup_packages.sh

clean: ## Remove everything that the other targets made
	rm -rf $(VENV) .cache build dist mutants .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .coverage*
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(BIN)/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'Keystead needs Python 3.11 or later: name one, as in `make PYTHON=python3.12 $(MAKECMDGOALS)`' >&2; exit 2; }
	@"$(PYTHON)" -m venv $(VENV) || \
		{ rm -rf $(VENV); echo 'cannot make a virtual environment: on Debian install python3-venv' >&2; exit 2; }

# Each stamp lies in the environment that it describes, so that removing .venv/ removes them too.
$(VENV)/.runtime: requirements/runtime.txt requirements/build.txt | $(BIN)/python
	$(PIP) install --quiet --require-hashes -r requirements/runtime.txt -r requirements/build.txt
	@touch $@

$(VENV)/.keystead: pyproject.toml $(VENV)/.runtime
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.keystead
	$(PIP) install --quiet --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.mutation: requirements/mutation.txt $(VENV)/.dev
	$(PIP) install --quiet --require-hashes -r requirements/mutation.txt
	@touch $@

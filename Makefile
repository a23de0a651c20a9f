# Everything a person does in this repository. Each target sets up .venv first where it needs
# one; that takes a minute the first time and nothing after that.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# Set on the command line:
#   ARGS    more arguments for the command of the target: make train ARGS="--seed 7"
#   PYTHON  interpreter for .venv; default: the first of version 3.11 or newer on PATH
#   TORCH   which torch: keep (the one already in .venv), or what pip is to install
#   EXTRAS  extras to install; default: dev
#   JOBS    processes that `make test` runs tests in; default: 2
ARGS ?=
PYTHON ?=
# What an unrelated environment variable of the same name says does not count.
ifneq ($(origin TORCH),command line)
override TORCH :=
endif
ifneq ($(origin EXTRAS),command line)
override EXTRAS :=
endif
ifneq ($(origin JOBS),command line)
override JOBS := 2
endif
export PYTHON TORCH EXTRAS

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile
	@printf '%s\n' '' '  ARGS="..." passes more arguments on: make train ARGS="--seed 7"' \
	  '  PYTHON=..., TORCH=... (a build for CUDA, or keep), EXTRAS=...: see CONTRIBUTING.md'

.PHONY: FORCE
FORCE:
ifneq ($(TORCH)$(EXTRAS),)
$(STAMP): FORCE
endif
# A repository that was moved: the commands in .venv name the old place.
ifneq ($(shell head -n 1 $(STAMP) 2>/dev/null),$(CURDIR))
$(STAMP): FORCE
endif
$(STAMP): pyproject.toml constraints.txt
	@scripts/setup_venv.sh

.PHONY: setup
setup: $(STAMP) ## Make .venv with everything pinned by constraints.txt
	@echo "ready: $(BIN)"

.PHONY: train
train: $(STAMP) ## Train CartPole-v1 on this machine (learner server and actors)
	@$(BIN)/impala-train --env CartPole-v1 $(ARGS)

.PHONY: test
test: $(STAMP) ## Run all tests
	@$(BIN)/pytest -n $(JOBS) --dist worksteal -m "not documentation and not environments and not extended" $(ARGS)

.PHONY: test-extended
test-extended: $(STAMP) ## Run further cases of what `make test` tries once: ranks, thin actors, clients in C++
	@$(BIN)/pytest -m extended $(ARGS)

.PHONY: test-docs
test-docs: $(STAMP) ## Run every page of README and docs/, the notebooks and the examples
	@$(BIN)/pytest -m documentation $(ARGS)

.PHONY: test-environments
test-environments: $(STAMP) ## Install environments of other packages, and train a minute on each
	@$(BIN)/pip install -q -c constraints.txt envpool 'shimmy[gym-v26]' box2d==2.3.10 swig minigrid mujoco
	@$(BIN)/pytest -m environments $(ARGS)

.PHONY: fmt
fmt: $(STAMP) ## Format the code and repair what can be repaired
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

.PHONY: lint lint-ruff lint-format lint-types lint-imports lint-protos
lint: lint-ruff lint-format lint-types lint-imports lint-protos ## Run all linters (make -k lint: to the end)
lint-ruff: $(STAMP)
	@$(BIN)/ruff check .
lint-format: $(STAMP)
	@$(BIN)/ruff format --check .
lint-types: $(STAMP)
	@$(BIN)/mypy
lint-imports: $(STAMP)
	@$(BIN)/lint-imports
lint-protos: $(STAMP)
	@$(BIN)/buf lint && echo "buf lint: passed"

.PHONY: protos
protos: $(STAMP) ## Regenerate the Python code of protos/
	@$(BIN)/python scripts/generate_protos.py

.PHONY: check-protos
check-protos: $(STAMP) ## Fail if the committed generated code is out of date
	@$(BIN)/python scripts/generate_protos.py --check

.PHONY: docs
docs: $(STAMP) ## Remake the pages of docs/ that are made from code
	@$(BIN)/python scripts/generate_configuration_docs.py
	@$(BIN)/python scripts/generate_metrics_page.py
	@$(BIN)/python scripts/generate_fault_table.py
	@$(BIN)/python -m benchmarks.suite.ladder_page
	@$(BIN)/python -m benchmarks.suite.ablations_page

.PHONY: check-docs
check-docs: $(STAMP) ## Fail if they are out of date
	@$(BIN)/python scripts/generate_configuration_docs.py --check
	@$(BIN)/python scripts/generate_metrics_page.py --check
	@$(BIN)/python scripts/generate_fault_table.py --check
	@$(BIN)/python -m benchmarks.suite.ladder_page --check
	@$(BIN)/python -m benchmarks.suite.ablations_page --check

.PHONY: pictures
pictures: $(STAMP) ## Remake the pictures of the README, from real runs and docs/results
	@$(BIN)/python scripts/make_pictures.py
	@$(BIN)/python -m benchmarks.suite.curves

.PHONY: hashes check-hashes
hashes: $(STAMP) ## Ask the index for the hashes of what images install (deploy/images/hashes.txt)
	@$(BIN)/python scripts/hash_packages.py
check-hashes: $(STAMP) ## Fail if they are not what the index says
	@$(BIN)/python scripts/hash_packages.py --check

COMPOSE ?= docker-compose

.PHONY: site
site: $(STAMP) ## Build the documentation site without warnings (EXTRAS=dev,docs; ARGS=serve shows it)
	@$(BIN)/python scripts/build_site.py $(ARGS)

.PHONY: package
package: $(STAMP) ## Build sdist and wheel, install and try them in clean environments (EXTRAS=dev,package)
	@$(BIN)/pytest tests/packaging/clean_installs.py $(ARGS)

.PHONY: compose-smoke
compose-smoke: $(STAMP) ## Build the images; train, kill and resume in containers (COMPOSE="docker compose")
	@$(COMPOSE) build
	@IMPALA_COMPOSE="$(COMPOSE)" $(BIN)/pytest tests/e2e/test_compose.py $(ARGS)

.PHONY: bench
bench: $(STAMP) ## Run the benchmarks
	@$(BIN)/python -m benchmarks $(ARGS)

.PHONY: gpu
gpu: $(STAMP) ## Measure on a GPU in nine minutes; without one, rehearse it (ARGS="--only vtrace")
	@$(BIN)/python -m benchmarks.gpu $(ARGS)

RUNG ?= cartpole
.PHONY: ladder
ladder: $(STAMP) ## Train a rung of the ladder over its seeds (RUNG=lunarlander): docs/results/ladder.md
	@$(BIN)/python -m benchmarks.studies.ladder --rung "$(RUNG)" $(ARGS)

STUDY ?= passes_breakout
.PHONY: ablation
ablation: $(STAMP) ## Train the variants of a study of settings (STUDY=lag_cartpole): docs/results/ablations.md
	@$(BIN)/python -m benchmarks.studies.ablations --study "$(STUDY)" $(ARGS)

MINUTES ?= 120
.PHONY: faults
faults: $(STAMP) ## Break a run on purpose for a quarter of an hour and judge it (ARGS="--seed 7")
	@code=0; log=$$(mktemp); \
	  export IMPALA_FAULTS=full IMPALA_FAULT_FIGURES="$(CURDIR)/docs/results/hostile.json"; \
	  $(BIN)/pytest tests/faults/test_links.py tests/integration/test_reconnect.py >"$$log" 2>&1 & \
	  $(BIN)/pytest tests/faults -k "hostile or kill or hosts" || code=$$?; \
	  wait $$! || code=$$?; cat "$$log"; rm "$$log"; \
	  (cd tests && ../$(BIN)/python -m faults $(ARGS)) || code=$$?; $(MAKE) docs; exit $$code

.PHONY: soak
soak: $(STAMP) ## The same for MINUTES (default 120)
	@code=0; (cd tests && ../$(BIN)/python -m faults --minutes $(MINUTES) --name soak $(ARGS)) \
	  || code=$$?; $(MAKE) docs; exit $$code

# Executions of each target; seconds of one run depend on the machine (docs/results/fuzz.json).
EXECUTIONS ?= 1000000

.PHONY: fuzz
fuzz: $(STAMP) ## Fuzz what parses strangers' bytes (EXECUTIONS=1000000; EXTRAS=dev,fuzz adds atheris)
	@$(BIN)/python tests/fuzz --executions $(EXECUTIONS) $(ARGS)

.PHONY: clean
clean: ## Remove caches and build output (not .venv, not runs/)
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

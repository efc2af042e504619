# DL4ALL Serving. `make` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTOS := $(sort $(shell find protos -name '*.proto'))
STUBS := clients/python/dl4all
GOOGLEAPIS := build/googleapis
RECIPE ?= plain_resnet
PAGES = $(shell git ls-files '*.md')
# Tests of single modules, and tests of the whole: real processes, real sockets, a real Triton.
UNIT := tests/services tests/clients tests/training tests/deploy tests/project tests/load
WHOLE := tests/integration tests/chaos tests/hostile
# Per cent of lines that must be reached; CI sets it, because without the development data some tests skip.
COVERAGE_FLOOR ?= 0

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-14s %s\n", $$1, $$2}'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Locked, every file checked by its hash; our own two distributions come from here and never from an index.
INSTALL_OWN := $(BIN)/pip install --quiet --no-deps --no-index --no-build-isolation --editable clients/python --editable .

$(VENV)/serving.stamp: requirements/serving.txt pyproject.toml clients/python/pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --require-hashes --requirement requirements/serving.txt
	$(INSTALL_OWN)
	@touch $@

# What training needs is not locked, only pinned where it matters: a lock of torch would take gigabytes of CUDA.
$(VENV)/dev.stamp: requirements/dev.txt $(VENV)/serving.stamp
	$(BIN)/pip install --quiet --require-hashes --requirement requirements/dev.txt
	$(BIN)/pip install --quiet --no-build-isolation --editable '.[train]'
	@touch $@

setup: $(VENV)/serving.stamp ## Install what serving needs into .venv (no torch)
setup-dev: $(VENV)/dev.stamp ## Install what tests, linters and training need as well

diagnose: $(VENV)/serving.stamp ## Diagnose IMAGE=path (without IMAGE: a phantom field), write report.html
ifdef IMAGE
	$(BIN)/dl4all diagnose "$(IMAGE)" --report report.html
else
	$(BIN)/dl4all phantom --out phantom.png
	$(BIN)/dl4all diagnose phantom.png --report report.html
endif

.triton/installed.stamp: deploy/triton/requirements.txt deploy/triton/install.py $(wildcard deploy/triton/backends/*/*.py)
	$(PYTHON) deploy/triton/install.py
	@touch $@

triton: .triton/installed.stamp ## Install a real Triton into .triton (no GPU, no container)

up: $(VENV)/serving.stamp .triton/installed.stamp ## Start five services and a Triton on this machine, until Ctrl-C
	$(BIN)/dl4all up

serve: $(VENV)/serving.stamp ## Serve all five services in one process on port 50051
	$(BIN)/dl4all serve

# Tracebacks without carets: to draw them source is parsed, in whichever thread logs, and CPython 3.11 can fail when two threads parse at once (gh-106905).
test: export PYTHONNODEBUGRANGES = 1
test: $(VENV)/dev.stamp .triton/installed.stamp ## Run all tests, real processes and a real Triton included
	$(BIN)/python -m pytest $(UNIT) --numprocesses 2 --cov --cov-report=
	$(BIN)/python -m pytest $(WHOLE) --cov --cov-append --cov-report=
	$(BIN)/coverage report --sort=cover --fail-under=$(COVERAGE_FLOOR)

test-unit: $(VENV)/dev.stamp ## Run the quick tests of single modules, no servers, in under two minutes
	$(BIN)/python -m pytest $(UNIT) --numprocesses 2 -m "not slow and not processes"

MINUTES ?= 20
fuzz: $(VENV)/dev.stamp ## Draw inputs for every RPC, every parser and every other property for MINUTES (20)
	$(BIN)/python -m tests.hostile.fuzz --minutes $(MINUTES)

nightly: $(VENV)/dev.stamp .triton/installed.stamp ## Run the long forms: full installation, soak, whole slide, all benchmarks (hours); records in docs/benchmarks.md
	$(MAKE) check-install java-stubs
	rm -f build/hostile.jsonl; DL4ALL_HOSTILE_FULL=1 $(BIN)/python -m pytest tests/hostile; cat build/hostile.jsonl
	DL4ALL_NIGHTLY=1 $(BIN)/python -m pytest tests/training -m nightly
	$(MAKE) soak-preprocessing bench-slide bench-search bench-releases bench-training bench bench-preprocessing bench-location bench-networks
	$(MAKE) --keep-going bench-batch batch-kills load load-overload soak

lint: $(VENV)/dev.stamp protos-check protos-breaking ## Check style, types, import rules, pages, protos and stubs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/mdformat --check $(PAGES)

format: $(VENV)/dev.stamp ## Format code and protos
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .
	$(BIN)/mdformat $(PAGES)
	$(BIN)/buf format -w protos

$(GOOGLEAPIS): $(VENV)/dev.stamp
	@mkdir -p $@/google/rpc
	@cp $$($(BIN)/python -c 'import google.rpc as r; print(list(r.__path__)[0])')/{status,error_details,code}.proto $@/google/rpc/

define generate
	mkdir -p $(1)
	$(BIN)/python -m grpc_tools.protoc -Iprotos -I$(GOOGLEAPIS) --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
	  --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
	  --python_out=$(1) --grpc_python_out=$(1) --mypy_out=$(1) --mypy_grpc_out=$(1) $(PROTOS)
	find $(1)/dl4all -type d -exec touch {}/__init__.py {}/py.typed \;
endef

protos: $(VENV)/dev.stamp $(GOOGLEAPIS) ## Generate the stubs from protos/
	rm -rf $(STUBS)
	$(call generate,clients/python)

protos-check: $(VENV)/dev.stamp $(GOOGLEAPIS) ## Check protos and that the stubs are fresh
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code protos
	rm -rf build/stubs
	@$(call generate,build/stubs)
	diff -r --exclude=__pycache__ build/stubs/dl4all $(STUBS)

protos-breaking: $(VENV)/dev.stamp $(GOOGLEAPIS) ## Check that the outward contract keeps what protos/baseline.binpb records
	$(BIN)/buf breaking --against protos/baseline.binpb

protos-baseline: protos-breaking ## Record what was added to the outward contract; nothing that it records may have changed
	$(BIN)/buf build --path protos/dl4all/diagnosis --exclude-source-info --output protos/baseline.binpb

java-stubs: $(VENV)/dev.stamp $(GOOGLEAPIS) ## Compile the contract for Java and record it; after every change of the protos
	$(BIN)/python -m deploy.ci.java_stubs

bench: $(VENV)/dev.stamp .triton/installed.stamp ## Compare a warm server, and five processes with Triton, with a plain loop over the same functions
	$(BIN)/python -m tests.benchmarks.serving
	$(BIN)/python -m tests.benchmarks.distributed

bench-slide: $(VENV)/dev.stamp .triton/installed.stamp ## Diagnose a drawn slide of 30,000 x 30,000 px: memory, progress, and the same cells as its quarters
	$(BIN)/python -m tests.benchmarks.slide

bench-releases: $(VENV)/dev.stamp ## Compare what a cell costs by release: sizes, CPU milliseconds of the network and of the whole Diagnose
	$(BIN)/python -m tests.benchmarks.releases

bench-search: $(VENV)/dev.stamp ## Compare Search with bare FAISS on the same batch; open a library of a million cells
	$(BIN)/python -m tests.benchmarks.search

bench-training: $(VENV)/dev.stamp ## Compare the training loop with the bare forward and backward pass
	$(BIN)/python -m tests.benchmarks.training

bench-networks: $(VENV)/dev.stamp ## Time the forward pass of each recipe's network, on a GPU if there is one
	$(BIN)/python -m tests.benchmarks.networks

bench-preprocessing: $(VENV)/dev.stamp ## Compare focus score and Enhance with a plain SciPy score, on one core
	$(BIN)/python -m tests.benchmarks.preprocessing

bench-location: $(VENV)/dev.stamp ## Compare locating the cells of a field with decoding its JPEG, on one core
	$(BIN)/python -m tests.benchmarks.location

soak-preprocessing: $(VENV)/dev.stamp ## Enhance 100,000 crops and print the memory (about 25 minutes)
	$(BIN)/python -m tests.benchmarks.preprocessing --soak 100000

load: $(VENV)/dev.stamp .triton/installed.stamp ## Measure capacity, latency below it and cost of one process and of five with Triton; writes build/load/load.html
	$(BIN)/python -m tests.load

load-overload: $(VENV)/dev.stamp .triton/installed.stamp ## Offer four times the capacity while somebody waits for answers; writes build/load/overload.html
	$(BIN)/python -m tests.load.overload

bench-batch: $(VENV)/dev.stamp .triton/installed.stamp ## Compare a batch with the ceiling of one process, and with the streams of five processes
	$(BIN)/python -m tests.benchmarks.batch

batch-kills: $(VENV)/dev.stamp .triton/installed.stamp ## Score 20,000 images while everything is killed once, and on two Ray nodes of which one is killed
	$(BIN)/python -m tests.chaos.batch --folder build/batch-kills
	$(BIN)/python -m tests.chaos.ray_nodes --folder build/batch-kills

soak: $(VENV)/dev.stamp .triton/installed.stamp ## Keep 70 % load for MINUTES (30) on each of the two and look for growth; writes build/load/soak.html
	$(BIN)/python -m tests.load.soak $(if $(filter file,$(origin MINUTES)),,--minutes $(MINUTES))

release: ID ?= $(RECIPE)-mine
release: $(VENV)/dev.stamp ## Train RECIPE and build its release ID (RECIPE-mine if not given) from DATA=folder of data sets
	@test ! -e "$${DL4ALL_RELEASES:-$${DL4ALL_HOME:-.}/releases}/$(ID)" || { echo "The release $(ID) is there already; give another ID=..."; exit 1; }
	$(BIN)/dl4all train $(RECIPE) --data "$(DATA)"
	$(BIN)/dl4all train $(RECIPE) --data "$(DATA)" --folds 3
	$(BIN)/dl4all release build build/runs/$(RECIPE)-grouped-0 --data "$(DATA)" --id $(ID) --cross-validation build/runs/$(RECIPE)-grouped-cv3-0

lock: $(BIN)/python ## Lock anew what is installed: requirements/*.txt from pyproject.toml
	$(BIN)/pip install --quiet 'uv>=0.9,<1'
	$(BIN)/python -m deploy.ci.lock

wheels: $(VENV)/serving.stamp ## Build the two wheels, client and server, into dist/
	@rm -rf dist build/lib build/bdist.* clients/python/build
	$(BIN)/pip wheel --quiet --no-deps --no-index --no-build-isolation --wheel-dir dist ./clients/python .
	@rm -rf build/lib build/bdist.* clients/python/build
	@ls dist

check-install: $(VENV)/dev.stamp ## Build the wheels in a fresh clone, install them as docs/install.md says, and serve
	DL4ALL_TEST_FULL_INSTALL=1 $(BIN)/python -m pytest tests/project/test_wheels.py

clean: ## Remove what was built, not what was installed
	rm -rf build dist report.html phantom.png

.PHONY: fuzz help setup setup-dev diagnose triton up serve test test-unit nightly lint lock wheels check-install format \
  protos protos-check protos-breaking bench bench-slide bench-releases bench-search bench-training \
  bench-networks bench-preprocessing bench-location soak-preprocessing bench-batch batch-kills load \
  load-overload soak release clean

# `make help` lists what can be made. Nothing here needs a compiler or root.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNS := $(VENV)/.runs
READY := $(VENV)/.ready
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Tests mostly wait: for servers, brokers, and requests to be due.
WORKERS ?= 3
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

# Commands that tests start by the hundred would compile all of replay each time if they could not keep its byte code.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test kafka unit check boundscheck founding fuzz bench long calibrate docs wheel image wheeltest debian traces clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Create .venv and install replay with its locked dependencies, and what the tests need

# What a run needs, and no more.
$(RUNS): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "replay needs Python 3.11 or newer; $(PYTHON) is older. Set PYTHON=/path/to/python3.11"; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "Python's venv module is missing. On Debian: apt-get install python3-venv"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -r requirements.lock
	$(INSTALL) --no-deps -e .
	@touch $@

$(READY): $(RUNS) requirements-test.lock
	$(INSTALL) -r requirements.lock -r requirements-test.lock
	@touch $@

demo: $(RUNS) ## Replay a small evening onto a built-in service, and print the report
	@$(BIN)/replay demo

test: $(READY) ## Run all tests
	$(PYTEST)

kafka: $(READY) ## Run the tests that need a real Apache Kafka (Java, and Maven to bring it)
	$(BIN)/python -m pytest -m kafka

unit: $(READY) ## Run the unit suite alone: under two minutes, for all the time
	$(PYTEST) -m 'not whole and not founding and not kafka'

check: $(READY) ## Lint, types, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

boundscheck: $(READY) ## Run the kernel tests with every array access checked
	NUMBA_BOUNDSCHECK=1 $(PYTEST) -m 'boundscheck and not founding'

founding: $(READY) ## Run the founding test in full length: a stall is what users would have felt
	$(BIN)/python -m pytest -m founding

fuzz: $(READY) ## Property tests with random cases: 100,000 of each fuzzer, and another draw of every other one
	$(BIN)/python -m tests.fuzz
	$(PYTEST) --hypothesis-profile random -m 'hypothesis and not founding and not kafka'

bench: $(READY) ## Measure against the peers, side by side (see docs/benchmarks.md)
	$(BIN)/python -m benchmarks $(ONLY)

long: $(READY) ## Judge the verdicts themselves: 300 random runs with a starved generator, a faulty target, or neither (an hour); then the image
	$(BIN)/python -m benchmarks squeezes
	$(MAKE) image

calibrate: $(READY) ## Measure how often `replay compare` is wrong, on imagined runs (see docs/statistics.md)
	$(BIN)/python -m benchmarks.calibrate

docs: $(READY) ## Build the site of docs/ into build/docs; a broken link is an error
	$(INSTALL) -r docs/site/requirements.lock
	$(BIN)/python -m sphinx -W --keep-going -q -b html -c docs/site docs build/docs

wheel: ## Build wheels with compiled kernels, for each Python from 3.11 to 3.13 that is here, and a plain one
	$(PYTHON) deploy/make_wheels.py

image: ## Build the container's root from Debian's packages, and run it in a chroot (root; some minutes)
	deploy/test_image.sh

wheeltest: ## Install each wheel of dist/ into a new venv, and run the demo (some minutes; make wheel before)
	deploy/test_wheels.sh

debian: ## `git clone` and `make demo` in a fresh Debian, idle and busy (root, a Debian mirror; ten minutes)
	deploy/test_debian.sh

traces: $(READY) ## Make the small traces of traces/*.toml
	@for recipe in traces/*.toml; do $(BIN)/replay generate $$recipe -o $${recipe%.toml}.trace --force || exit; done

clean: ## Remove what make made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis runs dist build

# Every target makes the environment it needs; python3 (3.11 or newer) is the only thing expected.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Without stored byte code, each process of a test compiles the package again. That doubles the time of an import.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo docs docs-serve test unit integration dependencies lint types bench bench-short chaos chaos-without coherence live-changes warm-up outage stampede telemetry-cost scale bulk work fuzz properties screenshots clean

help:  ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'

CORE := $(wildcard zones/transport/core/*.pyx zones/transport/core/*.pxi)

$(READY): pyproject.toml requirements-dev.lock hatch_build.py $(CORE)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $(READY)

install: $(READY)  ## the development environment, in .venv

demo: $(READY)  ## three zones under traffic, one is killed and comes back
	$(BIN)/evcache demo

# The tests of a file run in one worker, so its module fixtures (a wheel, an environment, servers) are made once. loadgroup
# has no effect with pytest 9.2 and xdist 3.8, see https://github.com/pytest-dev/pytest-xdist/issues/1386.
# Files start in the order of the command line. Integration tests come first, because their files take longest.
# There is one worker more than processors, because integration tests wait for half of their time.
COUNT := $(shell $(PYTHON) -c 'import os; print(min(4, (os.cpu_count() or 1) + 1))')
WORKERS ?= --numprocesses $(COUNT) --dist loadfile --no-loadscope-reorder

test: lint types $(READY)  ## everything: style, types, unit and integration tests
	$(BIN)/python -m pytest $(WORKERS) integration tests

unit: $(READY)  ## tests that need no server and no network beyond loopback
	$(BIN)/python -m pytest $(WORKERS) tests

integration: $(READY)  ## tests against real memcached
	$(BIN)/python -m pytest integration

dependencies: $(READY)  ## faults of other packages that the project works around; run when the lock file changes
	$(BIN)/python -m pytest -m dependencies tests/dependencies

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

# The warning is about a later release of the builder, and would hide those about pages.
docs: $(READY)  ## the site of the documentation, in site/; a warning is a failure
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

docs-serve: $(READY)  ## the same on a local port, built again when a page changes
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --no-strict

bench: $(READY)  ## side by side with other clients, a quarter of an hour; ARGS='--only "get hit" --json FILE'
	$(BIN)/python -m benchmarks $(ARGS)

bench-short: $(READY)  ## the same in about a minute: what the figures to be reached need
	$(BIN)/python -m benchmarks --short $(ARGS)

SECONDS ?= 600
chaos: $(READY)  ## random faults on real memcached, every promise checked; SECONDS=600, SEED= replays a run
	$(BIN)/python -m integration.chaos --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

chaos-without: WITHOUT_SECONDS ?= 120
chaos-without: $(READY)  ## the chaos run with each fix switched off in turn, which must find its defect; SEED=, FIXES="copy-ttl resend"
	$(BIN)/python -m integration.chaos.switched_off --seconds $(WITHOUT_SECONDS) $(if $(SEED),--seed $(SEED)) $(FIXES)

coherence: $(READY)  ## near hits under slow wires and lagging replicas, in virtual time; SECONDS=600, SEED= replays a run
	$(BIN)/python -m integration.coherence --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

live-changes: $(READY)  ## nodes and zones are replaced, added and removed under 32 callers; ARGS='--seconds 5'
	$(BIN)/python -m integration.live_changes $(ARGS)

warm-up: $(READY)  ## a zone is filled with a million keys under traffic, killed in the middle and resumed; ARGS='--keys 100000'
	$(BIN)/python -m integration.warm_up $(ARGS)

outage: $(READY)  ## what a dead, hanging, slow or empty zone costs, measured
	$(BIN)/python -m benchmarks.outage

stampede: $(READY)  ## how often a value is loaded when processes want it at once, and who waits, measured
	$(BIN)/python -m benchmarks.stampede

telemetry-cost: $(READY)  ## what traces and metrics cost, measured
	$(BIN)/python -m benchmarks.telemetry

scale: $(READY)  ## what a thousand nodes in each zone take: time, memory, connections
	$(BIN)/python -m benchmarks.scale

bulk: $(READY)  ## how much bulk calls of up to 100,000 keys do within their timeout, and what that takes; ARGS='--calls set_many'
	$(BIN)/python -m benchmarks.bulk_writes $(ARGS)

work: $(READY)  ## count what each operation does, and store the counts that tests compare with
	$(BIN)/python -m tests.work

fuzz: $(READY)  ## a minute of mutated replies against the decoder
	$(BIN)/python -m fuzz.fuzz_decoder --seconds 60

properties: $(READY)  ## property tests with five times the examples of `make test`
	$(BIN)/python -m pytest $(WORKERS) --hypothesis-profile thorough tests integration/test_fake_against_real.py

screenshots: $(READY)  ## pictures of commands and dashboard in docs/images, from real runs; ARGS='--backend docker'
	$(BIN)/python -m docs._tooling.render_images $(ARGS)
	$(BIN)/python -m docs._tooling.render_dashboard $(ARGS)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis site integration/java/target

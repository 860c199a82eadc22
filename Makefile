# Everything that is done with a checkout. The first run sets up what is missing and says so: see scripts/setup.

VENV ?= .venv
export VENV
BIN := $(VENV)/bin
SUITES := $(wildcard tests/unit tests/functional tests/faults)
# Most tests wait for a guest half of their time. Modules begin in the order of the suites.
SIDE_BY_SIDE := -n $(shell echo $$(($$(nproc) * 3 / 2))) --dist loadfile --no-loadscope-reorder

.PHONY: demo test check lint unit lab lab-down bench clean setup-check setup-demo setup-test statics

demo: setup-demo            ## a guest is spawned, one fails and reverts, one is killed and resumed, one is undone
	@$(BIN)/virtflow demo

test: setup-test statics    ## everything that CI runs: the checks, then unit, functional and fault tests
	$(BIN)/pytest $(SIDE_BY_SIDE) $(SUITES)

check: setup-check statics  ## style, types and layers

lint: setup-check           ## style alone
	$(BIN)/ruff check
	$(BIN)/ruff format --check

unit: setup-check           ## fast tests that need neither root nor any daemon
	$(BIN)/pytest $(SIDE_BY_SIDE) tests/unit

lab: setup-test             ## two libvirt hosts to play with, until lab-down
	@$(BIN)/python -m tests.lab up

lab-down:
	@$(BIN)/python -m tests.lab down

bench: setup-test           ## the table of benchmarks/
	@$(BIN)/python -m benchmarks

recordings: setup-test      ## recordings of this release, to be kept and checked for ever (needs root)
	$(BIN)/pytest tests/functional/test_replay_live.py -k record --regenerate

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find virtflow tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

statics:
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

setup-check setup-demo setup-test:
	@scripts/setup $(@:setup-%=%)

# Each target makes what it needs; nothing has to be set up first.
.PHONY: help demo test lint bench lock clean
.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTEST_ARGS ?=
# Most of a test's time is waiting for real daemons, so three of them go side by side; each has a rig of its own. Slow files first: unit tests
# fill what is left at the end.
PYTEST_WORKERS ?= 3
BENCH_ARGS ?=

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## comments become training runs, checks and a gate that holds what got worse, in this terminal (under a minute)
	@.ci/bootstrap demo
	@.venv/bin/nemotron-dispatch demo

test: ## every test; as root with real Slurm, sshd, act and Ray, otherwise says loudly what is left out
	@.ci/bootstrap dev
	@if [ "$$(id -u)" = 0 ]; then .ci/rig; else \
	  printf '\n!! Not root: the tests that need Slurm or other login shells are left out (listed at the end).\n\n' >&2; fi
	@.venv/bin/pytest -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: ## formatting, types, workflows, lock files; no network once bootstrapped
	@.ci/bootstrap dev
	@.ci/lint

bench: ## how long a submission takes, beside git archive | ssh and plain NeMo-Run (root)
	@.ci/bootstrap dev
	@if [ "$$(id -u)" = 0 ]; then .ci/rig; fi
	@.venv/bin/python -m tests.bench $(BENCH_ARGS)

lock: ## resolve the dependencies again (needs the network)
	@.ci/lock

clean: ## remove everything that the other targets made
	rm -rf .venv .cache .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis

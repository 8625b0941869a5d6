# `make` lists the targets. run and test set up all they need by themselves in a fresh clone.
PYTHON_IN_VENV := .venv/bin/python
SEED ?=
RAY ?=
TESTS ?= tests/conformance
MINUTES ?= 30
SEEDS ?= $(if $(SEED),1,1000)

.DEFAULT_GOAL := help
.PHONY: help run test test-core conformance check sim enemy chaos-failover venv system-packages clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: venv ## Start a head and two nodes, run the examples on them, stop everything
	@$(PYTHON_IN_VENV) examples/run_cluster.py

test: venv system-packages ## Run every test (installs the system parts that tests use)
	@$(PYTHON_IN_VENV) .ci/suites.py

test-core: venv ## Run the tests that need no system parts
	@$(PYTHON_IN_VENV) .ci/suites.py --core

conformance: venv ## Hold zray to the contracts of Ray's API, or with RAY=1 Ray itself
	@$(if $(RAY),.ci/ray-venv)
	@$(if $(RAY),CONFORMANCE_SIDE=ray .venv-ray/bin/python,$(PYTHON_IN_VENV)) -m pytest --quiet \
		$(if $(RAY),--confcutdir=tests/conformance -W default) $(TESTS)

check: venv ## Check style, types and layers (ruff, mypy --strict, tests/tidy)
	$(PYTHON_IN_VENV) -m ruff check .
	$(PYTHON_IN_VENV) -m ruff format --check .
	$(PYTHON_IN_VENV) -m mypy --strict zray
	$(PYTHON_IN_VENV) -m pytest --quiet tests/tidy

sim: venv ## Simulate the cluster with faults: SEEDS=n seeds, or SEED=k alone; HEADS=n: with several heads
	@$(PYTHON_IN_VENV) -m zray.testing.simulate --seeds $(SEEDS) $(if $(SEED),--seed $(SEED)) $(if $(HEADS),--heads $(HEADS))

enemy: venv system-packages ## Attack a cluster at random for MINUTES=n (30), again with SEED=k
	@$(PYTHON_IN_VENV) -m tests.enemy $(MINUTES) $(SEED)

chaos-failover: venv system-packages ## Lose heads and etcd at random for MINUTES=n (30), again with SEED=k
	@$(PYTHON_IN_VENV) -m tests.failover $(MINUTES) $(SEED)

venv: ## Make or update .venv (PYTHON=... picks the interpreter)
	@PYTHON='$(PYTHON)' .ci/venv

system-packages: ## Install the Debian packages that tests use, if they are missing
	@.ci/system-packages

clean: ## Remove what make and the tools have made here
	@rm -rf .venv .venv-ray .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	@find bin examples tests zray -name __pycache__ -type d -prune -exec rm -rf {} +

.DEFAULT_GOAL := help
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help setup demo test clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install into .venv: CUDA builds where a GPU is found, CPU builds otherwise
	cluster/install.sh --extras test,flights $(VENV)

demo: ## train on a year of flights, day by day, and write a report
	cluster/install.sh --extras flights $(VENV)
	$(BIN)/raysparse train jobs/flights.yaml --fresh

# The two processes of pytest share the cores: with threads of their own they wait for each other, three times as long.
test: ## lint, format check, type check and all tests; stops at the first failure
	cluster/install.sh --extras test $(VENV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadgroup --durations 15

clean: ## remove .venv and caches; data/ and runs/ stay
	rm -rf $(VENV) build .pytest_cache .ruff_cache .hypothesis *.egg-info
	find raysparse tests jobs -name __pycache__ -type d -prune -exec rm -rf {} +

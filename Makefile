# The only set-up a newcomer needs: `make demo` or `make test` on a machine with Python 3.11+ and make.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TRANSFORMERS_VERSION := $(shell sed -n 's/^transformers==//p' constraints.txt)
SHARED_TESTS := .shared_tests/transformers-$(TRANSFORMERS_VERSION)
TEST_WORKERS ?= 2

.PHONY: help demo test lint clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==$$(sed -n 's/^torch==//p' constraints.txt) setuptools
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $@

# The model tests of transformers' own repository: they come with the sdist of a release, not with the wheel.
$(SHARED_TESTS): | $(VENV)/.installed
	@mkdir -p .shared_tests
	$(BIN)/python -m pip download --quiet --no-deps --no-build-isolation --no-binary transformers transformers==$(TRANSFORMERS_VERSION) --dest .shared_tests
	$(BIN)/python -m tarfile -e .shared_tests/transformers-$(TRANSFORMERS_VERSION).tar.gz .shared_tests
	@touch $@

demo: $(VENV)/.installed  ## generate synthetic clips, train, evaluate, reload, predict; writes demo_output/ (about 8 minutes on 2 cores)
	$(BIN)/python hub_scripts/demo.py --output_dir demo_output

test: lint $(SHARED_TESTS)  ## lint, type check and run every test
	$(BIN)/python -m pytest -n $(TEST_WORKERS)

lint: $(VENV)/.installed  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:  ## remove the environment, caches and the demo's output
	rm -rf $(VENV) .shared_tests demo_output build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

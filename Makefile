# The two commands of the README are `make report` and `make test`. Both set up what they need.

# The environment, and the interpreter that makes it: the first that works, unless given.
VENV = .venv
PYTHON =
# Further arguments of `make report`, as in: make report ARGS="--n 400"
ARGS =
# Further options of Sphinx, and of pytest.
SPHINXOPTS =
TESTS =

BASE_PYTHON = $(or $(PYTHON),$$(.ci/find-python))
PY = $(VENV)/bin/python
READY = $(VENV)/.ready
PYTEST = $(PY) -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal
PIP_INSTALL = $(PY) -m pip install --disable-pip-version-check --no-deps

.PHONY: help setup report test test-slow test-all check format docs lock clean

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' Makefile

# Everything is pinned, so pip has nothing to resolve, and the list says what is left out.
$(READY): requirements/dev.txt pyproject.toml
	@set -e; if ! $(PY) -m pip --version >/dev/null 2>&1; then \
	    python="$(BASE_PYTHON)"; \
	    echo "Making the environment $(VENV) with $$python"; \
	    "$$python" -m venv --clear $(VENV); \
	fi
	$(PIP_INSTALL) -r requirements/dev.txt
	$(PIP_INSTALL) --no-build-isolation --editable .
	@touch $(READY)

setup: $(READY) ## make the environment, if it is missing or out of date

report: $(READY) ## the main job, on handwritten digits: writes report/report.html
	$(PY) -m rnntk report $(ARGS)

test: $(READY) ## the fast tests, with the docstrings' examples and the notebooks
	$(PYTEST) $(TESTS)

test-slow: $(READY) ## all tests
	$(PYTEST) -m "slow or not slow"

test-all: ## the fast tests, on every supported Python that is found
	@set -e; for version in 3.11 3.12 3.13; do \
	    if python=$$(.ci/find-python $$version); then \
	        $(MAKE) test VENV=.venv-$$version PYTHON=$$python; \
	    fi; \
	done

check: $(READY) ## formatter, linter and type checker
	$(PY) -m ruff format --check
	$(PY) -m ruff check
	$(PY) -m mypy

format: $(READY) ## format, and fix what the linter can fix
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

docs: $(READY) ## the documentation, in docs/_build/html; warnings are errors
	$(PY) -m sphinx -W --keep-going --jobs auto $(SPHINXOPTS) -b html docs docs/_build/html

lock: ## renew the pinned list
	"$(BASE_PYTHON)" -m venv --clear .cache/lock
	.cache/lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	.cache/lock/bin/uv pip compile --quiet --universal --upgrade --python-version 3.11 \
	    --no-annotate --no-header --no-emit-package rnntk \
	    --extra certify --extra dev --extra docs --extra neural-tangents --extra scale \
	    pyproject.toml \
	    | grep -v "sys_platform == 'none'" > .cache/lock/dev.txt
	mv .cache/lock/dev.txt requirements/dev.txt

clean: ## remove the environments and everything that was built
	rm -rf .venv .venv-* .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf docs/_build docs/api docs/notebooks docs/results dist report

# Everything starts here. Needed beforehand: make, and Python 3.11 or newer with venv.
#
#   make demo [PROVIDER=sqs|servicebus|memory|all] [ARGS=...]
#                                                the main job on real input, closing with a table
#   make test [ARGS=...]                         the tests (ARGS go to pytest)
#   make check                                   format, lint, types, import arrows
#   make conformance [ARGS=...]                  the provider contract, on memory, SQS and Service Bus
#   make broker-check [ARGS=...]                 the local Service Bus under Microsoft's own tests of the SDK
#   make format                                  write what `check` would ask for
#   make package                                 install as a user would, in fresh environments
#   make lock                                    write .ci/constraints.txt anew
#   make clean
#
# PYTHON=... names the interpreter, VENV=... the place of the environment.

PROVIDER ?= sqs
ARGS ?=
# Tests run beside each other: most of their time they wait for sockets and for whole seconds to pass.
WORKERS ?= 6
VENV ?= .venv
PYTHON ?= $(shell for each in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	if $$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$each; break; fi; done)

BIN = $(VENV)/bin
CHECKS = check-format check-lint check-types check-arrows

.PHONY: demo test conformance broker-check check $(CHECKS) format package lock clean ready

demo: $(VENV)/ready
	@"$(BIN)/python" examples/github_bot/demo.py --provider $(PROVIDER) $(ARGS)

test: $(VENV)/ready
	@"$(BIN)/python" -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

conformance: $(VENV)/ready
	@"$(BIN)/python" -m pytest -n $(WORKERS) --dist loadgroup tests/conformance $(ARGS)

broker-check: $(VENV)/ready
	@"$(BIN)/python" -m tests.microsoft.run --cache "$(VENV)/broker-check" $(ARGS)

check: $(CHECKS)

check-format: $(VENV)/ready
	@"$(BIN)/python" -m ruff format --check .

check-lint: $(VENV)/ready
	@"$(BIN)/python" -m ruff check .

check-types: $(VENV)/ready
	@"$(BIN)/python" -m mypy

check-arrows: $(VENV)/ready
	@"$(BIN)/lint-imports" --no-logo

format: $(VENV)/ready
	@"$(BIN)/python" -m ruff check --fix-only --quiet .
	@"$(BIN)/python" -m ruff format .

package: $(VENV)/created
	@PYTHON="$(BIN)/python" sh .ci/package

# Resolved without the old constraints, so that a changed requirement can move what it brings along.
lock: $(VENV)/created
	@"$(BIN)/python" -m venv --clear "$(VENV)/lock"
	@"$(VENV)/lock/bin/python" -m pip install --quiet --disable-pip-version-check -r .ci/requirements.txt
	@sed '/^#/d; /^$$/d; s/\[[^]]*\]//' .ci/requirements.txt >"$(VENV)/direct"
	@{ sed -n '/^#/p' .ci/constraints.txt; \
		"$(VENV)/lock/bin/python" -m pip freeze --all | grep -v '^pip==' | grep -vixFf "$(VENV)/direct"; \
		} >"$(VENV)/constraints"
	@mv "$(VENV)/constraints" .ci/constraints.txt
	@rm -rf "$(VENV)/lock"

clean:
	rm -rf "$(VENV)" build dist queue_runtime.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

ready: $(VENV)/ready

# The stamps are written last: an installation that was interrupted is made again.
$(VENV)/ready: $(VENV)/created .ci/requirements.txt .ci/constraints.txt setup.cfg setup.py
	@echo "Installing what is needed into $(VENV) (about a minute the first time)"
	@"$(BIN)/python" -m pip install --quiet --disable-pip-version-check \
		-r .ci/requirements.txt -c .ci/constraints.txt
	@"$(BIN)/python" -m pip install --quiet --disable-pip-version-check \
		--use-pep517 --no-build-isolation --no-deps --editable .
	@touch "$@"

$(VENV)/created:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer on the PATH; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is not Python 3.11 or newer (or does not start); name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -m venv --clear "$(VENV)"
	@touch "$@"

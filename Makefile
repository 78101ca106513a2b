# Everything happens in .venv; nothing is installed system-wide.
# Another interpreter: make setup PYTHON=/path/to/python3.11. Another source of packages: pip's own PIP_* variables.

PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
READY := .venv/.ready

# One process a core. Two runtimes and torch would each start a thread a core in every one of them; tests are small, and
# oversubscription only slows them. Tests of one module share what it compresses and exports.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadscope

.PHONY: setup demo test test-all test-emulator lint typecheck

setup: $(READY)

# torch comes first and alone, so that the build already chosen for this machine (a CPU build, say) is the one kept.
$(READY): pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; set PYTHON to its path." >&2; exit 1; }
	@$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv
	$(PIP) install -qq --constraint requirements.lock torch
	$(PIP) install -qq --requirement requirements.lock
	$(PIP) install -qq --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup
	$(BIN)/edgekron demo -o demo --force

test: lint
	$(PYTEST)

test-all: lint
	$(PYTEST) -m "thorough or not thorough"

# Downloads about 150 MB of packages the first time, to the user's cache folder.
test-emulator: setup
	$(BIN)/edgekron devices emulate pi4 --machine
	$(BIN)/pytest -m emulator

lint: setup
	$(BIN)/ruff check

# The installed wheel is checked, not the tree: its folders only become edgekron.exporters and so on when installed.
typecheck: setup
	@set -e; site=$$(mktemp -d); trap 'rm -rf "$$site"' EXIT; \
	$(PIP) wheel -qq --no-deps --no-build-isolation --wheel-dir "$$site/wheel" .; \
	$(PIP) install -qq --no-deps --target "$$site/site" "$$site"/wheel/*.whl; \
	MYPYPATH="$$site/site" $(BIN)/mypy --config-file pyproject.toml -p edgekron

# Two commands do everything on a fresh machine: `make demo` and `make test`. CONTRIBUTING.md names the others.
.PHONY: demo test faults attacks mutants check docs fix lab clean outside

VENV := .venv
BIN := $(VENV)/bin

# An environment outside of this checkout belongs to somebody else: it is used as it is, and nothing is installed there.
HERE := $(realpath $(CURDIR))
READY := $(if $(filter $(HERE)/%,$(or $(realpath $(VENV)),$(abspath $(VENV)))),$(VENV)/ready,outside)

demo: $(READY)
	PATH="$(abspath $(BIN)):$$PATH" scripts/demo

test: $(READY)
	PATH="$(abspath $(BIN)):$$PATH" scripts/test

attacks: $(READY)
	PATH="$(abspath $(BIN)):$$PATH" scripts/attacks

mutants: $(READY)
	PATH="$(abspath $(BIN)):$$PATH" scripts/mutants

faults: $(READY)
	PATH="$(abspath $(BIN)):$$PATH" scripts/faults

check: $(READY)
	PATH="$(abspath $(BIN)):$$PATH" scripts/check

# Builds the site into site/, and fails at a broken link.
docs: $(if $(filter outside,$(READY)),outside,$(VENV)/docs)
	$(BIN)/zensical build --strict --clean

$(VENV)/docs: $(VENV)/ready
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	touch $@

fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/ready: pyproject.toml lab/pyproject.toml constraints.txt scripts/install
	scripts/install $(VENV)
	touch $@

outside:
	@[ -x $(BIN)/nixprov ] || { echo "$(VENV) is outside of this checkout and has no nixprov; to have it there: scripts/install $(VENV)" >&2; exit 1; }

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis dist site

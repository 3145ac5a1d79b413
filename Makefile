# Two commands do everything on a fresh machine: `make demo` and `make test`. CONTRIBUTING.md names the others.
.PHONY: demo test faults attacks mutants check fix lab clean

VENV := .venv
BIN := $(VENV)/bin

demo: $(VENV)/ready
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/demo

test: $(VENV)/ready
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/test

attacks: $(VENV)/ready
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/attacks

mutants: $(VENV)/ready
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/mutants

faults: $(VENV)/ready
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/faults

check: $(VENV)/ready
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/check

fix: $(VENV)/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/ready: pyproject.toml lab/pyproject.toml scripts/install
	scripts/install $(VENV)
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist

# The two commands: `make demo` and `make test`. Both set everything up on a fresh machine.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
REAL   := $(abspath ../shared/data/real)

export ZOOMLOC_REAL_DATA ?= $(if $(wildcard $(REAL)),$(REAL),)

.PHONY: demo demo-long test check soak format clean

demo: $(VENV)/.ready
	$(BIN)/zoomloc demo --run runs/demo

demo-long: $(VENV)/.ready
	$(BIN)/zoomloc demo --run runs/long --minutes 15

test: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "not soak"

check: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m soak

format: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch is pinned without "+cpu": pip takes a CPU wheel where it finds one, else the usual build.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@

# data and runs hold hours of work: they stay
clean:
	rm -rf $(VENV)

# make demo, make test: each makes .venv where there is none, installs into it what is missing, then does its work.
# Options are passed on with ARGS:  make test ARGS="tests/solvers -x"   make demo ARGS=--quick
# PYTHON=/path/to/python makes .venv with another interpreter than the first that is new enough.

VENV := .venv
BIN := $(VENV)/bin

# OpenMP workers that spin for long while they wait slow down everything else on the machine; those that do not spin are
# slow to wake.
export GOMP_SPINCOUNT ?= 10000
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help demo test bench lint style types format clean

help:
	@echo "make demo    solve a tour of equations and write one HTML page"
	@echo "make test    run the tests, in two processes"
	@echo "make bench   time the solvers against other libraries"
	@echo "make lint    check style and types (make format repairs what can be repaired)"
	@echo "make clean   remove what builds and tests leave behind; the environment in $(VENV) stays"

demo: $(VENV)/installed-demo
	$(BIN)/sciml demo $(ARGS)

# Tests that are compiled already are collected in a quarter of the time.
test: $(VENV)/installed-dev
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

bench: $(VENV)/installed-bench
	$(BIN)/sciml bench $(ARGS)

lint: style types

style: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev
	.ci/types $(BIN)/python --build

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name $(VENV) -prune -o -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/installed-%: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing sciml and what it needs into $(VENV) (takes minutes the first time)"
	@if [ -t 1 ]; then quiet=; else quiet=--quiet; fi; \
	$(BIN)/python -m pip install $$quiet --disable-pip-version-check -c constraints.txt -e ".[$*]"
	@touch $@ $(if $(filter dev,$*),$(VENV)/installed-demo)  # dev includes demo

# pip is the last thing that venv writes: a creation that was interrupted is taken up again.
$(BIN)/pip:
	@for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
		if "$$python" -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; then \
			echo "Making $(VENV) with $$("$$python" --version)"; \
			exec "$$python" -m venv $(VENV); \
		fi; \
	done; \
	echo "sciml needs Python 3.11 or later, and $(or $(PYTHON),python3) is: $$($(or $(PYTHON),python3) --version 2>&1)" >&2; \
	echo "Install a newer one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; \
	exit 1

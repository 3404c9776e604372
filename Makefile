# The project's few words. `make` alone lists them.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Each test starts processes. Without compiled files every one of them would compile the whole package again.
unexport PYTHONDONTWRITEBYTECODE

# Installs a requirement, and names each package as it comes. The exit code of pip is kept in a file, as a pipe loses it.
define install
{ PIP_CONSTRAINT=constraints.txt $(PIP) install --progress-bar off --editable '$(1)'; echo $$? > $(VENV)/pip-exit-code; } | \
    awk '/^Collecting/ { sub(/[^A-Za-z0-9_.-].*/, "", $$2); printf "  %s\n", $$2; fflush() } /^Successfully/ { print "  installed" }'; \
    exit $$(cat $(VENV)/pip-exit-code)
endef

help: ## list these words
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/ready ## the main job on real input: every Python file of this installation, one task each
	@$(BIN)/python examples/demo.py

# In three processes also on two cores, as tests wait more than they compute; each file in one of them, as its tests share
# fixtures. The files keep their order: few long tests first, many short ones last, so that all processes end together.
# `pytest PATH` by hand stays in one process.
test: lint docs mongodb parts ## everything that must hold: ruff, mypy, the documentation, pytest
	@$(BIN)/python -m pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder

lint: $(VENV)/ready ## ruff and mypy
	@$(BIN)/ruff check
	@$(BIN)/mypy

mongodb: $(VENV)/ready ## a MongoDB-protocol server for the tests, built once with Go; without it they are skipped
	@$(BIN)/python tests/support/mongodb.py

parts: $(VENV)/ready ## sshd, Slurm, Grid Engine, Open MPI, a browser, schemas, the panel for the tests, had once by apt-get, npm, pip; else skipped
	@$(BIN)/python tests/support/debian.py
	@$(BIN)/python tests/support/browsers.py
	@$(BIN)/python tests/support/kubernetes.py
	@$(BIN)/python tests/support/open_mpi.py
	@$(BIN)/python tests/support/panels.py

panel: $(VENV)/ready ## the panel for JupyterLab, built with npm into this environment: an editable installation has none
	@$(BIN)/python labextension/build.py

docs: $(VENV)/ready ## the documentation as a site, in build/site; broken links and forgotten pages are errors
	@$(BIN)/python docs/site/build.py

screenshots: $(VENV)/ready parts ## the pictures of the dashboard in docs/images anew, from a real browser; look at each
	@$(BIN)/python -m pytest tests/dashboard/screenshots.py

dist: $(VENV)/ready ## the wheel and the source distribution, in dist; with the panel, so Node and npm are needed
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[release]'
	@rm -rf dist build && ENGINEROOM_PANEL=require $(BIN)/python -m build

check-dist: dist ## install that wheel into bare environments and use it: the README's first example, JupyterLab's panel
	@$(BIN)/python -m tests.check_dist

bench: $(VENV)/bench ## ours and the others, side by side; rewrites docs/performance.md
	@$(BIN)/python -m benchmarks --save
	@$(BIN)/python -m benchmarks.report

ROUNDS ?= 40
chaos: $(VENV)/ready ## the kill campaign, ROUNDS=n more rounds: every kind of process killed at random, nothing lost
	@$(BIN)/python -m tests.chaos.campaign --rounds $(ROUNDS)

steady: $(VENV)/ready mongodb parts ## the suite until it has run ROUNDS=n times (20) on a busy machine: which tests do not always pass
	@$(BIN)/python -m tests.steady $(if $(filter-out file,$(origin ROUNDS)),--rounds $(ROUNDS))

CASES ?= 20000
fuzz: $(VENV)/fuzz ## every parser, given bytes that strangers may send, guided by coverage: CASES=n, MINUTES=n of each; TARGET=name
	@$(BIN)/python -m tests.fuzz.campaign --cases $(CASES) $(if $(TARGET),--target $(TARGET)) \
	    $(if $(filter-out file,$(origin MINUTES)),--minutes $(MINUTES))

bounded: $(VENV)/ready ## whether the memory of each process stays under its limit: a million tasks that wait, 10 GB printed, …
	@$(BIN)/python -m benchmarks.bounded

MINUTES ?= 60
soak: $(VENV)/ready ## whether memory, descriptors, threads and files of a cluster in use are steady for MINUTES=n (60)
	@$(BIN)/python -m benchmarks.soak --minutes=$(MINUTES)

ray: $(VENV)/ready ## engines in a real Ray: installs it (70 MB), and runs the tests that need it
	@$(call install,.[ray])
	@$(BIN)/python -m pytest tests/integration/test_ray_engines.py

nightly: $(VENV)/ready mongodb ## what takes hours: 25,000 random histories of the scheduler, 10 million simulated events, other long searches
	@ENGINEROOM_NIGHTLY=1 $(BIN)/python -m pytest tests/unit/core/test_core_properties.py tests/unit/wire tests/contract tests/integration/test_nth_message.py \
	    tests/simulation/test_simulation.py

constraints: | $(BIN)/python ## write constraints.txt anew, from the newest of everything; then run `make test`
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && $(BIN)/python -m venv "$$scratch/new" && \
	pip="$$scratch/new/bin/python -m pip --disable-pip-version-check" && \
	$$pip install --quiet --upgrade --upgrade-strategy eager setuptools --editable '.[test,bench,ray,fuzz]' && \
	{ echo '# What `make` and CI install, so that a commit that passed passes again. Written by `make constraints`.' && \
	  $$pip freeze --all --exclude pip --exclude engineroom; } > "$$scratch/constraints.txt" && \
	cp "$$scratch/constraints.txt" constraints.txt

lowest: mongodb ## the tests that meet the dependencies, with the lowest versions that pyproject.toml allows
	@$(BIN)/python -m tests.lowest

compat: ## the suite on a newer Python (3.12 or later), where one can be had
	@tests/compat.sh

clean: ## remove the virtual environment and the tools' caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .cache build dist

# Stamps: installed once, and again when pyproject.toml or constraints.txt has changed.

$(VENV)/ready: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Engineroom and what it needs into $(VENV): once, about a minute."
	@$(call install,.[test])
	@touch $@

$(VENV)/bench: $(VENV)/ready
	@echo "Installing what the benchmarks compare with into $(VENV): once."
	@$(call install,.[bench])
	@touch $@

$(VENV)/fuzz: $(VENV)/ready
	@echo "Installing atheris into $(VENV): once."
	@$(call install,.[fuzz])
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "Making a virtual environment in $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)

.PHONY: help demo test lint docs dist check-dist panel screenshots mongodb parts bench bounded chaos fuzz soak ray nightly constraints lowest compat clean

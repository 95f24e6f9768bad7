# distill-deploy: `make demo` runs the main job, `make test` passes the tests. Both install first.
PYTHON ?= python3
BIN := .venv/bin
# Each test computes with one thread. tests/conftest.py tells which stay together, since they share what is slow to
# make, and which are begun first.
AT_ONCE := -n 2 --no-loadscope-reorder
INSTALLED := .venv/.installed

.PHONY: install demo verifiers places test test-all check fix bench faults up lock clean

install: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "distill-deploy needs Python 3.11 or newer; name one with make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv --clear .venv
	@# Two at once, and then what the lock does not name: of PyTorch for a GPU, CUDA's libraries.
	grep -v '^#' requirements.lock | sort -r | xargs -P 2 -n 33 \
		$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --no-deps
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@# What pip does with one core; a few files are meant for other versions of Python, or for none.
	$(BIN)/python -m compileall -qq -j 0 -x /tests/ .venv/lib distill_core tasks flows || true
	@touch $(INSTALLED)

demo: install  ## the whole job on an embedded teacher, offline, in minutes
	$(BIN)/distill-deploy demo

verifiers: install  ## what answers a bundle's rows as its targets do: QEMU, arm64, node, Chromium
	sh deploy/verifiers/set_up.sh $(BIN)/python

places: install
	@# Where some of them cannot be had this says which, and their tests skip.
	-@sh deploy/verifiers/set_up.sh $(BIN)/python

test: install  ## what CI runs
	@$(MAKE) --no-print-directory -j 2 check places
	$(BIN)/pytest -m "not slow and not alone" $(AT_ONCE)
	$(BIN)/pytest -m "alone and not slow" $$(grep -rl --include='*.py' pytest.mark.alone tests)

test-all: install check places  ## with real models and long runs
	$(BIN)/pytest

faults: install  ## kills, full disks, servers that are down
	$(BIN)/pytest -m faults

check: install  ## style, types, arrows between the packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

fix: install  ## style, mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install  ## measure the cells that have no figures yet, and render the tables
	$(BIN)/python -m tests.bench

up: install  ## Prefect and MLflow servers on this machine, until Ctrl-C
	sh deploy/up.sh

lock:  ## resolve pyproject.toml anew in an empty environment, and pin what came out
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet --disable-pip-version-check 'torch==2.13.0'
	build/lock/bin/pip install --quiet --disable-pip-version-check 'setuptools>=77' -e '.[dev]'
	# Without the label of a local build (+cpu): the machine's pip finds the build that suits it.
	{ echo "# make lock; every package that distill-deploy[dev] needs, and no other"; \
	  build/lock/bin/pip freeze --all --exclude-editable --exclude pip \
	  | sed -E 's/\+[a-z0-9.]+$$//'; } > requirements.lock
	rm -rf build/lock

clean:
	rm -rf .venv .verifiers build *.egg-info

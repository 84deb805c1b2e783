# The verbs of this project; `make` alone prints them.
# Everything runs in .venv, made on first use from the locks in requirements/.
SHELL := /bin/sh
.DEFAULT_GOAL := help
BIN := .venv/bin
# Where the environment forbids .pyc files every process would compile its imports again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install install-dev demo test check format bench soak guards kafka ui lock clean

help: ## print these verbs
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: ## make .venv with ct in it (Python 3.11 to 3.13)
	@scripts/install.sh core

install-dev:
	@scripts/install.sh dev

demo: install ## the main job on sample data, batch and streaming, with what goes wrong (PART=batch|stream, KAFKA=1)
	@$(BIN)/ct demo $(if $(PART),--part $(PART)) $(if $(KAFKA),--kafka)

test: install-dev ## the whole suite on real components (embedded PostgreSQL, real Feast)
	@$(BIN)/pytest -q -n 2 --dist loadgroup $(ARGS)

check: install-dev ## lint, format, types, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

format: install-dev ## mend what a machine can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install-dev ## measure: ours, the peer, the ratio, the target (ONLY=stream for one script, ARGS= for its options)
	@missed=; for script in ct_assets_tests/bench/bench_$(or $(ONLY),*).py; do echo "== $$script"; $(BIN)/python $$script $(ARGS) || missed="$$missed $$script"; done; \
	if [ -n "$$missed" ]; then echo "a target is missed in:$$missed"; exit 1; fi

soak: install-dev ## long random tests with printed seeds (SEED=N to repeat one; KAFKA=1: the streaming one on a real broker; with Redis where redis-server is)
	@$(BIN)/python -m ct_assets_tests.faults.soak_kill --kills 100 $(if $(SEED),--seed $(SEED))
	@$(BIN)/python -m ct_assets_tests.faults.soak_stream --kills 300 --events 1000000 $(if $(KAFKA),--kafka) $(if $(shell command -v redis-server),--redis) $(if $(SEED),--seed $(SEED))
	@$(BIN)/python -m ct_assets_tests.conformance.live_streams --streams 10000 $(if $(SEED),--seed $(SEED))
	@STREAM_CASES=all $(BIN)/pytest -q -n 0 ct_assets_tests/conformance -k "case and ($(if $(KAFKA),worker-kafka or )redis)"

guards: install-dev ## remove each guard in a copy: its fault test must fail (make guards ARGS="--only F12")
	@$(BIN)/python -m ct_assets_tests.faults.guards $(ARGS)

kafka: install ## a real Kafka broker on this machine, for a first try (ARGS=stop|status; needs Java and Maven)
	@$(BIN)/python -m ct_assets.adapters.events.broker $(or $(ARGS),start)

ui: install ## the Dagster UI and daemon on the embedded database
	@$(BIN)/ct ui

lock: ## renew requirements/*.txt (see requirements/README.md)
	@scripts/lock.sh

clean: ## remove .venv and caches; data in .ct stays (make clean STATE=1 removes it too)
	@if [ "$(STATE)" = 1 ] && [ -x $(BIN)/ct ]; then for home in .ct .ct/*; do if [ -e $$home/postgres.lock ]; then CT_HOME=$$home $(BIN)/ct stop; fi; done; fi
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist build
	find . -name __pycache__ -type d -not -path './.ct/*' -prune -exec rm -rf {} +
	@if [ "$(STATE)" = 1 ]; then echo "removing .ct"; rm -rf .ct; elif [ -d .ct ]; then echo "kept .ct: $$(du -sh .ct | cut -f1) of data; remove it with: make clean STATE=1"; fi

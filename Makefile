# Every target installs what it lacks through scripts/setup.sh, which does nothing when nothing is missing.
# PG_CONFIG=… chooses the PostgreSQL to build for, PG_MAJOR=… another of Debian's (default: Debian's PostgreSQL 15).
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test lint scratch scratch-stop install bench soak soak-crashes sql-reference
ifdef PG_CONFIG
export PG_CONFIG
endif
ifdef PG_MAJOR
export PG_MAJOR
endif

help: ## list the targets
	@echo "pgflow: flows inside PostgreSQL"
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

demo: ## run flows on public flight data, here and on ClickHouse, live, and draw their diagrams (demo/out)
	@scripts/setup.sh build demo
	@scripts/setup.sh clickhouse || echo "demo: goes on without ClickHouse" >&2
	@scripts/install.sh
	@demo/run.sh

test: ## run all test layers, the fast ones first
	@scripts/setup.sh build demo servers
	@scripts/install.sh
	@scripts/test.sh

lint: ## check formatting, clippy, SQL and shell style, and that the SQL reference is current
	@scripts/setup.sh build lint
	@scripts/install.sh
	@scripts/lint.sh

scratch: ## start (or reuse) a scratch cluster; prints the shell lines to connect with: eval "$(make scratch)"
	@scripts/setup.sh build >&2
	@scripts/install.sh >&2
	@scripts/scratch.sh start

scratch-stop: ## stop the scratch cluster and remove it
	@scripts/scratch.sh stop

install: ## build and install the extension for the server of PG_CONFIG=…
	@scripts/setup.sh build
	@scripts/install.sh

bench: ## measure throughput against pgbench, latency, chain and fan-out (SMOKE=1: in seconds)
	@scripts/setup.sh build
	@scripts/install.sh
	@benches/run.sh

soak: ## the crash and property tests for long: KILLS=20 of each kind, FLOWS=2000 random flows, ROUNDS=1000 of the crash matrix
	@scripts/setup.sh build servers
	@scripts/install.sh
	@PGFLOW_SEED=$${SEED:-$$RANDOM} PGFLOW_KILLS=$${KILLS:-20} PGFLOW_FLOWS=$${FLOWS:-2000} PGFLOW_ROUNDS=$${ROUNDS:-1000} LIMIT=6h scripts/test.sh server

soak-crashes: ## only the crash matrix by chance: ROUNDS=1000 from seed SEED=… on; ends with a summary
	@scripts/setup.sh build
	@scripts/install.sh
	@PGFLOW_SEED=$${SEED:-$$RANDOM} PGFLOW_ROUNDS=$${ROUNDS:-1000} cargo test --quiet -p pgflow-tests --test crash_matrix anything_dies_anywhere -- --nocapture

sql-reference: ## write docs/sql-reference.md anew from the comments in the database
	@scripts/setup.sh build
	@scripts/install.sh
	@scripts/sql-reference.sh

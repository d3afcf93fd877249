# Every target installs what it lacks through scripts/setup.sh, which does nothing when nothing is missing.
# PG_CONFIG=… chooses the PostgreSQL to build for, PG_MAJOR=… another of Debian's (default: Debian's PostgreSQL 15).
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help package demo test test-majors lint scratch scratch-stop install bench bench-smoke bench-page soak soak-crashes fuzz sql-reference
ifdef PG_CONFIG
export PG_CONFIG
endif
ifdef PG_MAJOR
export PG_MAJOR
endif

# Builds and installs for another major version, with the profile of the tests: what that has built already is used again.
install_for = PROFILE=dev STRIP=yes PG_CONFIG=$$(scripts/majors.sh $(1)) scripts/install.sh

help: ## list the targets
	@echo "pgflow: flows inside PostgreSQL"
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

demo: ## run flows on public flight data, here and on ClickHouse, live, and draw their diagrams (demo/out)
	@scripts/setup.sh build demo
	@scripts/setup.sh clickhouse || echo "demo: goes on without ClickHouse" >&2
	@scripts/install.sh
	@demo/run.sh

test: ## run all test layers, the fast ones first
	@scripts/setup.sh build demo package servers bench
	@scripts/install.sh
	@$(call install_for,16) || echo "test: goes on without PostgreSQL 16; what needs it fails" >&2
	@scripts/test.sh

test-majors: ## run the core of the tests on PostgreSQL 16 and 18
	@scripts/setup.sh build majors
	@$(foreach major,16 18,$(call install_for,$(major)) && PG_CONFIG=$$(scripts/majors.sh $(major)) scripts/test.sh core &&) true

lint: ## check formatting, clippy, SQL and shell style, and that the SQL reference is current
	@scripts/setup.sh build lint hadolint pgxn
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

package: ## build a Debian package for the server of PG_MAJOR=… (15): target/package/*.deb
	@scripts/setup.sh build package
	@scripts/package.sh

bench: ## measure everything beside pgbench and other systems, write docs/benchmarks.md (FAMILIES="…", SIZES="…", RESUME=1)
	@scripts/setup.sh build bench peers
	@scripts/install.sh
	@benches/run.sh $(if $(FAMILIES),--families $(FAMILIES)) $(if $(SIZES),--sizes "$(SIZES)") $(if $(RESUME),--resume)

bench-smoke: ## all benchmarks in a minute, to see that they work; their figures say nothing (target/bench-smoke)
	@scripts/setup.sh build bench peers
	@scripts/install.sh
	@benches/run.sh --profile smoke --out target/bench-smoke

bench-page: ## write docs/benchmarks.md anew from docs/bench/results.jsonl
	@scripts/setup.sh bench
	@benches/run.sh --page

soak: ## the crash and property tests for long: KILLS=20 of each kind, FLOWS=2000 random flows, ROUNDS=1000 of the crash matrix
	@scripts/setup.sh build servers
	@scripts/install.sh
	@PGFLOW_SEED=$${SEED:-$$RANDOM} PGFLOW_KILLS=$${KILLS:-20} PGFLOW_FLOWS=$${FLOWS:-2000} PGFLOW_ROUNDS=$${ROUNDS:-1000} LIMIT=6h scripts/test.sh server

soak-crashes: ## only the crash matrix by chance: ROUNDS=1000 from seed SEED=… on; ends with a summary
	@scripts/setup.sh build
	@scripts/install.sh
	@PGFLOW_SEED=$${SEED:-$$RANDOM} PGFLOW_ROUNDS=$${ROUNDS:-1000} cargo test --quiet -p pgflow-tests --test crash_matrix anything_dies_anywhere -- --nocapture

fuzz: ## the definition parser and the diagrams against strange input for MINUTES=60 (SEED=… repeats a run)
	@scripts/setup.sh build
	@PGFLOW_FUZZ_MINUTES=$${MINUTES:-60} PGFLOW_FUZZ_SEED=$${SEED:-} cargo test -p pgflow-core --test fuzz -- --nocapture --test-threads 1

sql-reference: ## write docs/sql-reference.md anew from the comments in the database
	@scripts/setup.sh build
	@scripts/install.sh
	@scripts/sql-reference.sh

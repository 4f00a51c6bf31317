# Quiver's commands. A fresh machine needs Rust, Go, Node and a C compiler; everything else is fetched from the package
# registries by the targets below. `make demo` and `make test` build the Rust workspace in one way only (CARGO_BUILD), so
# that nothing is compiled twice.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
CARGO_BUILD := --locked --workspace --all-targets
QUIVER := $(TARGET_DIR)/debug/quiver
PLUGIN := dist/gpx_quiver_logs_$(shell go env GOOS)_$(shell go env GOARCH)
PACKAGE = quiver-logs-datasource-$(shell sed -n 's/^ *"version": "\(.*\)",*$$/\1/p' plugin.json).zip
PYTHON := .venv/bin/python
NPM := npm --no-audit --no-fund --loglevel=error

.PHONY: help demo test bench build dist package e2e lint test-rust test-frontend test-host test-pages test-bench test-torture test-demo torture soak clients clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

demo: build dist ## build, run the store with a small workload, and show what panels show (ONCE=1: then end)
	cd tests/host && go run ./cmd/demo --quiver $(abspath $(QUIVER)) --plugin $(abspath $(PLUGIN)) --provisioning ../../provisioning $(if $(ONCE),--once)

test: lint test-rust test-frontend test-host test-pages test-bench test-torture test-demo ## everything that CI runs

bench: build tests/bench/.venv/.installed ## measure against DuckDB, 3,000,000 records (BENCH="--days 10", "--cold", …)
	cd tests/bench && go run . --quiver $(abspath $(QUIVER)) --plugin $(abspath $(TARGET_DIR)/debug/gpx_quiver_logs) --work $(abspath $(TARGET_DIR))/bench $(BENCH)

build: ## the store, the plugin's backend and the tests' binaries
	cargo build $(CARGO_BUILD)

lint: ## format and lints of Rust and Go
	cargo fmt --all --check
	cargo clippy $(CARGO_BUILD) --quiet -- -D warnings
	for module in tests/host tests/bench tests/torture; do (cd $$module && test -z "$$(gofmt -l . | tee /dev/stderr)" && go vet ./...); done

test-rust: build clients ## unit, tidy and integration tests (real processes, real clients)
	QUIVER_PYTHON=$(abspath $(PYTHON)) cargo test $(CARGO_BUILD)

test-frontend: frontend/node_modules/.installed ## type check, lint and unit tests of the frontend
	cd frontend && $(NPM) run typecheck && $(NPM) run lint && $(NPM) run test

test-host: build package ## the plugin started and read as Grafana does, and its package
	cd tests/host && QUIVER_BIN=$(abspath $(QUIVER)) QUIVER_PLUGIN_BIN=$(abspath $(PLUGIN)) QUIVER_PACKAGE=$(abspath $(PACKAGE)) go test ./...

e2e: ## the plugin in a real Grafana that runs at GRAFANA_URL; see tests/e2e/README.md
	@test -n "$(GRAFANA_URL)" || { printf '%s\n' \
		'make e2e looks at the plugin in a running Grafana, and needs its address. For example:' '' \
		'  GRAFANA_HOME=/usr/share/grafana make demo              # store, lines and Grafana; or: docker compose up' \
		'  GRAFANA_URL=http://127.0.0.1:3000 make e2e             # in another terminal' '' \
		'Nothing was tested. tests/e2e/README.md tells more.' >&2; exit 2; }
	$(MAKE) tests/e2e/node_modules/.installed
	cd tests/e2e && $(NPM) run typecheck && GRAFANA_URL=$(GRAFANA_URL) $(NPM) run test -- $(E2E)

test-pages: build dist tests/pages/node_modules/.installed ## the built plugin in headless Chromium; pictures in tests/pages/screenshots
	command -v chromium > /dev/null || (apt-get update && apt-get install -y --no-install-recommends chromium)
	cd tests/host && go build -o $(abspath $(TARGET_DIR))/bridge ./cmd/bridge
	cd tests/pages && QUIVER_DIST=../../dist QUIVER_BRIDGE=$(abspath $(TARGET_DIR))/bridge QUIVER_BIN=$(abspath $(QUIVER)) \
	  QUIVER_PLUGIN_BIN=$(abspath $(PLUGIN)) CHROMIUM=$$(command -v chromium) $(NPM) test

test-torture: build ## durability, short: kills, power cuts, failing and full disks, damage (QUIVER_SEED repeats a run)
	cd tests/torture && QUIVER_BIN=$(abspath $(QUIVER)) go test -count=1

torture: build ## durability, long (TORTURE='--seed 7 --only kill,cut --kills 5000'; TORTURE=--help)
	cd tests/torture && go run ./cmd/torture --quiver $(abspath $(QUIVER)) $(TORTURE)

SOAK ?= 3600
soak: build ## the simulation and the kills for SOAK seconds (3600); QUIVER_SEED repeats a seed of the simulation
	QUIVER_SIM_SECONDS=$(SOAK) cargo test $(CARGO_BUILD) simulation:: -- --nocapture
	$(if $(QUIVER_SEED),,cd tests/torture && go run ./cmd/torture --quiver $(abspath $(QUIVER)) --only kill)

test-bench: ## the bench's records and comparisons, without a store
	cd tests/bench && go test ./...

test-demo: build dist ## the demo, to its three panels
	cd tests/host && go run ./cmd/demo --once --quiver $(abspath $(QUIVER)) --plugin $(abspath $(PLUGIN)) --provisioning ../../provisioning

dist: build dist/module.js ## the plugin as Grafana loads it, in dist/
	install -m 0755 $(TARGET_DIR)/debug/gpx_quiver_logs $(PLUGIN)

package: dist ## the plugin as one zip, quiver-logs-datasource-VERSION.zip
	cd tests/host && go run ./cmd/package --dist ../../dist --out ../..

dist/module.js: frontend/node_modules/.installed plugin.json docs/plugin.md CHANGELOG.md LICENSE $(shell find frontend/src provisioning/dashboards -type f)
	cd frontend && $(NPM) run build
	touch $@

frontend/node_modules/.installed: frontend/package-lock.json
	cd frontend && $(NPM) ci
	touch $@

# The log clients that the integration tests run: Python's in a virtual environment, Node's and syslog's beside them.
clients: .venv/.installed tests/clients/node/node_modules/.installed tests/clients/syslog-ng/.installed tests/clients/kafka/lib/.installed

.venv/.installed: tests/clients/requirements.txt
	python3 -m venv .venv || (apt-get update && apt-get install -y python3 python3-venv && python3 -m venv .venv)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -r tests/clients/requirements.txt
	touch $@

tests/clients/node/node_modules/.installed: tests/clients/node/package-lock.json
	cd tests/clients/node && $(NPM) ci
	touch $@

tests/pages/node_modules/.installed: tests/pages/package-lock.json frontend/node_modules/.installed
	cd tests/pages && $(NPM) ci
	touch $@

tests/e2e/node_modules/.installed: tests/e2e/package-lock.json
	cd tests/e2e && $(NPM) ci
	touch $@

# rsyslog with its TLS, the journal's sender, and what syslog-ng needs. Its own package excludes rsyslog's, so it is only unpacked here.
LOG_PACKAGES := systemd-journal-remote rsyslog rsyslog-openssl libcap2 libglib2.0-0 libivykis0 libjson-c5 libnet1 libpcre3 libssl3 libsystemd0 libwrap0
tests/clients/syslog-ng/.installed:
	dpkg --status $(LOG_PACKAGES) >/dev/null 2>&1 || (apt-get update && apt-get install -y --no-install-recommends $(LOG_PACKAGES))
	mkdir -p $(@D)
	cd $(@D) && (apt-get download syslog-ng-core || (apt-get update && apt-get download syslog-ng-core))
	cd $(@D) && dpkg --extract syslog-ng-core_*.deb . && rm syslog-ng-core_*.deb
	touch $@

# Kafka's broker: its jars, from Maven Central.
tests/clients/kafka/lib/.installed: tests/clients/kafka/pom.xml
	command -v java > /dev/null && command -v mvn > /dev/null || (apt-get update && apt-get install -y --no-install-recommends default-jre-headless maven)
	cd tests/clients/kafka && mvn --quiet --batch-mode dependency:copy-dependencies -DoutputDirectory=lib -DincludeScope=runtime
	touch $@

tests/bench/.venv/.installed: tests/bench/requirements.txt
	python3 -m venv tests/bench/.venv || (apt-get update && apt-get install -y python3 python3-venv && python3 -m venv tests/bench/.venv)
	tests/bench/.venv/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

clean: ## remove what was built
	rm -rf $(TARGET_DIR) dist quiver-logs-datasource-*.zip .venv tests/bench/.venv frontend/node_modules tests/clients/node/node_modules tests/pages/node_modules tests/e2e/node_modules tests/clients/syslog-ng tests/clients/kafka/lib

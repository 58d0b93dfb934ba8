# What one does with this source. The engine and the tools are pinned; both are
# fetched once.

GO ?= go
CACHE := $(CURDIR)/.cache
BIN := $(CURDIR)/bin/tenantwatch
FUZZTIME ?= 10s

# The tools have a module of their own, so that they are no dependency of the program.
TOOL = $(GO) tool -modfile=.ci/tools.mod

# Tests and benchmarks want the real engines: without them they fail, not skip.
export TENANTWATCH_TEST_ENGINE = 1
export TENANTWATCH_TEST_KAFKA = 1

.PHONY: help build engine kafka-jars demo run kafka test race chaos bench fuzz docs lint clean

help: ## list what can be made
	@awk -F ":.*## " '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

build: ## build bin/tenantwatch
	CGO_ENABLED=0 $(GO) build -trimpath -o "$(BIN)" ./cmd/tenantwatch

engine: ## fetch the embedded ClickHouse into .cache, once
	@deploy/fetch-engine "$(CACHE)"

kafka-jars: # fetch Apache Kafka for the tests into .cache, once
	@deploy/fetch-kafka "$(CACHE)"

demo: engine build ## watch a simulated tenant; data in ./data, or TENANTWATCH_DATA_DIR
	@exec "$(BIN)" demo

run: engine build ## watch the tenant of AUTH0_DOMAIN; see the README for the settings
	@exec "$(BIN)" run

kafka: kafka-jars ## run three Apache Kafka brokers for trials until Ctrl-C; prints KAFKA_BROKERS
	@exec deploy/kafka-cluster "$(CACHE)"

test: engine kafka-jars ## every test, against the real engines
	@$(TOOL) gotestsum --format pkgname-and-test-fails -- -p 3 -parallel 3 -timeout 15m ./...

race: engine kafka-jars ## the tests under the race detector, except where it has nothing to see (-short)
	@$(TOOL) gotestsum --format pkgname-and-test-fails -- -race -short -parallel 3 -timeout 20m ./...

# How long make chaos goes on.
CHAOS ?= 10m

chaos: engine kafka-jars ## kill everything again and again for CHAOS=10m, then count what is lost; CHAOS_SEED=N repeats a run
	@CHAOS=$(CHAOS) $(GO) test -run '^TestChaos$$' -count=1 -v -timeout 0 ./cmd/tenantwatch

bench: engine kafka-jars build ## measure throughput, latency and memory
	@$(GO) test -run '^$$' -bench . -benchtime 1x -timeout 10m ./cmd/tenantwatch
	@$(GO) test -run '^$$' -bench . -benchmem $$($(GO) list ./... | grep -v cmd/tenantwatch)

fuzz: ## run each fuzzer for FUZZTIME
	@for package in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$package || exit 1; \
		done; \
	done

docs: ## write the generated tables of the documents again
	@$(GO) test ./cmd/tenantwatch -run '^TestDocuments$$' -count=1 -update

# Words that are right, or that Auth0 spells this way.
SPELLED = mitre,donwgrade,proces

lint: ## gofmt, vet, staticcheck, revive, errors, log calls, spelling, tidy modules
	@unformatted=$$(gofmt -l cmd ingest rules scanner schema); test -z "$$unformatted" || { echo "gofmt: $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	$(TOOL) revive -config .ci/revive.toml ./...
	$(TOOL) go-errorlint ./...
	$(TOOL) sloglint -static-msg=true -key-naming-case=snake -msg-style=lowercased -no-global=all ./...
	@git ls-files | grep -v -e testdata/ -e '\.sum$$' | xargs $(TOOL) misspell -error -locale US -i $(SPELLED)
	$(GO) mod tidy -diff

clean: ## remove what was built; the data and the fetched engine stay
	rm -rf bin

# Makefile — a thin front to CMake and the test driver. `make help` lists what there is.
BUILD := build
CMAKE_FLAGS := -DCMAKE_BUILD_TYPE=Release
ifneq ($(shell command -v ccache 2>/dev/null),)
CMAKE_FLAGS += -DCMAKE_C_COMPILER_LAUNCHER=ccache
endif

.PHONY: all needs build run test test-full test-crash test-soak fuzz bench minio dev fmt clean help
all: build

build: ## the release binary, build/varve
	@cmake -S . -B $(BUILD) $(CMAKE_FLAGS) >$(BUILD).log 2>&1 || { cat $(BUILD).log; rm -f $(BUILD).log; exit 1; }; rm -f $(BUILD).log
	@cmake --build $(BUILD) -j$$(nproc)

needs: ## install what build, run and test need (Debian packages, by name)
	@scripts/install-needs

run: ## install, build, and show the main job: produce, tier, read back cold
	@scripts/install-needs build
	@$(MAKE) --no-print-directory build
	@$(BUILD)/varve demo ev

test: ## install, build, run the tests (about 25 minutes with warm caches)
	@scripts/install-needs
	@$(MAKE) --no-print-directory build
	@tests/run test

test-full: ## the larger matrices too
	@scripts/install-needs
	@$(MAKE) --no-print-directory build
	@tests/run test full

test-crash: ## crash points and power cuts
	@scripts/install-needs
	@$(MAKE) --no-print-directory build
	@tests/run crash

test-soak: ## one broker in a bad world for HOURS (default 4): ledgers, growth
	@scripts/install-needs
	@$(MAKE) --no-print-directory build
	@tests/tier/soak.py --hours $(or $(HOURS),4)

fuzz: ## libFuzzer targets, a minute each
	@scripts/install-needs
	@tests/fuzz/run

bench: ## against Apache Kafka and the machine's limits: a table and a chart (hours; BENCH="--quick P1 R5": less)
	@scripts/install-needs bench
	@$(MAKE) --no-print-directory build
	@bench/run $(BENCH)

minio: ## a local MinIO with a bucket and a broker on it, until Ctrl-C
	@scripts/install-needs build
	@$(MAKE) --no-print-directory build
	@minio-test/playground

dev: ## ASan+UBSan build in build-dev
	@cmake --preset dev >/dev/null && cmake --build build-dev -j$$(nproc)

fmt: ## clang-format everything
	@git ls-files '*.c' '*.h' | grep -v '^src/wire/gen/' | xargs clang-format -i

clean:
	@rm -rf $(BUILD) build-dev build-tsan build-fuzz

help:
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

# Everything that is done to inlay, by name. `make` alone lists it.
# Building needs Rust and protoc; running against real daemons needs root on a Debian.

CARGO        ?= cargo
FUZZ_SECONDS ?= 600
SEMVER_BASE  ?= $(shell git describe --tags --abbrev=0 2>/dev/null || echo main)
SEMVER_CHECKS = 0.51.0
N            ?= 10000
MUTATIONS    ?= 1000
MSRV          = $(shell sed -n 's/^rust-version = "\(.*\)".*/\1/p' Cargo.toml)
CHECK         = --manifest-path dev/check/Cargo.toml --target-dir target/check
# Where random tests begin: elsewhere in each run, which tells it.
SEED         ?= $(shell date +%s)
SEED         := $(SEED)
export INLAY_SEED = $(SEED)
export PROPTEST_RNG_SEED = $(SEED)
TELL_SEED     = @echo 'random tests begin at $(SEED); `make $@ SEED=$(SEED)` repeats them'

.PHONY: help build protoc peers demo quick test e2e differential mutations shapes week soak suite lint msrv semver bench fuzz clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

build: ## the release binary, target/release/inlay
	$(CARGO) build --locked --release

protoc: ## get the compiler of proto/, where it is missing
	@dev/protoc.sh

# All that compiles inlay.
build quick test e2e differential mutations shapes week soak lint msrv semver bench fuzz: protoc

peers: ## get the real daemons and clients, pinned, outside this tree
	dev/peers.sh

demo: build peers ## one project built by BuildKit and through inlay, side by side
	dev/demo.sh

# What is in a file of its own needs nothing but Rust and protoc.
QUICK_TESTS = $(patsubst tests/%.rs,--test %,$(wildcard tests/*.rs))

quick: ## unit tests, properties, recorded cases: without root, peers or network
	$(TELL_SEED)
	$(CARGO) test --locked --no-fail-fast --lib $(QUICK_TESTS)
	$(CARGO) test --locked --doc

test: peers ## unit, property and end-to-end tests, these on real daemons; a little fuzzing
	$(TELL_SEED)
	$(CARGO) test --locked --no-fail-fast
	$(CARGO) test --locked --no-default-features --doc
	$(CARGO) test --locked --no-default-features --features server --test without_containerd
	$(MAKE) suite SUITES=client FILTER=Cache
	$(MAKE) fuzz SEED=$(SEED) FUZZ_ARGS='-runs=2000'

e2e: peers ## the end-to-end tests alone; FILTER=import: those with that in their names
	$(TELL_SEED)
	$(CARGO) test --locked --test e2e -- $(FILTER)

differential: peers ## N (10000) generated caches, read and written by us and by BuildKit
	INLAY_DIFFERENTIAL_CASES=$(N) $(CARGO) test --locked --test e2e -- differential:: --nocapture

mutations: peers ## MUTATIONS (1000) damaged caches, each imported by a build
	INLAY_MUTATIONS=$(MUTATIONS) $(CARGO) test --locked --test e2e -- mutations:: --nocapture

# Where memory can be had as files, the states of daemons are there: that is twice as fast.
SHAPES = shapes::$(if $(TEXT),known_cases,generated_builds)
shapes week soak: export TMPDIR ?= $(or $(wildcard /dev/shm),/tmp)

shapes: peers ## builds of many shapes against plain BuildKit: SECONDS (600) FROM (1) STATE (a file), or CASE, or TEXT
	$(TELL_SEED)
	INLAY_SHAPES_SECONDS=$(or $(SECONDS),600) INLAY_SHAPES_FROM=$(FROM) INLAY_SHAPES_STATE=$(STATE) \
		INLAY_SHAPES_CASE=$(CASE) INLAY_SHAPES_TEXT=$(TEXT) \
		$(CARGO) test --locked --test e2e -- $(SHAPES) --nocapture --include-ignored

week: peers ## a week of CI of four PROJECTS, against BuildKit's inline cache and mode=max: a quarter of an hour
	INLAY_WEEK_PROJECTS='$(PROJECTS)' $(CARGO) test --locked --test e2e -- week::whole --nocapture --ignored

soak: peers ## CLIENTS (200) build for SECONDS (1800) while they, inlay and buildkitd are killed
	INLAY_SOAK_SECONDS=$(or $(SECONDS),1800) INLAY_SOAK_CLIENTS=$(or $(CLIENTS),200) INLAY_SEED=$(SEED) \
		$(CARGO) test --locked --test e2e -- soak:: --nocapture

suite: build peers ## BuildKit's own suites through inlay: SUITES (all) FILTER (part of a test's name)
	FILTER=$(FILTER) dev/suite.sh $(SUITES)

lint: ## formatting, clippy, documentation: no warning passes
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --lib --no-default-features -- -D warnings
	$(CARGO) clippy --locked --lib --bins --no-default-features --features server -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps --lib --no-default-features
	$(CARGO) fmt --check --manifest-path fuzz/Cargo.toml
	@# Its own lock file goes with every change of ours.
	@$(CARGO) tree --locked --manifest-path fuzz/Cargo.toml >/dev/null
	@# The pure core has no runtime and no network, for its build neither.
	@tree=$$($(CARGO) tree --locked --no-default-features --edges normal,build --prefix none) && \
		! printf '%s\n' "$$tree" | grep -E '^(tokio|tonic|hyper|h2|http|tower|mio|socket2)'
	$(CARGO) fmt --check --manifest-path dev/check/Cargo.toml
	$(CARGO) clippy --locked --all-targets $(CHECK) -- -D warnings
	$(CARGO) test --locked --quiet $(CHECK)
	$(CARGO) run --locked --quiet $(CHECK) -- layout src
	$(CARGO) run --locked --quiet $(CHECK) -- dependencies

msrv: ## the oldest Rust that Cargo.toml says is enough; rustup gets it
	rustup toolchain install --no-self-update --profile minimal $(MSRV)
	rustup run $(MSRV) cargo check --locked --target-dir target/msrv

semver: ## the library's API against SEMVER_BASE: the last tag, or main
	@cargo semver-checks --version 2>/dev/null | grep -q ' $(SEMVER_CHECKS)$$' || \
		$(CARGO) install --locked cargo-semver-checks@$(SEMVER_CHECKS)
	@# What rustdoc writes for programs is unstable, but needs no other compiler.
	RUSTC_BOOTSTRAP=1 $(CARGO) semver-checks --baseline-rev $(SEMVER_BASE) --only-explicit-features

bench: build peers ## the record set, whole builds and unary calls, against BuildKit's own inline cache
	$(CARGO) bench --locked

# libFuzzer's instrumentation, as cargo-fuzz asks for it, but for the address sanitizer: all of inlay
# is safe code. `--target` keeps it from what only runs while building.
FUZZ_FLAGS = -Cpasses=sancov-module -Ccodegen-units=1 --cfg fuzzing \
	-Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
	-Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares
FUZZ_ARGS   ?= -max_total_time=$(FUZZ_SECONDS)
FUZZ_TARGET := $(shell rustc -vV | sed -n 's/^host: //p')
FUZZ_DIR    ?= $(abspath fuzz/target)

fuzz: ## each fuzz target for FUZZ_SECONDS (600), from its seeds and what was found before
	$(TELL_SEED)
	@command -v c++ >/dev/null || { apt-get update -qq && apt-get install -qq -y --no-install-recommends g++; }
	RUSTFLAGS='$(FUZZ_FLAGS)' $(CARGO) build --locked --release --bins --manifest-path fuzz/Cargo.toml \
		--target $(FUZZ_TARGET) --target-dir $(FUZZ_DIR)
	@for target in fuzz/fuzz_targets/*.rs; do \
		name=$$(basename "$$target" .rs); log=fuzz/artifacts/$$name/log; \
		mkdir -p fuzz/corpus/$$name fuzz/artifacts/$$name; \
		$(FUZZ_DIR)/$(FUZZ_TARGET)/release/$$name fuzz/corpus/$$name fuzz/corpus-seed/$$name \
			-seed=$(SEED) $(FUZZ_ARGS) -max_len=16384 -timeout=25 -print_final_stats=1 \
			-artifact_prefix=fuzz/artifacts/$$name/ >$$log 2>&1 || { tail -n 50 $$log; exit 1; }; \
		echo "$$name: $$(sed -n 's/^stat::number_of_executed_units: //p' $$log) runs"; \
	done

clean: ## what building left here; the peers stay
	$(CARGO) clean

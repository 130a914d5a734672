# Everything that is done to inlay, by name. `make` alone lists it.
# Building needs Rust; running against real daemons needs root on a Debian.

CARGO        ?= cargo
FUZZ_SECONDS ?= 600
N            ?= 10000
# Another for each run; a failure names the one of its case.
SEED         ?= $(shell date +%s)

.PHONY: help build peers demo test differential lint bench fuzz clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

build: ## the release binary, target/release/inlay
	$(CARGO) build --locked --release

peers: ## get the real daemons and clients, pinned, outside this tree
	dev/peers.sh

demo: build peers ## one project built by BuildKit and through inlay, side by side
	dev/demo.sh

test: peers ## unit, property and end-to-end tests, these on real daemons
	$(CARGO) test --locked --no-fail-fast

differential: peers ## N (10000) generated caches, read and written by us and by BuildKit
	INLAY_DIFFERENTIAL_CASES=$(N) INLAY_DIFFERENTIAL_SEED=$(SEED) \
		$(CARGO) test --locked --test differential -- --nocapture

lint: ## formatting, clippy, documentation: no warning passes
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --lib --no-default-features -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps

bench: build peers ## the record set and whole builds, against BuildKit's own inline cache
	$(CARGO) bench --locked

fuzz: ## each fuzz target for FUZZ_SECONDS (600)
	@command -v cargo-fuzz >/dev/null || $(CARGO) install --locked cargo-fuzz@0.13.2
	@# libFuzzer's instrumentation is unstable in rustc, but needs no other compiler.
	@for target in fuzz/fuzz_targets/*.rs; do \
		name=$$(basename "$$target" .rs); mkdir -p fuzz/corpus/$$name; \
		RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run $$name fuzz/corpus/$$name fuzz/corpus-seed/$$name -- \
			-max_total_time=$(FUZZ_SECONDS) -max_len=8192 || exit 1; \
	done

clean: ## what building left here; the peers stay
	$(CARGO) clean

# Benchmarks; included by the Makefile. `make bench` builds and runs them.
BENCH_SRCS := $(wildcard tests/bench/*_bench.c)
BENCH_BINS := $(patsubst tests/bench/%.c,$(B)/bench/%,$(BENCH_SRCS))

$(B)/bench/%: tests/bench/%.c $(B)/libsluice.a $(CU_OBJS)
	@mkdir -p $(@D)
	$(if $(V),,@echo "  BENCH   $@")
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -MF $@.d -o $@ $< $(CU_OBJS) $(B)/libsluice.a $(LIBS) $(CUDA_LIBS)

.PHONY: bench
bench: $(BENCH_BINS)
	@set -e; for b in $(BENCH_BINS); do echo "== $$b"; $$b; done

# Two workers against one, and the daemon's cost (tests/bench/service_bench.pl).
.PHONY: bench-service
bench-service: test-programs
	@SLUICE_BUILD=$(abspath $(B)) RECIPE=$(RECIPE) BENCH_ROUNDS=$(BENCH_ROUNDS) LAYERS=$(LAYERS) perl -Itests/lib tests/bench/service_bench.pl

# Longer ones, each prints a Markdown table; the recorded ones are in tests/bench/RESULTS.md.
# LAYERS=8 rehearses a part of DeepSeek-R1, GB=4 uses less data.
BENCH_TOOLS := $(B)/tools/make_checkpoint $(B)/tools/measure $(B)/tools/gguf_hash
export_build = SLUICE_BUILD=$(abspath $(B))

.PHONY: rehearsal bench-disk bench-peers bench-growth
rehearsal: all $(BENCH_TOOLS) $(B)/bench/coordinator_bench
	@$(export_build) perl tests/bench/rehearsal.pl --layers $(or $(LAYERS),61)
bench-disk: all $(BENCH_TOOLS)
	@$(export_build) perl tests/bench/disk.pl $(if $(GB),--gb $(GB))
bench-peers: all $(BENCH_TOOLS)
	@tests/tools/setup.sh
	@$(export_build) perl tests/bench/peers.pl $(if $(GB),--gb $(GB))
bench-growth: all $(BENCH_TOOLS) $(B)/bench/coordinator_bench
	@$(export_build) perl tests/bench/growth.pl

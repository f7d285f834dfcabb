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

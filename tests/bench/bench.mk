# Benchmarks; included by the Makefile.
#   make bench        builds and runs them: BENCH_ARGS="--json", or types: BENCH_ARGS=q4_k
#   make bench-table  the kernels' figures into README.md, kernels/README.md and kernels/bench.svg;
#                     some four minutes on a quiet machine, half of them single steps (bench-counts)
BENCH_SRCS := $(wildcard tests/bench/*_bench.c)
BENCH_BINS := $(patsubst tests/bench/%.c,$(B)/bench/%,$(BENCH_SRCS))
BENCH_ARGS ?=
OTHER_BENCHES := $(filter-out $(B)/bench/kernels_bench,$(BENCH_BINS))

$(B)/bench/%: tests/bench/%.c $(B)/libsluice.a $(CU_OBJS)
	$(call begin,BENCH,$@)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -MF $@.d -o $@ $< $(CU_OBJS) $(B)/libsluice.a $(LIBS) $(CUDA_LIBS)

# ggml from the packaged llama.cpp, where `make test-tools` could get it.
ggml = build/npm/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64/libggml-base.so
run_kernels_bench = $(B)/bench/kernels_bench $$(test -f $(ggml) && echo --ggml $(ggml))

# Instructions, counted once for a build; those that take long in a process of their own.
COUNTED      := q2_k q2_k.weighted q3_k q3_k.weighted q4_k q4_k.weighted q5_k q6_k q6_k.weighted iq4_nl iq4_xs \
                iq1_s.weighted iq1_m iq2_xxs.weighted iq2_xs.weighted iq2_s iq3_s
COUNTED_LONG := iq3_xxs q8_0 f16 bf16
$(B)/bench/counts.json: $(B)/bench/kernels_count
	@$< --json best $(COUNTED_LONG) >$@.long & $< --json best $(COUNTED) >$@.rest && wait $$!
	@python3 -c 'import json, sys; print(json.dumps(sum((json.load(open(f)) for f in sys.argv[1:]), [])))' $@.rest $@.long >$@.all
	@mv $@.all $@

.PHONY: bench bench-table bench-counts
bench-counts: $(B)/bench/counts.json
bench: $(BENCH_BINS)
	@tests/tools/setup.sh llama
	@$(run_kernels_bench) $(BENCH_ARGS)
	@$(if $(BENCH_ARGS),,set -e; for b in $(OTHER_BENCHES); do echo "== $$b"; $$b; done)

bench-table: $(B)/bench/kernels_bench $(B)/bench/counts.json
	@tests/tools/setup.sh llama
	@$(run_kernels_bench) --json $(BENCH_ARGS) >$(B)/bench/kernels.json
	@python3 tests/bench/bench_report.py $(B)/bench/kernels.json --counts $(B)/bench/counts.json --table kernels/README.md --summary README.md \
	    --svg kernels/bench.svg
	@echo "kernels/README.md, README.md and kernels/bench.svg hold $(B)/bench/kernels.json"

# Two workers against one, and the daemon's cost (tests/bench/service_bench.pl).
.PHONY: bench-service
bench-service: test-programs
	@SLUICE_BUILD=$(B) RECIPE=$(RECIPE) BENCH_ROUNDS=$(BENCH_ROUNDS) LAYERS=$(LAYERS) perl -Itests/lib tests/bench/service_bench.pl

# Longer ones, each prints a Markdown table; the recorded ones are in tests/bench/RESULTS.md.
# LAYERS=8 rehearses a part of DeepSeek-R1, GB=4 uses less data.
BENCH_TOOLS := $(B)/tools/make_checkpoint $(B)/tools/resources $(B)/tools/gguf_hash
export_build = SLUICE_BUILD=$(B)

.PHONY: rehearsal bench-disk bench-peers bench-growth
rehearsal: all $(BENCH_TOOLS) $(B)/bench/coordinator_bench
	@$(export_build) perl tests/bench/rehearsal.pl --layers $(or $(LAYERS),61) $(if $(ONLY),--only $(ONLY))
bench-disk: all $(BENCH_TOOLS)
	@$(export_build) perl tests/bench/disk.pl $(if $(GB),--gb $(GB))
bench-peers: all $(BENCH_TOOLS)
	@tests/tools/setup.sh
	@$(export_build) perl tests/bench/peers.pl $(if $(GB),--gb $(GB))
bench-growth: all $(BENCH_TOOLS) $(B)/bench/coordinator_bench
	@$(export_build) perl tests/bench/growth.pl

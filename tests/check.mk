# Tests; included by the Makefile. All of `make check` runs under one harness
# (tests/lib/run_tests.pl): cmocka programs from tests/unit, and tests/tap/*.t,
# which drive the whole program.
UNIT_SRCS := $(wildcard tests/unit/*_test.c)
UNIT_BINS := $(patsubst tests/unit/%.c,$(B)/tests/%,$(UNIT_SRCS))
TOOL_BINS := $(patsubst tests/tools/%.c,$(B)/tools/%,$(wildcard tests/tools/*.c)) \
             $(patsubst tests/preload/%.c,$(B)/tools/%.so,$(wildcard tests/preload/*.c))
# The fuzz targets that tests/fuzz/seeds.py has first inputs for, without libFuzzer.
REPLAYS   := $(patsubst %,$(B)/fuzz/%_replay,checkpoint config gguf_plan journal metadata recipe settings spec tokenizer worker)
# The long ones first, so that two at a time end together.
TAP_LONG  := $(addprefix tests/tap/,resume.t kernels_differ.t llama.t mixtures.t service.t faults.t soak.t netns.t llama_quantize.t \
             imatrix_llama.t build.t convert.t)
TAP_TESTS := $(wildcard $(TAP_LONG)) $(filter-out $(TAP_LONG),$(sort $(wildcard tests/tap/*.t)))
# Those worth running with sanitized programs, where all is some ten times slower.
TAP_SAN   := $(wildcard $(addprefix tests/tap/,service.t resume.t convert.t quantize.t verify.t cli.t damage.t \
             odd_use.t operate.t client.t manual.t diff.t imatrix.t limits.t device.t sanitizer.t fuzz_readers.t))
# Those with threads, sockets and several processes.
TAP_TSAN  := $(wildcard $(addprefix tests/tap/,service.t convert.t client.t operate.t sanitizer.t))

HEADERS_cmocka := stdarg.h stddef.h setjmp.h stdint.h cmocka.h
$(B)/tests/%_avx2_test: FILE_CFLAGS := $(FLAGS_avx2)
$(B)/tests/%_avx512_test: FILE_CFLAGS := $(FLAGS_avx512)
$(B)/tests/%: tests/unit/%.c $(B)/libsluice.a $(CU_OBJS)
	$(call begin,TEST,$@)
	$(Q)$(CC) $(ALL_CFLAGS) $(FILE_CFLAGS) -MMD -MP -MF $@.d -o $@ $< $(CU_OBJS) $(B)/libsluice.a -lcmocka $(LIBS) $(CUDA_LIBS)

# Without a library.
GENERATOR := tests/tools/make_checkpoint.c $(wildcard tests/generator/*.c)
$(B)/tools/make_checkpoint: $(GENERATOR) tests/generator/generator.h
	$(call begin,TOOL,$@)
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE -I. $(WARN) $(WERROR) -O2 -o $@ $(GENERATOR) -lm

$(B)/tools/%: tests/tools/%.c
	$(call begin,TOOL,$@)
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE $(WARN) $(WERROR) -O2 -MMD -MP -MF $@.d -o $@ $< -lxxhash -lm

# The program itself, its CUDA table replaced by one that computes on the CPU.
EMULATED := $(B)/tools/emulated_gpu.o
$(EMULATED): tests/tools/emulated_gpu.c | $(B)/gen/has_libraries
	$(call begin,TOOL,$@)
	$(Q)$(CC) $(ALL_CFLAGS) -Itests/unit -MMD -MP -c -o $@ $<

$(B)/tools/emulated_gpu: $(EMULATED) $(B)/client/sluice_main.o $(B)/libsluice.a
	$(call begin,TOOL,$@)
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $(EMULATED) $(B)/client/sluice_main.o $(B)/libsluice.a $(LIBS)

$(B)/tools/emulated_worker: $(EMULATED) $(B)/worker/worker_main.o $(B)/libsluice.a
	$(call begin,TOOL,$@)
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $(EMULATED) $(B)/worker/worker_main.o $(B)/libsluice.a $(LIBS)
TOOL_BINS += $(B)/tools/emulated_worker

# The GPU's check and benchmark, on the same.
TOOL_BINS += $(addprefix $(B)/tools/emulated_,check bench cases)
$(B)/tools/emulated_cases: tests/unit/kernels_device_test.c $(EMULATED) $(B)/libsluice.a
	$(call begin,TOOL,$@)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -MF $@.d -o $@ $< $(EMULATED) $(B)/libsluice.a -lcmocka $(LIBS)
$(B)/tools/emulated_%: tests/gpu/gpu_%.c $(EMULATED) $(B)/libsluice.a
	$(call begin,TOOL,$@)
	$(Q)$(CC) $(ALL_CFLAGS) -Itests/gpu -MMD -MP -MF $@.d -o $@ $< $(EMULATED) $(B)/libsluice.a $(LIBS)

# Those that speak the protocol.
$(B)/tools/wire_%: tests/tools/wire_%.c $(B)/libsluice.a
	$(call begin,TOOL,$@)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -MF $@.d -o $@ $< $(B)/libsluice.a $(LIBS)

# Preloaded into real programs.
$(B)/tools/%.so: tests/preload/%.c
	$(call begin,TOOL,$@)
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE $(WARN) $(WERROR) -O2 -fPIC -shared -MMD -MP -MF $@.d -o $@ $< -ldl

# The kernels' own tests with nothing but the kernels and the C library, linked statically: for
# a processor of which there is a compiler alone (tests/tap/arm64.t). tests/bare is in place of cmocka.
BARE_OBJS := $(call obj_of,kernels) $(addprefix $(B)/proto/,error.o types.o utf8.o)
BARE_BINS := $(addprefix $(B)/bare/,golden_test grids_test kernels_dequantize_test kernels_load_test zero_blocks_test \
             kernels_differ)
$(filter-out $(BARE_OBJS),$(MODULE_OBJS)) $(foreach p,$(PROGRAMS),$(B)/$(MAIN_$(p)).o): | $(B)/gen/has_libraries
$(B)/bare/%: tests/unit/%.c $(BARE_OBJS)
	$(call begin,TEST,$@)
	$(Q)$(CC) $(ALL_CFLAGS) -DXXH_INLINE_ALL -Itests/bare -static -MMD -MP -MF $@.d -o $@ $< $(BARE_OBJS) -lm
$(B)/bare/kernels_differ: tests/fuzz/kernels_differ.c $(BARE_OBJS)
	$(call begin,TEST,$@)
	$(Q)$(CC) $(ALL_CFLAGS) -static -MMD -MP -MF $@.d -o $@ $< $(BARE_OBJS) -lm
.PHONY: bare-tests
bare-tests: $(BARE_BINS)

-include $(wildcard tests/bench/bench.mk tests/fuzz/fuzz.mk tests/gpu/gpu.mk tests/ptx/ptx.mk)

.PHONY: check check-programs check-asan check-ubsan check-tsan check-fp lint unit test-programs test-tools perplexity error-table

# What the tests need beside Debian's packages: numpy, llama.cpp (build/venv, build/npm).
test-tools:
	@tests/tools/setup.sh

test-programs: $(B)/gen/has_cmocka all $(UNIT_BINS) $(TOOL_BINS) $(B)/fuzz/kernels_differ $(REPLAYS) $(BENCH_BINS)

# As many jobs as processors, unless the user said how many.
JOBS = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))
run_tests = B=$(B) NVCC='$(NVCC)' SLUICE_BUILD=$(B) SLUICE_SAN=$(SAN) tests/lib/run_tests.pl $(B)/check/log

# Two steps, since the compilers and libraries may only come with the first.
check: deps
	@$(MAKE) --no-print-directory $(JOBS) check-programs

check-programs: test-tools test-programs
	@$(run_tests) $(UNIT_BINS) $(TAP_TESTS)

unit: $(B)/gen/has_cmocka $(UNIT_BINS)
	@$(run_tests) $(UNIT_BINS)

# One file: make tap T=convert
.PHONY: tap there_is_a_tap
there_is_a_tap:
	@test -f 'tests/tap/$(T).t' || { echo "make: T=$(T): there is no tests/tap/$(T).t; T=convert is tests/tap/convert.t" >&2; exit 1; }
tap: there_is_a_tap test-tools test-programs
	@$(run_tests) tests/tap/$(T).t

# SIGKILL of daemon, workers and client, over and over: make soak ROUNDS=1000 SECONDS=3600
ROUNDS  ?= 1000
.PHONY: soak
soak: test-programs
	@SLUICE_BUILD=$(B) ROUNDS=$(ROUNDS) SECONDS=$(or $(SECONDS),3600) SEED=$(SEED) perl -Itests/lib tests/tap/soak.t

# Sanitized programs: their own folders, without CUDA, the unit tests, and a part of the rest.
san = @$(MAKE) --no-print-directory $(JOBS) B=build/$(1) SAN=$(2) NVCC= CFLAGS="-O1 -g" WERROR=$(WERROR) san-programs
check-asan:
	$(call san,asan,address)
check-ubsan:
	$(call san,ubsan,undefined)
check-tsan:
	$(call san,tsan,thread)
.PHONY: san-programs
san-programs: test-programs
	@SLUICE_QUICK=1 ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:exitcode=99 UBSAN_OPTIONS=print_stacktrace=1:exitcode=99 \
	    TSAN_OPTIONS="exitcode=99 history_size=4 suppressions=\"$(CURDIR)/tests/tools/tsan.supp\"" \
	    $(run_tests) $(UNIT_BINS) $(if $(filter thread,$(SAN)),$(TAP_TSAN),$(TAP_SAN))

# Nothing fused, nothing approximate in the objects.
check-fp: test-programs
	@$(run_tests) $(wildcard tests/tap/fp_check.t)

lint: all
	@perl tests/tools/lint.pl . $(B)/libsluice.a

# Loss of quality of every mixture, by llama.cpp on the licence texts.
perplexity: test-tools test-programs
	@SLUICE_BUILD=$(B) SLUICE_PERPLEXITY=full perl -Itests/lib tests/tap/llama.t
	@cat $(B)/perplexity.md $(B)/perplexity-imatrix.md

# Error against size of all recipes and of plan --target-size: the table in QUALITY.md, and README's picture.
# CHUNKS=0: without KL divergence, which llama.cpp takes minutes for.
CHUNKS ?= 4
error-table: test-tools test-programs
	@build/venv/bin/python tests/tools/error_table.py $(B)/sluice tests/tiny-v3 --layout legacy \
	    --imatrix tests/tiny-v3/imatrix.legacy-layout.dat --readme tests/tiny-v3/QUALITY.md --svg tests/tiny-v3/error-size.svg \
	    --work $(B)/error-table --sizes 6.5M,7.5M,9M,11M,14M --chunks $(CHUNKS)

# What looks for new failures for as long as wanted: make fuzz SECONDS=3600 SEED=7.
#   fuzz-kernels  every backend against the scalar one, and that against ggml where it is there
#   fuzz-readers  libFuzzer on every reader of strangers' bytes, SECONDS for each, from seeds that tests/fuzz/seeds.py makes
#                 (needs clang and its runtime: Debian's libclang-rt-14-dev)
# Some seconds of the readers without libFuzzer are in `make check` (tests/tap/fuzz_readers.t).
FUZZ_SECONDS = $(or $(SECONDS),60)
FUZZ_BINS := $(patsubst tests/fuzz/%.c,$(B)/fuzz/%,$(wildcard tests/fuzz/*_fuzz.c))
DIFFER    := $(B)/fuzz/kernels_differ
GGML_LIB   = $(wildcard build/npm/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64/libggml-base.so)

$(DIFFER): tests/fuzz/kernels_differ.c $(B)/libsluice.a
	$(call begin,TOOL,$@)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -MF $@.d -o $@ $< $(B)/libsluice.a $(LIBS) -ldl

$(B)/fuzz/%_fuzz: tests/fuzz/%_fuzz.c $(B)/libsluice.a
	$(call begin,FUZZ,$@)
	$(Q)$(CC) $(ALL_CFLAGS) -fsanitize=fuzzer -MMD -MP -MF $@.d -o $@ $< $(B)/libsluice.a $(LIBS)

$(B)/fuzz/%_replay: tests/fuzz/%_fuzz.c tests/fuzz/replay.c $(B)/libsluice.a
	$(call begin,TOOL,$@)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -MF $@.d -o $@ tests/fuzz/replay.c $< $(B)/libsluice.a $(LIBS)

# What strangers can say to the daemon, alone: its own sources sanitized, the rest as it is.
# Some seconds of it are in `make check` (tests/tap/fuzz.t); make fuzz-wire for longer.
WIRE_FUZZ_SRCS := $(wildcard daemon/coord*.c) $(wildcard daemon/queue*.c) daemon/committer.c \
                  proto/wire.c proto/wire_table.c proto/json_file.c
$(B)/fuzz-wire: tests/fuzz/coordinator_fuzz.c $(WIRE_FUZZ_SRCS) $(B)/libsluice.a
	$(call begin,FUZZ,$@)
	$(Q)clang -std=c11 -D_GNU_SOURCE -DSLUICE_VERSION='"$(VERSION)"' -I. -O1 -g $(FPFLAGS) -pthread \
	    -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -o $@ $< $(WIRE_FUZZ_SRCS) $(B)/libsluice.a $(LIBS)
.PHONY: fuzz-wire
fuzz-wire: $(B)/fuzz-wire
	@mkdir -p build/fuzz-wire.corpus
	$< -max_total_time=$(FUZZ_SECONDS) -timeout=20 -max_len=20000 -dict=tests/fuzz/wire.dict -print_final_stats=1 \
	    -artifact_prefix=build/fuzz-wire. build/fuzz-wire.corpus tests/fuzz/wire_seeds

.PHONY: fuzz fuzz-kernels fuzz-readers fuzz-run
fuzz:
	@$(MAKE) --no-print-directory fuzz-kernels
	@$(MAKE) --no-print-directory fuzz-readers
fuzz-kernels: $(DIFFER)
	@$(DIFFER) --seconds $(FUZZ_SECONDS) $(if $(SEED),--seed $(SEED)) --jobs $(shell nproc) --counts \
	    $(if $(GGML_LIB),--ggml $(GGML_LIB))
fuzz-readers:
	@$(MAKE) --no-print-directory $(JOBS) B=build/fuzz CC=clang NVCC= CFLAGS="-O1 -g" \
	    SAN=fuzzer-no-link,address,undefined,float-cast-overflow fuzz-run
# The last file that seeds.py writes: a run that was broken off leaves seeds without it.
$(B)/fuzz/seeds/words: tests/fuzz/seeds.py $(B)/sluice $(B)/tools/make_checkpoint
	python3 $< $(B) $(@D)
fuzz-run: $(FUZZ_BINS) $(B)/fuzz/seeds/words
	@set -e; for f in $(FUZZ_BINS); do mkdir -p $$f.corpus; echo "== $$f"; name=$${f##*/}; seeds=$(B)/fuzz/seeds/$${name%_fuzz}; \
	    $$f -max_total_time=$(FUZZ_SECONDS) $(if $(SEED),-seed=$(SEED)) -print_final_stats=1 -artifact_prefix=$$f. -timeout=60 \
	        -malloc_limit_mb=400 -dict=$(B)/fuzz/seeds/words $$f.corpus $$(test ! -d $$seeds || echo $$seeds); done

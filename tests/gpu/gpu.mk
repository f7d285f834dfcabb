# The GPU's checks and figures; included by the Makefile. gpu_check and gpu_bench link the
# kernels alone: a compiler and the CUDA toolkit are enough to build them. gpu_cases is
# kernels_device_test with every launch on the GPU, and wants cmocka.
GPU_OBJS := $(call obj_of,kernels) $(B)/proto/types.o $(B)/proto/error.o $(B)/proto/utf8.o
GPU_BINS := $(B)/gpu/gpu_check $(B)/gpu/gpu_bench

$(B)/gpu/%: tests/gpu/%.c $(GPU_OBJS) $(CU_OBJS)
	$(call begin,GPU,$@)
	$(Q)$(CC) $(ALL_CFLAGS) -Itests/gpu -MMD -MP -MF $@.d -o $@ $< $(GPU_OBJS) $(CU_OBJS) -lm $(CUDA_LIBS)
$(B)/gpu/gpu_cases: tests/unit/kernels_device_test.c $(GPU_OBJS) $(CU_OBJS)
	$(call begin,GPU,$@)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -MF $@.d -o $@ $< $(GPU_OBJS) $(CU_OBJS) -lcmocka -lm $(CUDA_LIBS)

# A machine without a GPU, and parts that the time was too short for, are no failure here; both
# are said, and gpu_run.sh itself ends with 77 and 75.
gpu_run = rc=0; GPU_BIN=$(B) tests/gpu/gpu_run.sh $(GPU_ARGS) $(1) || rc=$$?; [ $$rc -eq 0 ] || [ $$rc -eq 77 ] || [ $$rc -eq 75 ]
.PHONY: gpu-check gpu-bench gpu-all gpu-report gpu-kit gpu-programs
gpu-programs:
	@$(MAKE) --no-print-directory $(JOBS) $(GPU_BINS)
	@$(MAKE) --no-print-directory $(JOBS) $(B)/gen/has_cmocka $(B)/gpu/gpu_cases \
	    || echo "gpu: no cmocka: part cases is left out" >&2
	@$(MAKE) --no-print-directory $(JOBS) $(B)/sluice $(B)/tools/make_checkpoint \
	    || echo "gpu: sluice could not be built here: whole conversions are left out (make gpu-kit elsewhere)" >&2
gpu-check: gpu-programs
	@$(call gpu_run,about golden cases small convert random sanitizer)
gpu-bench: gpu-programs
	@$(call gpu_run,about golden kernels worker)
gpu-all: gpu-programs
	@$(call gpu_run,)

# PyPI's disassemblers first: an older toolkit's own leave instructions out.
NEWEST_DUMP = $$(ls -d "$(CURDIR)"/build/venv/lib/python3*/site-packages/nvidia/cu*/bin 2>/dev/null | sed 's/$$/:/;q')

# Registers, spills, stack and instructions that must not be there, by cuobjdump; where that cannot
# be had, the first three by ptxas. No GPU is needed.
gpu-report: $(CU_OBJS) test-tools
	@PATH="$(NEWEST_DUMP)$$PATH" NVCC="$(NVCC)" NVFLAGS="$(NVFLAGS)" CUDA_FOR='$(CUDA_FOR)' perl tests/gpu/gpu_report.pl $(CU_OBJS)

# Programs, their libraries and what they are checked with, in one folder, and packed: for a
# machine with a GPU, and neither packages nor compiler nor internet. The programs look for their
# libraries beside themselves; a libc for machines with an older one is in lib/glibc, which
# gpu_run.sh takes when the programs do not start otherwise, with what drivers want of it. Those that profilers and sanitizers
# start have C++ within. The kernels are in most programs: xz looks back far enough to pack them once.
# KIT_MAX: bytes of the packed folder.
KIT     := $(B)/gpu-kit
KIT_MAX ?= 16777216
KIT_LINK = $(CC) $(ALL_CFLAGS) $(LDFLAGS) -s -Wl,--disable-new-dtags,-rpath,'$$ORIGIN/lib'
KIT_OWN  = $(KIT_LINK) -Itests/gpu -static-libgcc -o $(KIT)/$(1) $(2) $(GPU_OBJS) $(CU_OBJS) $(3) -lm $(subst -lstdc++,-l:libstdc++.a,$(CUDA_LIBS))
gpu-kit: all $(GPU_BINS) $(B)/gen/has_cmocka $(B)/tools/make_checkpoint
	@rm -rf $(KIT) $(KIT).tar.* && mkdir -p $(KIT)/lib/glibc $(KIT)/data/tokenizer
	$(Q)$(foreach p,$(PROGRAMS),$(KIT_LINK) -o $(KIT)/$(p) $(B)/$(MAIN_$(p)).o $(call gpu_of,$(p)) $(B)/libsluice.a $(LIBS) $(CUDA_LIBS) &&) :
	$(Q)$(foreach p,gpu_check gpu_bench,$(call KIT_OWN,$(p),tests/gpu/$(p).c) &&) $(call KIT_OWN,gpu_cases,tests/unit/kernels_device_test.c,-lcmocka)
	$(Q)$(KIT_LINK) -o $(KIT)/make_checkpoint $(GENERATOR) -lm
	@cp tests/gpu/gpu_run.sh $(KIT) && cp -r tests/golden $(KIT)/data && chmod -R u+w $(KIT)/data
	@cp tests/tiny-v3/tokenizer.json tests/tiny-v3/tokenizer_config.json $(KIT)/data/tokenizer
	@for p in $(PROGRAMS) gpu_check gpu_bench gpu_cases make_checkpoint; do ldd $(B)/gpu-kit/$$p; done | awk '$$3 ~ /^\// {print $$3} $$1 ~ /^\/.*\/ld-/ {print $$1} \
	        $$1 == "libc.so.6" {sub(/[^\/]*$$/, "", $$3); print $$3 "libdl.so.2"; print $$3 "librt.so.1"}' \
	    | sort -u | while read -r f; do case $${f##*/} in \
	        libc.so.*|libm.so.*|libpthread.so.*|libdl.so.*|librt.so.*|libresolv.so.*|ld-*) cp -L "$$f" $(KIT)/lib/glibc ;; \
	        *) cp -L "$$f" $(KIT)/lib ;; esac || exit 1; done
	@tar -C $(KIT)/.. -I 'xz --lzma2=preset=1,dict=64MiB' -cf $(KIT).tar.xz $(notdir $(KIT))
	@echo "$(KIT): $$(du -sb $(KIT) | cut -f1) bytes, $(KIT).tar.xz: $$(stat -c %s $(KIT).tar.xz) bytes"
	@[ $$(stat -c %s $(KIT).tar.xz) -le $(KIT_MAX) ] || { echo "gpu-kit: the packed folder has more than KIT_MAX=$(KIT_MAX) bytes" >&2; exit 1; }

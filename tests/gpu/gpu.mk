# The GPU's checks and figures; included by the Makefile. gpu_check and gpu_bench link the
# kernels alone: a compiler and the CUDA toolkit are enough to build them.
GPU_OBJS := $(call obj_of,kernels) $(B)/proto/types.o $(B)/proto/error.o
GPU_BINS := $(B)/gpu/gpu_check $(B)/gpu/gpu_bench

$(B)/gpu/%: tests/gpu/%.c $(GPU_OBJS) $(CU_OBJS)
	@mkdir -p $(@D)
	$(if $(V),,@echo "  GPU     $@")
	$(Q)$(CC) $(ALL_CFLAGS) -Itests/gpu -MMD -MP -MF $@.d -o $@ $< $(GPU_OBJS) $(CU_OBJS) -lm $(CUDA_LIBS)

.PHONY: gpu-check gpu-bench gpu-report gpu-kit
gpu-check:
	@$(MAKE) --no-print-directory $(JOBS) $(GPU_BINS)
	@B=$(B) tests/gpu/gpu_check.sh || [ $$? -eq 77 ]
gpu-bench:
	@$(MAKE) --no-print-directory $(JOBS) $(GPU_BINS)
	@B=$(B) tests/gpu/gpu_bench.sh || [ $$? -eq 77 ]

# Registers, spills, stack and instructions that must not be there, by ptxas and, where
# it is installed, cuobjdump. No GPU is needed.
gpu-report: $(CU_OBJS)
	@NVCC="$(NVCC)" NVFLAGS="$(NVFLAGS)" CUDA_FOR='$(CUDA_FOR)' perl tests/gpu/gpu_report.pl $(CU_OBJS)

# Programs and libraries for a machine with a GPU and without Debian's packages, in one folder.
gpu-kit: all $(GPU_BINS) $(B)/tools/make_checkpoint
	@rm -rf $(B)/gpu-kit && mkdir -p $(B)/gpu-kit/lib
	@cp $(addprefix $(B)/,$(PROGRAMS)) $(GPU_BINS) $(B)/tools/make_checkpoint $(B)/gpu-kit
	@strip $(addprefix $(B)/gpu-kit/,$(PROGRAMS))
	@ldd $(B)/gpu-kit/sluice | awk '$$3 ~ /^\// && $$1 !~ /^(libc|libm|libpthread|ld-linux)/ {print $$3}' | xargs -I{} cp {} $(B)/gpu-kit/lib
	@du -sh $(B)/gpu-kit

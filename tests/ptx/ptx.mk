# The kernels' PTX, run and checked on a CPU (tests/ptx/ptx.h): included by tests/check.mk. The
# programs are the product's own objects, linked with tests/ptx in place of the CUDA runtime; the
# PTX is what nvcc put into them.
ifneq ($(CU_OBJS),)
PTX_SRCS  := $(filter-out %_main.c,$(wildcard tests/ptx/*.c))
PTX_OBJS  := $(patsubst tests/ptx/%.c,$(B)/ptx/%.o,$(PTX_SRCS))
# AVX2 where this machine has it: the results are the same, the lanes run side by side.
PTX_WIDE  := $(if $(X86),$(shell grep -qsw avx2 /proc/cpuinfo && echo -mavx2))
PTX_FLAGS := -O3 -fno-math-errno -fno-trapping-math -fno-strict-aliasing $(PTX_WIDE) \
             $(CUDA_INC) -Itests/ptx -Itests/gpu
PTX_BINS  := $(addprefix $(B)/ptx/,ptx_check ptx_count ptx_sluice ptx_device_test ptx_faults ptx_values)
PTX_LIBS  := -lzstd -lm -ldl -lstdc++

$(B)/ptx/%.o: tests/ptx/%.c $(B)/gen/compiled_in
	$(call begin,PTX,$<)
	$(Q)$(CC) $(ALL_CFLAGS) $(PTX_FLAGS) -MMD -MP -MF $@.d -c $< -o $@

# gpu_check, what counts, and sluice itself.
$(B)/ptx/ptx_check: tests/gpu/gpu_check.c $(PTX_OBJS) $(GPU_OBJS) $(CU_OBJS)
	$(call begin,PTX,$@)
	$(Q)$(CC) $(ALL_CFLAGS) -Itests/gpu -MMD -MP -MF $@.d -o $@ $< $(PTX_OBJS) $(GPU_OBJS) $(CU_OBJS) $(PTX_LIBS)
$(B)/ptx/ptx_count: $(B)/ptx/ptx_count_main.o $(PTX_OBJS) $(GPU_OBJS) $(CU_OBJS)
	$(call begin,PTX,$@)
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $< $(PTX_OBJS) $(GPU_OBJS) $(CU_OBJS) $(PTX_LIBS)
$(B)/ptx/ptx_sluice: $(B)/client/sluice_main.o $(PTX_OBJS) $(B)/libsluice.a $(CU_OBJS)
	$(call begin,PTX,$@)
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $< $(CU_OBJS) $(PTX_OBJS) $(B)/libsluice.a $(LIBS) $(PTX_LIBS)
$(B)/ptx/ptx_device_test: tests/unit/kernels_device_test.c $(PTX_OBJS) $(GPU_OBJS) $(CU_OBJS)
	$(call begin,PTX,$@)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -MF $@.d -o $@ $< $(PTX_OBJS) $(GPU_OBJS) $(CU_OBJS) -lcmocka $(PTX_LIBS)

# Kernels with planted faults, and single instructions beside their values: compiled as the product is.
$(B)/ptx/%.cu.o: tests/ptx/%.cu $(B)/gen/nvcc_works
	$(call begin,NVCC,$<)
	$(Q)$(NVCC) $(NVFLAGS) -I. -gencode arch=compute_80,code=compute_80 -MMD -MP -MF $(@:.o=.d) -c $< -o $@
PTX_OWN := $(addprefix $(B)/ptx/,ptx_faults ptx_values)
.SECONDARY: $(PTX_OWN:=.cu.o)
$(PTX_OWN): $(B)/ptx/ptx_%: $(B)/ptx/ptx_%.cu.o $(PTX_OBJS)
	$(call begin,PTX,$@)
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $< $(PTX_OBJS) $(PTX_LIBS)

# The modules' texts, once for all that look at them.
$(B)/ptx/text/done: $(B)/ptx/ptx_count
	@rm -rf $(@D) && mkdir -p $(@D)
	$(Q)$< -x $(@D) && touch $@
TOOL_BINS += $(PTX_BINS) $(B)/ptx/text/done

.PHONY: ptx-check ptx-count sass-count
ptx-check: $(PTX_BINS)
	@SLUICE_BUILD=$(B) SLUICE_PTX_ALL=1 perl -Itests/lib tests/tap/ptx.t
ptx-count: $(B)/ptx/ptx_count
	@$< $(PTX_ARGS)
# Beside the slots, machine instructions: make sass-count SASS_ARGS="sm_90 -t q4_k".
sass-count: $(B)/ptx/ptx_count test-tools
	@PATH="$(NEWEST_DUMP)$(dir $(NVCC)):$$PATH" perl tests/gpu/gpu_sass.pl $< $(SASS_ARGS)
else
.PHONY: ptx-check ptx-count sass-count
ptx-check ptx-count sass-count:
	@echo "$@: no nvcc: there is no PTX to run" >&2
endif

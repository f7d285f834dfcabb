# Test targets; included by the Makefile.
UNIT_SRCS := $(wildcard tests/unit/*_test.c)
UNIT_BINS := $(patsubst tests/unit/%.c,$(B)/tests/%,$(UNIT_SRCS))

$(B)/tests/%: tests/unit/%.c $(B)/libsluice.a $(CU_OBJS)
	@mkdir -p $(@D)
	$(if $(V),,@echo "  TEST    $@")
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -MF $@.d -o $@ $< $(CU_OBJS) $(B)/libsluice.a -lcmocka $(LIBS) $(CUDA_LIBS)

.PHONY: unit
unit: $(UNIT_BINS)
	@set -e; for t in $(UNIT_BINS); do echo "== $$t"; $$t; done

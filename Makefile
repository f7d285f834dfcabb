# Sluice: FP8 checkpoints to quantized GGUF.
#
#   make            build sluice, sluiced and sluice-worker
#   make demo       install what is missing, build, convert a small checkpoint, verify it
#   make check      install what is missing, build, run all the tests
#   make deps       install what is missing from Debian's packages
#   make help       every target
#
# CC, CFLAGS, PREFIX, DESTDIR and NVCC mean what they usually mean. V=1 shows
# the commands. Each set of flags has its own folder under build/.

B       ?= build/release
CC      ?= cc
PREFIX  ?= /usr/local
DESTDIR ?=
NVCC    ?= $(shell command -v nvcc 2>/dev/null || ls /usr/local/cuda/bin/nvcc 2>/dev/null)
SAN     ?=
WERROR  ?= $(if $(CI),-Werror,)
VERSION := 0.1.0

.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := all
Q := $(if $(V),,@)
# How a recipe begins: the target's folder is made, and it is said what is done.
begin = @mkdir -p $(@D)$(if $(V),,; printf '  %-7s %s\n' $(1) $(2))
comma := ,
empty :=

# The product's own rules about floating point: nothing fused, nothing fast.
FPFLAGS := -ffp-contract=off -fno-fast-math -fno-unsafe-math-optimizations
WARN    := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
           -Wwrite-strings -Wvla -Wformat=2 -Wundef
CFLAGS  ?= -O2 -g
ALL_CFLAGS = -std=c11 -D_GNU_SOURCE -DSLUICE_VERSION='"$(VERSION)"' -I. -I$(B)/gen $(WARN) $(WERROR) \
             $(CFLAGS) $(FPFLAGS) $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all $(if $(findstring clang,$(CC)),,-Wno-maybe-uninitialized -Wno-format-truncation)) \
             -pthread
LIBS    = -luring -lzmq -lzstd -lcjson -lxxhash -lpcre2-8 -lcrypto -lsqlite3 -lpopt -lmicrohttpd -linih -lm

HEADERS_libraries := liburing.h zmq.h zstd.h cjson/cJSON.h xxhash.h pcre2.h openssl/evp.h sqlite3.h popt.h microhttpd.h ini.h

PARTS := proto kernels worker daemon client
src_of = $(filter-out %_main.c,$(wildcard $(1)/*.c))
obj_of = $(patsubst %.c,$(B)/%.o,$(call src_of,$(1)))

MODULE_OBJS := $(foreach p,$(PARTS),$(call obj_of,$(p)))
PROGRAMS    := sluice sluiced sluice-worker
MAIN_sluice        := client/sluice_main
MAIN_sluiced       := daemon/sluiced_main
MAIN_sluice-worker := worker/worker_main

# CUDA objects, where nvcc is there (kernels/GPU.md).
CU_SRCS := $(wildcard kernels/*.cu)
ifneq ($(and $(NVCC),$(CU_SRCS)),)
CU_OBJS := $(patsubst %.cu,$(B)/%.cu.o,$(CU_SRCS))
ALL_CFLAGS += -DSLUICE_CUDA=1
# A host compiler for an nvcc that does not take g++ (nvcc 12.4 and before do not read this variable themselves).
NVHOST    := $(if $(NVCC_CCBIN),-ccbin $(NVCC_CCBIN))
# Where this nvcc has its own libraries and headers, by its own word: another toolkit may be there too.
NVSAYS    := $(NVCC) $(NVHOST) --dryrun -c $(firstword $(CU_SRCS)) 2>&1
CUDA_LIBS := $(shell $(NVSAYS) | sed -n 's/^\#\$$ LIBRARIES=//p') -lcudart_static -ldl -lrt -lstdc++
CUDA_INC  := $(shell $(NVSAYS) | sed -n 's/^\#\$$ INCLUDES=//p' | sed 's/-I/-isystem/g')
endif

# What `sudo make` left is not this user's to write: one line, and not a compiler's or the linker's.
ifneq ($(filter-out help deps clean uninstall,$(or $(MAKECMDGOALS),all)),)
THEIRS := $(shell { find $(dir $(B)) -maxdepth 0 ! -writable; find $(B) -path '*/check/*' -prune -o ! -type l ! -writable -print; } 2>/dev/null | head -n 1)
$(if $(THEIRS),$(error $(THEIRS) is not writable by this user (was it made by root?): 'sudo chown -R $$USER $(B)' gives it back, 'sudo make clean' removes it))
endif

.PHONY: all deps help clean install uninstall
all: $(addprefix $(B)/,$(PROGRAMS))

# A file that says $(2), rewritten only when it said something else.
.PHONY: always
define stamp
ifneq ($(strip $(file <$(1))),$(strip $(2)))
$(1): always
endif
$(1):
	@mkdir -p $$(@D)
	@echo '$(strip $(2))' >$$@
endef

# What is compiled in: when nvcc comes or goes, every object is made anew. CC and CFLAGS
# may change without that: they give the same program.
$(eval $(call stamp,$(B)/gen/compiled_in,sluice $(VERSION) $(if $(CU_OBJS),cuda) $(SAN)))

# Looked for once, before the first file: on a fresh machine one line says what to do.
$(B)/gen/has_%:
	@mkdir -p $(@D)
	@printf '#include <%s>\n' $(HEADERS_$*) | $(CC) -DPCRE2_CODE_UNIT_WIDTH=8 -fsyntax-only -x c - || \
	    { echo "make: what the build needs is missing: 'make deps' installs it, or says what it is" >&2; exit 1; }
	@touch $@

$(B)/%.o: %.c $(B)/gen/compiled_in
	$(call begin,CC,$<)
	$(Q)$(CC) $(ALL_CFLAGS) $(FILE_CFLAGS) -MMD -MP -c $< -o $@

# One text, several widths: a file name ends with the instruction set it is for.
# On another processor those of x86 are empty units, and get no flags of its.
X86 := $(filter x86_64-% amd64-%,$(shell $(CC) -dumpmachine 2>/dev/null))
FLAGS_avx2   := $(if $(X86),-mavx2 -mf16c -mno-fma)
FLAGS_avx512 := $(if $(X86),-mavx512f -mavx512bw -mavx512vl -mavx512dq -mf16c)
$(B)/kernels/%_avx2.o: FILE_CFLAGS := $(FLAGS_avx2) -O3
$(B)/kernels/%_avx512.o: FILE_CFLAGS := $(FLAGS_avx512) -O3
$(B)/kernels/%_portable.o: FILE_CFLAGS := -O3
# Sanitized, these take a compiler ten minutes each; the same text as scalar C is sanitized.
$(B)/kernels/%_avx2.o $(B)/kernels/%_avx512.o $(B)/kernels/%_portable.o: FILE_CFLAGS += $(if $(SAN),-fno-sanitize=all)

# PTX is made once, for the oldest target; each target's own assembler does the rest.
NVFLAGS   = -O3 -std=c++17 -fmad=false -prec-div=true -prec-sqrt=true -ftz=false -cudart static -Xcompiler -ffp-contract=off $(NVSMALL) $(NVHOST)
# Five targets of unrolled loops: 25 MB as they are, 3.5 MB so; with nvcc before 12.8, three targets: 13 MB and 6 MB.
NVHELP   := $(if $(CU_OBJS),$(shell $(NVCC) --help))
NVSMALL  := $(if $(findstring --compress-mode,$(NVHELP)),--compress-mode=size,-Xfatbin -compress-all)
# Of those, the targets that this nvcc knows: for others the driver compiles the PTX when a kernel is first used.
CUDA_SM  := $(foreach sm,80 89 90 100 120,$(if $(findstring 'sm_$(sm)',$(NVHELP)),sm_$(sm)))
CUDA_FOR := arch=compute_80,code=[$(subst $(empty) $(empty),$(comma),$(strip compute_80 $(CUDA_SM)))]
NVNUMBER := $(if $(CU_OBJS),$(shell $(NVCC) --version | sed -n 's/.*, V//p'))
$(eval $(call stamp,$(B)/gen/cuda_for,$(NVNUMBER) $(NVHOST) $(CUDA_SM)))

# Tried before the first kernel: does it take what they are written in, and the host's compiler and headers?
$(B)/gen/nvcc_works: $(B)/gen/cuda_for
	@printf '#include <cuda_runtime.h>\n#include <math.h>\n__global__ void k(const __grid_constant__ int a) {}\n' >$@.cu
	@$(NVCC) $(NVFLAGS) -gencode '$(CUDA_FOR)' -c $@.cu -o $@.o || { \
	    echo "make: nvcc $(NVNUMBER) cannot compile the kernels here: that takes 11.8 or later, and a host compiler that it accepts (kernels/GPU.md)." >&2; \
	    echo "make: with another host compiler: make NVCC_CCBIN=g++-11; without CUDA: make NVCC=" >&2; exit 1; }
	@touch $@
$(B)/kernels/%.cu.o: kernels/%.cu $(B)/gen/nvcc_works
	$(call begin,NVCC,$<)
	$(Q)$(NVCC) $(NVFLAGS) -I. -gencode '$(CUDA_FOR)' -MMD -MP -MF $(@:.o=.d) -c $< -o $@

# The stock recipes are installed as files and compiled in.
RECIPES := $(sort $(wildcard proto/recipes/*.recipe))
$(B)/gen/stock_recipes.inc: $(RECIPES) Makefile
	@mkdir -p $(@D)
	@for f in $(RECIPES); do n=$${f##*/}; printf '{"%s",\n' "$${n%.recipe}"; \
	    sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/"/' -e 's/$$/\\n"/' $$f; echo '},'; done > $@
$(B)/proto/recipe_stock.o: $(B)/gen/stock_recipes.inc

# The daemon computes nothing.
gpu_of = $(if $(filter-out sluiced,$(1)),$(CU_OBJS))
define program
$(B)/$(1): $(B)/$(MAIN_$(1)).o $(B)/libsluice.a $(call gpu_of,$(1))
	$$(call begin,LINK,$$@)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $$@ $(B)/$(MAIN_$(1)).o $(call gpu_of,$(1)) $(B)/libsluice.a $(LIBS) $(CUDA_LIBS)
endef
$(foreach p,$(PROGRAMS),$(eval $(call program,$(p))))

# The list changes when a source file comes or goes; then the library is made anew.
$(eval $(call stamp,$(B)/gen/objects.list,$(MODULE_OBJS:$(B)/%=%)))
$(B)/libsluice.a: $(MODULE_OBJS) $(B)/gen/objects.list
	@rm -f $@
	$(Q)$(AR) rcs $@ $(MODULE_OBJS)

include tests/check.mk

# ---- setting up, showing, installing

# What is missing of Debian's packages; nothing is asked, nothing happens when all is there.
deps:
	@tests/tools/deps.sh all

# Packages that only the tests need are not asked for here.
.PHONY: demo
demo:
	@tests/tools/deps.sh build
	@$(MAKE) --no-print-directory $(JOBS) all $(B)/tools/make_checkpoint
	@SLUICE_BUILD=$(B) tests/tools/demo.sh

MANUALS := $(sort $(wildcard client/*.[158]))
# A shell's completions, under the name that it looks for.
COMPLETIONS := bash:bash-completion/completions/sluice zsh:zsh/site-functions/_sluice fish:fish/vendor_completions.d/sluice.fish
SHARED := sluice.conf alerts.rules.yml grafana-dashboard.json
# Files that name the programs' place: FROM:TO, below systemd/ and PREFIX/lib/.
PLACED := sluiced.service:systemd/system/sluiced.service sluice-worker@.service:systemd/system/sluice-worker@.service \
          user/sluiced.service:systemd/user/sluiced.service user/sluice-worker@.service:systemd/user/sluice-worker@.service \
          sluice.sysusers:sysusers.d/sluice.conf sluice.tmpfiles:tmpfiles.d/sluice.conf
# DESTDIR and PREFIX may hold spaces and quotes: the shell gets each in one piece, and
# systemd as it writes them. The bar is sed's.
quoted   = '$(subst ','\'',$(1))'
in_place = $(subst |,\|,$(subst &,\&,$(subst $(empty) $(empty),\\x20,$(subst %,%%,$(1)))))
AT       = $(call quoted,$(DESTDIR)$(PREFIX))
# A shell may have left the ~ of PREFIX=~/.local as it is.
ifneq ($(filter install uninstall,$(MAKECMDGOALS)),)
$(if $(filter-out /%,$(firstword $(PREFIX))),$(error PREFIX=$(PREFIX): expected a path that begins with /))
endif
install: all
	install -d $(AT)/bin $(AT)/share/sluice/recipes
	install -m 755 $(addprefix $(B)/,$(PROGRAMS)) $(AT)/bin
	$(if $(RECIPES),install -m 644 $(RECIPES) $(AT)/share/sluice/recipes)
	@at=$(AT); for m in $(MANUALS); do install -D -m 644 $$m "$$at/share/man/man$${m##*.}/$${m##*/}" || exit 1; done
	@at=$(AT); for c in $(COMPLETIONS); do f="$$at/share/$${c#*:}"; \
	    install -d "$${f%/*}" && $(B)/sluice completion $${c%%:*} >"$$f" && chmod 644 "$$f" || exit 1; done
	@at=$(AT); for u in $(PLACED); do f="$$at/lib/$${u#*:}"; install -d "$${f%/*}" && rm -f "$$f" \
	    && sed $(call quoted,s|/usr/local|$(call in_place,$(PREFIX))|g) "systemd/$${u%%:*}" >"$$f" \
	    && chmod 644 "$$f" && echo "installed $$f" || exit 1; done
	install -m 644 $(addprefix systemd/,$(SHARED)) $(AT)/share/sluice

uninstall:
	rm -f $(foreach p,$(PROGRAMS),$(AT)/bin/$(p))
	rm -rf $(AT)/share/sluice
	@at=$(AT); for m in $(MANUALS); do rm -f "$$at/share/man/man$${m##*.}/$${m##*/}"; done
	@at=$(AT); for c in $(COMPLETIONS); do rm -f "$$at/share/$${c#*:}"; done
	@at=$(AT); for u in $(PLACED); do rm -f "$$at/lib/$${u#*:}"; done

clean:
	rm -rf build

help:
	@sed 's/^/  /' tests/tools/targets.txt

-include $(shell find $(B) -name '*.d' -type f 2>/dev/null)

/* Executes PTX on a CPU, as a device would, and looks at what a device would not say:
 * a module is parsed and decoded once (ptx_parse.c, ptx_decode.c), a launch runs its blocks
 * (ptx_launch.c), a warp's 32 lanes side by side (ptx_exec.c), each access checked
 * (ptx_memory.c). ptx_runtime.c stands in place of the CUDA runtime in front of it.
 *
 * A register is a row of 32 lanes, 32 or 64 bits each (predicates and narrower ones: 32). All
 * rows of a warp lie in one file of rows: special registers, immediates, the registers of
 * each .func (there is no recursion), and behind them those of the kernel that runs.
 *
 * A warp's lanes run in groups that share a place in the code. The group that runs next is
 * the deepest in calls, then the lowest in the code, and groups that meet become one. */
#ifndef SLUICE_TESTS_PTX_H
#define SLUICE_TESTS_PTX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PTX_LANES 32
#define PTX_DEPTH 16          /* of calls */
#define PTX_MAX_THREADS 1024  /* of a block */
#define PTX_SHARED_MAX 49152  /* bytes a block may have without asking for more */
#define PTX_SHARED_ASKED 89088 /* of a launch that asked: 99 KiB on the smallest target, 12 of them a kernel's own at most */

/* What a generic address is, beside the host's own addresses, which are global memory. */
#define PTX_WINDOW_SHARED (1ull << 56)
#define PTX_WINDOW_LOCAL (2ull << 56)
#define PTX_WINDOW_PARAM (3ull << 56)
#define PTX_WINDOW_MASK (0xffull << 56)

enum ptx_class {
    PTX_F32, PTX_INT, PTX_COMPARE, PTX_CONVERT, PTX_SHARED, PTX_GLOBAL, PTX_LOCAL, PTX_PARAM,
    PTX_ROOT, PTX_BRANCH, PTX_BARRIER, PTX_MOVE, PTX_CLASSES
};

enum ptx_space { PTX_GENERIC, PTX_SPACE_GLOBAL, PTX_SPACE_SHARED, PTX_SPACE_LOCAL, PTX_SPACE_PARAM };
enum ptx_cmp {
    PTX_EQ, PTX_NE, PTX_LT, PTX_LE, PTX_GT, PTX_GE,             /* false where one is NaN */
    PTX_EQU, PTX_NEU, PTX_LTU, PTX_LEU, PTX_GTU, PTX_GEU,       /* true where one is NaN */
    PTX_NUM, PTX_NAN
};
enum ptx_bool { PTX_ALONE, PTX_AND, PTX_OR, PTX_XOR };
enum ptx_atom { PTX_A_AND, PTX_A_OR, PTX_A_XOR, PTX_A_ADD, PTX_A_MIN, PTX_A_MAX, PTX_A_EXCH, PTX_A_CAS };
enum ptx_type { PTX_PRED, PTX_B8, PTX_B16, PTX_B32, PTX_B64, PTX_U8, PTX_U16, PTX_U32, PTX_U64,
                PTX_S8, PTX_S16, PTX_S32, PTX_S64, PTX_TF32, PTX_TF64, PTX_NO_TYPE };

#define PTX_ALU_NAME(name, sig, cls, weight, D, S, expr) PTX_##name,
enum ptx_op {
#include "ptx_alu.h"
    PTX_SETP, PTX_CVT, PTX_LD, PTX_ST, PTX_ATOM, PTX_PACK, PTX_UNPACK, PTX_SHFL, PTX_VOTE,
    PTX_BRA, PTX_CALL, PTX_RET, PTX_EXIT, PTX_BAR, PTX_WARP_BAR, PTX_OPS
};
#undef PTX_ALU_NAME

enum { PTX_GUARDED = 1, PTX_GUARD_NOT = 2, PTX_SOME_UNSET = 4, PTX_SETS = 8, PTX_WIDE = 16, PTX_NC = 32, PTX_ADDR64 = 64, PTX_SIGNED = 128 };

/* Rows are places in the warp's file, in words. */
struct ptx_inst {
    uint16_t op;
    uint8_t cls, flags;
    uint8_t sub;     /* comparison, atomic operation, kind of shuffle or vote */
    uint8_t combine; /* setp: with the predicate c */
    uint8_t type;    /* of the data; cvt: of the source in type2 */
    uint8_t type2;
    uint8_t space, vec, bytes, weight;
    uint32_t d, a, b, c, e; /* memory: address in a; up to four elements in d, b, c, e */
    uint32_t guard;
    int64_t off;
    uint32_t target; /* of a branch or call; barrier's number; shfl: row of its bounds */
    uint32_t line;
    uint32_t regs;   /* of struct ptx_module.unset: first entry, where a flag says so */
};

/* A register that some path reads before it is written: looked at in each lane. */
struct ptx_unset {
    uint32_t slot, last; /* last: 1 it is written, 2 the last one of this instruction */
};

struct ptx_func {
    char *name;
    bool kernel, defined;
    uint32_t first, end;         /* instructions */
    uint32_t rows;               /* words of its registers */
    uint32_t param_bytes;        /* kernel */
    uint32_t param_at[16], param_size[16];
    unsigned n_params;
    uint32_t shared, local;      /* bytes */
    uint32_t max_threads;
    uint32_t formal[16], result; /* rows */
    uint8_t wide[16], result_wide, n_formal;
    bool has_result;
};

struct ptx_variable {
    char *name;
    uint8_t *bytes;
    size_t n;
};

enum { PTX_TID_X, PTX_TID_Y, PTX_TID_Z, PTX_NTID_X, PTX_NTID_Y, PTX_NTID_Z, PTX_CTAID_X, PTX_CTAID_Y, PTX_CTAID_Z,
       PTX_NCTAID_X, PTX_NCTAID_Y, PTX_NCTAID_Z, PTX_LANEID, PTX_WARPID, PTX_POOL32, PTX_SPARE, PTX_POOL, PTX_POOL_HIGH, PTX_SPECIALS };

/* Rows whose place is known when the module is whole: of immediates, of a kernel's registers. */
#define PTX_ROW_CONSTANT 0x80000000u
#define PTX_ROW_KERNEL 0x40000000u
#define PTX_ROW_NONE UINT32_MAX
/* A thread's local memory: a kernel's begins at 0, that of the functions it calls here. */
#define PTX_LOCAL_OF_FUNCS 0x10000u

struct ptx_module {
    const char *name;
    char *text;
    const char **line;           /* of the text, from 1 */
    struct ptx_inst *inst;
    uint32_t n_inst, cap_inst;
    struct ptx_func *func;
    uint32_t n_func;
    struct ptx_variable *var;
    uint32_t n_var;
    struct ptx_unset *unset;
    uint32_t n_unset, n_slots;
    uint32_t *constants;         /* rows of the immediates, as they lie in a file of rows */
    uint32_t n_constants, at_constants; /* words */
    uint32_t words;              /* of a warp's file */
    uint32_t func_shared, func_local;
    char error[512];
};

/* Returns whether the text is understood to its last word; m->error says what is not. Both
 * texts are the caller's and stay. */
bool ptx_module_load(struct ptx_module *m, const char *name, char *text);
void ptx_module_free(struct ptx_module *m);
const struct ptx_func *ptx_find(const struct ptx_module *m, const char *name);

/* Between parser and decoder: one instruction as it stands in the text. */
enum ptx_operand_kind { PTX_O_REG, PTX_O_IMM, PTX_O_SYMBOL, PTX_O_MEM, PTX_O_LIST, PTX_O_LABEL, PTX_O_SINK };
struct ptx_operand {
    enum ptx_operand_kind kind;
    uint32_t row, reg;           /* reg: its number in the function, for what is written where */
    uint8_t wide, pred, special; /* of a register */
    uint64_t value;              /* IMM: bits; SYMBOL: address */
    bool real, based;            /* IMM: written as floating point; MEM: over a register */
    int64_t off;
    uint8_t n;                   /* LIST */
    struct { uint32_t row, reg; uint8_t wide, sink; } list[4];
    enum ptx_space space;        /* SYMBOL, MEM over a symbol */
    bool is_row;                 /* a scalar parameter of a call: a register in all but name */
    uint32_t label;
};
#define PTX_OPERANDS 8
struct ptx_statement {
    const char *opcode;
    uint32_t line;
    bool guarded, guard_not;
    struct ptx_operand guard, op[PTX_OPERANDS];
    unsigned n;
};
struct ptx_regs_used {
    int32_t def[5], use[10];
    uint8_t n_def, n_use;
};

/* Decodes one statement; calls back for rows of immediates. False: error is set. */
bool ptx_decode(struct ptx_module *m, const struct ptx_statement *s, struct ptx_inst *out, struct ptx_regs_used *used);
uint32_t ptx_constant(struct ptx_module *m, uint64_t bits, bool wide);
bool ptx_type_of(const char *text, size_t n, enum ptx_type *out);
unsigned ptx_type_bytes(enum ptx_type t);
bool ptx_refuse(struct ptx_module *m, uint32_t line, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Marks what reads a register that may not have been written. */
bool ptx_mark_unset(struct ptx_module *m, uint32_t first, uint32_t end, const struct ptx_regs_used *used, uint32_t n_regs);

/* ---- running */

struct ptx_alloc {
    uint8_t *at;
    size_t n;
    uint32_t *shadow;            /* a byte: 0 never written, 1 written before the launch, else by thread n - 2 of it */
    size_t lo, hi;               /* written in this launch */
};

enum ptx_kind { PTX_MEMCHECK, PTX_MISALIGNED, PTX_INITCHECK, PTX_RACECHECK, PTX_SYNCCHECK, PTX_BAD_CODE, PTX_KINDS };

struct ptx_tally {
    uint64_t issues, lanes, extra; /* extra: passes of shared memory over the first, sectors of global memory */
};

struct ptx_launch {
    const struct ptx_module *module;
    const struct ptx_func *kernel;
    uint32_t grid[3], block[3];
    uint32_t dynamic;            /* shared bytes */
    const uint8_t *param;
    unsigned threads;            /* of the host */
    bool count;                  /* passes and sectors too */
    struct ptx_alloc **allocs;   /* by address */
    unsigned n_allocs;
    struct ptx_tally *tally;     /* for each instruction, added to; or NULL */
    enum ptx_kind kind;          /* of the finding */
    char finding[900];           /* empty: none */
};

/* Runs all blocks. False: there is a finding, and the blocks after it were not run. */
bool ptx_run(struct ptx_launch *l);

const char *ptx_kind_name(enum ptx_kind kind);
/* "quantize_super<12, true>" of a mangled name; as it is where it is not one. */
void ptx_demangle(const char *name, char *out, size_t n);

/* Returns the PTX text of a fat binary as nvcc puts it into an object, decompressed; the caller's
 * to free. NULL: there is none, or error says what is not understood. */
char *ptx_of_fatbin(const void *data, char *error, size_t n_error);

#endif

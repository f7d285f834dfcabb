// Single PTX instructions beside the values that the PTX ISA and a device give for them; whole
// numbers of every type; then what spans several: vector accesses, calls, local arrays, atomics, lanes that talk.
#include <cuda_runtime.h>

#include <stdint.h>
#include <stdio.h>
#include <string.h>

namespace {

// Around instructions of other widths: 16 bits, 64 bits of two words each (its halves' sum
// is the result), predicates, comparisons of any.
#define IN16(text) "{ .reg .b16 s, t; .reg .pred p; cvt.u16.u32 s, %1; cvt.u16.u32 t, %2; setp.ne.s32 p, %3, 0; " text " cvt.u32.u16 %0, s; }"
#define IN64(text) \
    "{ .reg .b64 t, u; .reg .b32 x, y; .reg .pred p; mov.b64 t, {%1, %2}; mov.b64 u, {%2, %3}; setp.ne.s32 p, %3, 0; " text \
    " mov.b64 {x, y}, t; add.s32 %0, x, y; }"
#define INP(text) "{ .reg .pred p, q; setp.ne.s32 p, %1, 0; setp.ne.s32 q, %2, 0; " text " selp.u32 %0, 1, 0, p; }"
#define TEST(text) \
    "{ .reg .b16 s, t; .reg .b64 v, w; .reg .pred p; cvt.u16.u32 s, %1; cvt.u16.u32 t, %2; mov.b64 v, {%1, %2}; mov.b64 w, {%2, %3}; " text \
    " selp.u32 %0, 1, 0, p; }"

#define INSTRUCTIONS(X) \
    X(ADD_RM, "add.rm.f32 %0, %1, %2;") X(ADD, "add.rn.f32 %0, %1, %2;") X(SUB, "sub.rn.f32 %0, %1, %2;") X(MUL, "mul.rn.f32 %0, %1, %2;") \
    X(DIV, "div.rn.f32 %0, %1, %2;") X(SQRT, "sqrt.rn.f32 %0, %1;") X(RCP, "rcp.rn.f32 %0, %1;") \
    X(MIN, "min.f32 %0, %1, %2;") X(MAX, "max.f32 %0, %1, %2;") \
    X(RZI_S32, "cvt.rzi.s32.f32 %0, %1;") X(RZI_U32, "cvt.rzi.u32.f32 %0, %1;") X(RNI_S32, "cvt.rni.s32.f32 %0, %1;") \
    X(F_S32, "cvt.rn.f32.s32 %0, %1;") X(F_U32, "cvt.rn.f32.u32 %0, %1;") \
    X(CVT_S8, "cvt.s32.s8 %0, %1;") X(CVT_U16, "cvt.u32.u16 %0, %1;") X(CVT_S16, "cvt.s32.s16 %0, %1;") \
    X(SHL, "shl.b32 %0, %1, %2;") X(SHR_U, "shr.u32 %0, %1, %2;") X(SHR_S, "shr.s32 %0, %1, %2;") \
    X(SHL64, "{ .reg .b64 t; mov.b64 t, {%1, %2}; shl.b64 t, t, %3; mov.b64 {%0, _}, t; }") \
    X(SHR64, "{ .reg .b64 t; mov.b64 t, {%1, %2}; shr.s64 t, t, %3; mov.b64 {_, %0}, t; }") \
    X(MULHI_S, "mul.hi.s32 %0, %1, %2;") X(MULHI_U, "mul.hi.u32 %0, %1, %2;") \
    X(WIDE_S, "{ .reg .b64 t; mul.wide.s32 t, %1, %2; mov.b64 {_, %0}, t; }") \
    X(WIDE_U, "{ .reg .b64 t; mul.wide.u32 t, %1, %2; mov.b64 {_, %0}, t; }") \
    X(MUL64, "{ .reg .b64 t, u; cvt.s64.s32 t, %1; cvt.u64.u32 u, %2; mul.lo.s64 t, t, u; mov.b64 {_, %0}, t; }") \
    X(MAD, "mad.lo.s32 %0, %1, %2, %3;") \
    X(LOP96, "lop3.b32 %0, %1, %2, %3, 0x96;") X(LOPE8, "lop3.b32 %0, %1, %2, %3, 0xe8;") X(LOPCA, "lop3.b32 %0, %1, %2, %3, 0xca;") \
    X(LOPEA, "lop3.b32 %0, %1, %2, %3, 0xea;") X(LOP1B, "lop3.b32 %0, %1, %2, %3, 0x1b;") \
    X(DP2A_LO_S, "dp2a.lo.s32.s32 %0, %1, %2, %3;") X(DP2A_HI_S, "dp2a.hi.s32.s32 %0, %1, %2, %3;") \
    X(DP2A_LO_U, "dp2a.lo.s32.u32 %0, %1, %2, %3;") X(DP2A_HI_U, "dp2a.hi.s32.u32 %0, %1, %2, %3;") \
    X(PRMT, "prmt.b32 %0, %1, %2, %3;") X(BFE_U, "bfe.u32 %0, %1, %2, %3;") X(BFE_S, "bfe.s32 %0, %1, %2, %3;") \
    X(BFI, "bfi.b32 %0, %1, 0x11111111, %2, %3;") \
    X(SELP, "{ .reg .pred p; setp.ne.s32 p, %3, 0; selp.b32 %0, %1, %2, p; }") \
    X(LT_AND, "{ .reg .pred p, q; setp.ne.s32 q, %3, 0; setp.lt.and.s32 p, %1, %2, q; selp.u32 %0, 1, 0, p; }") \
    X(LT_OR, "{ .reg .pred p, q; setp.ne.s32 q, %3, 0; setp.lt.or.u32 p, %1, %2, q; selp.u32 %0, 1, 0, p; }") \
    X(LT_XOR, "{ .reg .pred p, q; setp.ne.s32 q, %3, 0; setp.lt.xor.u32 p, %1, %2, q; selp.u32 %0, 1, 0, p; }") \
    X(BOTH, "{ .reg .pred p, q; .reg .b32 t; setp.lt.s32 p|q, %1, %2; selp.u32 %0, 1, 0, p; selp.u32 t, 2, 0, q; add.s32 %0, %0, t; }") \
    X(F_EQ, "{ .reg .pred p; setp.eq.f32 p, %1, %2; selp.u32 %0, 1, 0, p; }") \
    X(F_NE, "{ .reg .pred p; setp.ne.f32 p, %1, %2; selp.u32 %0, 1, 0, p; }") \
    X(F_NEU, "{ .reg .pred p; setp.neu.f32 p, %1, %2; selp.u32 %0, 1, 0, p; }") \
    X(F_EQU, "{ .reg .pred p; setp.equ.f32 p, %1, %2; selp.u32 %0, 1, 0, p; }") \
    X(F_GEU, "{ .reg .pred p; setp.geu.f32 p, %1, %2; selp.u32 %0, 1, 0, p; }") \
    X(F_GE, "{ .reg .pred p; setp.ge.f32 p, %1, %2; selp.u32 %0, 1, 0, p; }") \
    X(F_LEU, "{ .reg .pred p; setp.leu.f32 p, %1, %2; selp.u32 %0, 1, 0, p; }") \
    X(F_GTU, "{ .reg .pred p; setp.gtu.f32 p, %1, %2; selp.u32 %0, 1, 0, p; }") \
    X(F_LTU, "{ .reg .pred p; setp.ltu.f32 p, %1, %2; selp.u32 %0, 1, 0, p; }") \
    X(F_NAN, "{ .reg .pred p; setp.nan.f32 p, %1, %2; selp.u32 %0, 1, 0, p; }") \
    X(F_NUM, "{ .reg .pred p; setp.num.f32 p, %1, %2; selp.u32 %0, 1, 0, p; }") \
    X(LT_S16, "{ .reg .pred p; .reg .b16 s, t; cvt.u16.u32 s, %1; cvt.u16.u32 t, %2; setp.lt.s16 p, s, t; selp.u32 %0, 1, 0, p; }") \
    X(ADD16, "{ .reg .b16 s, t; cvt.u16.u32 s, %1; cvt.u16.u32 t, %2; add.s16 s, s, t; cvt.u32.u16 %0, s; }") \
    X(WIDE_S16, "{ .reg .b16 s, t; cvt.u16.u32 s, %1; cvt.u16.u32 t, %2; mul.wide.s16 %0, s, t; }") \
    X(SHR_U16, "{ .reg .b16 s; cvt.u16.u32 s, %1; not.b16 s, s; shr.u16 s, s, %2; cvt.u32.u16 %0, s; }") \
    X(PACK16, "{ .reg .b16 s, t; mov.b32 {s, t}, %1; mov.b32 %0, {t, s}; }") \
    X(MIN_S, "min.s32 %0, %1, %2;") X(MAX_U, "max.u32 %0, %1, %2;") X(POPC, "popc.b32 %0, %1;") X(CLZ, "clz.b32 %0, %1;") \
    X(BREV, "brev.b32 %0, %1;") X(DIV_U, "div.u32 %0, %1, %2;") X(REM_U, "rem.u32 %0, %1, %2;") X(DIV_S, "div.s32 %0, %1, %2;") \
    X(REM_S, "rem.s32 %0, %1, %2;") X(NEG, "neg.s32 %0, %1;") X(ABS, "abs.s32 %0, %1;") X(SHF_L, "shf.l.wrap.b32 %0, %1, %2, %3;") \
    X(GUARD, "{ .reg .pred p; mov.b32 %0, %1; setp.gt.s32 p, %1, %2; @p mov.b32 %0, %2; @!p add.s32 %0, %0, 1; }") \
    X(ADD_U32, "add.u32 %0, %1, %2;") X(SUB_S32, "sub.s32 %0, %1, %2;") X(SUB_U32, "sub.u32 %0, %1, %2;") X(MUL_LO_S32, "mul.lo.s32 %0, %1, %2;") \
    X(MUL_LO_U32, "mul.lo.u32 %0, %1, %2;") X(AND_B32, "and.b32 %0, %1, %2;") X(OR_B32, "or.b32 %0, %1, %2;") X(XOR_B32, "xor.b32 %0, %1, %2;") \
    X(MAX_S32, "max.s32 %0, %1, %2;") X(MIN_U32, "min.u32 %0, %1, %2;") X(NOT_B32, "not.b32 %0, %1;") X(SHR_B32, "shr.b32 %0, %1, %2;") \
    X(MAD_LO_U32, "mad.lo.u32 %0, %1, %2, %3;") X(SHF_R_WRAP_B32, "shf.r.wrap.b32 %0, %1, %2, %3;") X(ABS_F32, "abs.f32 %0, %1;") \
    X(NEG_F32, "neg.f32 %0, %1;") X(FMA_RN_F32, "fma.rn.f32 %0, %1, %2, %3;") X(CVT_RNI_F32_F32, "cvt.rni.f32.f32 %0, %1;") \
    X(SELP_S32, "{ .reg .pred p; setp.ne.s32 p, %3, 0; selp.s32 %0, %1, %2, p; }") \
    X(SELP_F32, "{ .reg .pred p; setp.ne.s32 p, %3, 0; selp.f32 %0, %1, %2, p; }") X(ADD_U16, IN16("add.u16 s, s, t;")) \
    X(SUB_S16, IN16("sub.s16 s, s, t;")) X(SUB_U16, IN16("sub.u16 s, s, t;")) X(MUL_LO_S16, IN16("mul.lo.s16 s, s, t;")) \
    X(MUL_LO_U16, IN16("mul.lo.u16 s, s, t;")) X(AND_B16, IN16("and.b16 s, s, t;")) X(OR_B16, IN16("or.b16 s, s, t;")) \
    X(XOR_B16, IN16("xor.b16 s, s, t;")) X(SHL_B16, IN16("shl.b16 s, s, %2;")) X(SELP_B16, IN16("selp.b16 s, s, t, p;")) \
    X(SELP_U16, IN16("selp.u16 s, s, t, p;")) X(SELP_S16, IN16("selp.s16 s, s, t, p;")) \
    X(MUL_WIDE_U16, "{ .reg .b16 s, t; cvt.u16.u32 s, %1; cvt.u16.u32 t, %2; mul.wide.u16 %0, s, t; }") X(MUL_HI_U64, IN64("mul.hi.u64 t, t, u;")) \
    X(ADD_S64, IN64("add.s64 t, t, u;")) X(ADD_U64, IN64("add.u64 t, t, u;")) X(SUB_S64, IN64("sub.s64 t, t, u;")) \
    X(SUB_U64, IN64("sub.u64 t, t, u;")) X(MUL_LO_U64, IN64("mul.lo.u64 t, t, u;")) X(AND_B64, IN64("and.b64 t, t, u;")) \
    X(OR_B64, IN64("or.b64 t, t, u;")) X(XOR_B64, IN64("xor.b64 t, t, u;")) X(MIN_S64, IN64("min.s64 t, t, u;")) X(MAX_S64, IN64("max.s64 t, t, u;")) \
    X(MIN_U64, IN64("min.u64 t, t, u;")) X(MAX_U64, IN64("max.u64 t, t, u;")) X(MAD_LO_S64, IN64("mad.lo.s64 t, t, u, u;")) \
    X(MAD_LO_U64, IN64("mad.lo.u64 t, t, u, u;")) X(DIV_U64, IN64("div.u64 t, t, u;")) X(REM_U64, IN64("rem.u64 t, t, u;")) \
    X(NOT_B64, IN64("not.b64 t, t;")) X(NEG_S64, IN64("neg.s64 t, t;")) X(SHR_U64, IN64("shr.u64 t, t, %3;")) X(SHR_B64, IN64("shr.b64 t, t, %3;")) \
    X(SELP_B64, IN64("selp.b64 t, t, u, p;")) X(SELP_U64, IN64("selp.u64 t, t, u, p;")) X(SELP_S64, IN64("selp.s64 t, t, u, p;")) \
    X(MAD_WIDE_S32, IN64("mad.wide.s32 t, %1, %2, u;")) X(MAD_WIDE_U32, IN64("mad.wide.u32 t, %1, %2, u;")) X(AND_PRED, INP("and.pred p, p, q;")) \
    X(OR_PRED, INP("or.pred p, p, q;")) X(XOR_PRED, INP("xor.pred p, p, q;")) X(NOT_PRED, INP("not.pred p, p;")) \
    X(SETP_GT_F32, TEST("setp.gt.f32 p, %1, %2;")) X(SETP_LT_F32, TEST("setp.lt.f32 p, %1, %2;")) X(SETP_LE_F32, TEST("setp.le.f32 p, %1, %2;"))

enum instruction {
#define NAME(name, text) name,
    INSTRUCTIONS(NAME)
};

__global__ void one(const unsigned *in, unsigned *out, int n)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    unsigned a, b, c, r = 0;

    if (i >= n)
        return;
    a = in[4 * i + 1];
    b = in[4 * i + 2];
    c = in[4 * i + 3];
    switch (in[4 * i]) {
#define RUN(name, text) case name: asm volatile(text : "=r"(r) : "r"(a), "r"(b), "r"(c)); break;
        INSTRUCTIONS(RUN)
    }
    out[i] = r;
}

const struct value {
    unsigned in[4], want;
} values[] = {
    {{ADD, 0x3f800000, 0x33800000}, 0x3f800000}, {{ADD, 0x3f800001, 0x33800000}, 0x3f800002}, // ties to even
    {{ADD, 0x7f800000, 0xff800000}, 0x7fffffff}, {{ADD, 0x7fc12345, 0x3f800000}, 0x7fffffff}, {{ADD, 0x00000001, 0x00000001}, 2},
    {{ADD_RM, 0x3f800000, 0x33800000}, 0x3f800000}, {{ADD_RM, 0x3f800000, 0xb3000000}, 0x3f7fffff}, {{ADD_RM, 0x40a00000, 0xc0a00000}, 0x80000000},
    {{ADD_RM, 0x7f7fffff, 0x7f7fffff}, 0x7f7fffff}, {{ADD_RM, 0xff7fffff, 0xff7fffff}, 0xff800000}, {{ADD_RM, 0, 0}, 0},
    {{ADD_RM, 0x80000000, 0}, 0x80000000}, {{ADD_RM, 0x4b400000, 0x3f333333}, 0x4b400000}, {{ADD_RM, 0x4b400000, 0xbe4ccccd}, 0x4b3fffff},
    {{ADD_RM, 0xbf800000, 0x80000001}, 0xbf800001}, {{ADD_RM, 0x7f800000, 0xff800000}, 0x7fffffff}, {{ADD_RM, 0x7f800000, 0}, 0x7f800000},
    {{ADD_RM, 0x3f800000, 0x3f800000}, 0x40000000}, {{ADD_RM, 3, 0x80000001}, 2},
    {{SUB, 0x40490fdb, 0x40490fdb}, 0}, {{SUB, 0x80000000, 0x80000000}, 0}, {{SUB, 0xffffffff, 0}, 0x7fffffff},
    {{MUL, 0x00800000, 0x3f000000}, 0x00400000}, {{MUL, 0, 0x7f800000}, 0x7fffffff}, {{MUL, 0x7f7fffff, 0x40000000}, 0x7f800000},
    {{MUL, 0x3f800001, 0x3f800001}, 0x3f800002},
    {{DIV, 0x3f800000, 0x40400000}, 0x3eaaaaab}, {{DIV, 0x3f800000, 0}, 0x7f800000}, {{DIV, 0, 0x80000000}, 0x7fffffff},
    {{DIV, 0x00000003, 0x40000000}, 2},
    {{SQRT, 0x40000000}, 0x3fb504f3}, {{SQRT, 0xbf800000}, 0x7fffffff}, {{SQRT, 0x80000000}, 0x80000000}, {{SQRT, 1}, 0x1a3504f3},
    {{RCP, 0x40400000}, 0x3eaaaaab}, {{RCP, 0x80000000}, 0xff800000},
    {{MIN, 0x7fc00000, 0x3f800000}, 0x3f800000}, {{MIN, 0x3f800000, 0x7fc00000}, 0x3f800000}, {{MIN, 0, 0x80000000}, 0x80000000},
    {{MIN, 0x80000000, 0}, 0x80000000}, {{MIN, 0xc0000000, 0x3f800000}, 0xc0000000}, {{MAX, 0x80000000, 0}, 0}, {{MAX, 0, 0x80000000}, 0},
    {{MAX, 0x7fc00001, 0xffc00000}, 0x7fffffff}, {{MAX, 0xc0000000, 0x3f800000}, 0x3f800000},
    {{RZI_S32, 0x4f32d05e}, 0x7fffffff}, {{RZI_S32, 0xcf32d05e}, 0x80000000}, {{RZI_S32, 0x7fc00000}, 0}, {{RZI_S32, 0xbff33333}, 0xffffffff},
    {{RZI_S32, 0x4f000000}, 0x7fffffff}, {{RZI_S32, 0x7f800000}, 0x7fffffff}, {{RZI_U32, 0xbf800000}, 0}, {{RZI_U32, 0x4f9502f9}, 0xffffffff},
    {{RZI_U32, 0x4f32d05e}, 0xb2d05e00}, {{RZI_U32, 0x7fffffff}, 0}, {{RNI_S32, 0x40200000}, 2}, {{RNI_S32, 0x40600000}, 4},
    {{F_S32, 0x01000001}, 0x4b800000}, {{F_S32, 0x80000000}, 0xcf000000}, {{F_U32, 0xffffffff}, 0x4f800000},
    {{CVT_S8, 0x180}, 0xffffff80}, {{CVT_U16, 0xabcd8001}, 0x8001}, {{CVT_S16, 0xabcd8001}, 0xffff8001},
    {{SHL, 1, 31}, 0x80000000}, {{SHL, 1, 32}, 0}, {{SHL, 1, 0xffffffff}, 0}, {{SHR_U, 0x80000000, 40}, 0}, {{SHR_U, 0x80000000, 31}, 1},
    {{SHR_S, 0x80000000, 99}, 0xffffffff}, {{SHR_S, 0x40000000, 32}, 0}, {{SHL64, 1, 0, 64}, 0}, {{SHL64, 5, 0, 4}, 80},
    {{SHR64, 0, 0x80000000, 200}, 0xffffffff}, {{SHR64, 0, 0x80000000, 4}, 0xf8000000},
    {{MULHI_S, 0xfffffffe, 3}, 0xffffffff}, {{MULHI_U, 0xffffffff, 0xffffffff}, 0xfffffffe}, {{MULHI_U, 0xfffffffe, 3}, 2},
    {{WIDE_S, 0xfffffffe, 3}, 0xffffffff}, {{WIDE_U, 0xfffffffe, 3}, 2}, {{MUL64, 0xffffffff, 0xffffffff}, 0xffffffff},
    {{MAD, 7, 0xffffffff, 10}, 3},
    {{LOP96, 0xf0f0f0f0, 0xcccccccc, 0xaaaaaaaa}, 0x96969696}, {{LOPE8, 0xf0f0f0f0, 0xcccccccc, 0xaaaaaaaa}, 0xe8e8e8e8},
    {{LOPCA, 0xf0f0f0f0, 0xcccccccc, 0xaaaaaaaa}, 0xcacacaca}, {{LOPEA, 0xf0f0f0f0, 0xcccccccc, 0xaaaaaaaa}, 0xeaeaeaea},
    {{LOP1B, 0xf0f0f0f0, 0xcccccccc, 0xaaaaaaaa}, 0x1b1b1b1b}, {{LOPEA, 0x4b412345, 0x7fffff, 0x4b000000}, 0x4b412345},
    {{DP2A_LO_S, 0x0003fffe, 0x55aa04ff, 100}, 114}, {{DP2A_HI_S, 0x0003fffe, 0x05fd55aa, 100}, 121}, // -2 * -1 + 3 * 4, -2 * -3 + 3 * 5
    {{DP2A_LO_U, 0x0003fffe, 0x55aa04ff, 100}, 0xfffffe72}, {{DP2A_HI_U, 0x80007fff, 0x02ff55aa, 0x7fffffff}, 0x807e7f00},
    {{PRMT, 0x33221100, 0x77665544, 0x7531}, 0x77553311}, {{PRMT, 0x80, 0, 0x0008}, 0x808080ff}, {{PRMT, 0x7f, 0x80, 0x84c4}, 0x0080ff80},
    {{BFE_U, 0x12345678, 8, 8}, 0x56}, {{BFE_U, 0x12345678, 8, 0}, 0}, {{BFE_U, 0xffffffff, 28, 20}, 15}, {{BFE_S, 0xf000, 12, 4}, 0xffffffff},
    {{BFE_S, 0x80000000, 28, 10}, 0xfffffff8}, {{BFE_S, 0x7000, 12, 4}, 7}, {{BFI, 0xff, 8, 4}, 0x11111f11}, {{BFI, 0xff, 32, 4}, 0x11111111},
    {{BFI, 0xff, 0, 40}, 0xff}, {{BFI, 0, 30, 8}, 0x11111111}, {{BFI, 0xff, 4, 0}, 0x11111111},
    {{SELP, 5, 6, 1}, 5}, {{SELP, 5, 6, 0}, 6}, {{LT_AND, 0xffffffff, 0, 1}, 1}, {{LT_AND, 0xffffffff, 0, 0}, 0}, {{LT_OR, 0xffffffff, 0, 1}, 1},
    {{LT_OR, 0xffffffff, 0, 0}, 0}, {{LT_XOR, 0, 1, 1}, 0}, {{LT_XOR, 0, 1, 0}, 1}, {{BOTH, 1, 2}, 1}, {{BOTH, 2, 1}, 2},
    {{F_EQ, 0x7fc00000, 0x7fc00000}, 0}, {{F_EQ, 0, 0x80000000}, 1}, {{F_NE, 0x7fc00000, 0}, 0}, {{F_NE, 0x3f800000, 0}, 1},
    {{F_NEU, 0x7fc00000, 0}, 1}, {{F_NEU, 0, 0x80000000}, 0}, {{F_EQU, 0x7fc00000, 0}, 1}, {{F_EQU, 0x3f800000, 0}, 0},
    {{F_GEU, 0x7fc00000, 0}, 1}, {{F_GEU, 0, 0x3f800000}, 0}, {{F_GE, 0x7fc00000, 0}, 0}, {{F_GE, 0, 0x80000000}, 1},
    {{F_LEU, 0, 0xffc00000}, 1}, {{F_LEU, 0x3f800000, 0}, 0}, {{F_GTU, 0, 0xffc00000}, 1}, {{F_GTU, 0, 0}, 0}, {{F_LTU, 0, 0x7fc00000}, 1},
    {{F_LTU, 0, 0}, 0}, {{F_NAN, 0, 0x7f800001}, 1}, {{F_NAN, 0, 0x7f800000}, 0}, {{F_NUM, 0, 0x7f800001}, 0}, {{F_NUM, 0, 0x7f800000}, 1},
    {{LT_S16, 0x18000, 1}, 1}, {{LT_S16, 1, 0xffff}, 0}, {{ADD16, 0xffff, 2}, 1}, {{WIDE_S16, 0xffff, 3}, 0xfffffffd}, {{SHR_U16, 0xff, 8}, 0xff},
    {{SHR_U16, 0, 16}, 0}, {{PACK16, 0x12345678}, 0x56781234},
    {{MIN_S, 0xffffffff, 0}, 0xffffffff}, {{MAX_U, 0xffffffff, 0}, 0xffffffff}, {{POPC, 0xf0f0f0f1}, 17}, {{CLZ, 0}, 32}, {{CLZ, 0x10000}, 15},
    {{BREV, 0x00000013}, 0xc8000000}, {{DIV_U, 0xffffffff, 2}, 0x7fffffff}, {{REM_U, 7, 4}, 3}, {{DIV_S, 0xfffffff9, 2}, 0xfffffffd},
    {{REM_S, 0xfffffff9, 2}, 0xffffffff}, {{NEG, 5}, 0xfffffffb}, {{ABS, 0xfffffffb}, 5}, {{SHF_L, 0x80000001, 0xf, 4}, 0xf8},
    {{GUARD, 9, 3}, 3}, {{GUARD, 2, 3}, 3},
    // as NVIDIA's assembler makes them of constants; fma, division and mul.hi of 64 bits by arithmetic
    {{MULHI_S, 0x12345678, 0x9abcdef0}, 0xf8cc93d6}, {{SHR64, 0, 0x80000000, 64}, 0xffffffff}, {{ADD_U32, 0x80000001, 5}, 0x80000006},
    {{ADD_U32, 0x12345678, 0x9abcdef0}, 0xacf13568}, {{SUB_S32, 0x80000001, 5}, 0x7ffffffc}, {{SUB_S32, 0x12345678, 0x9abcdef0}, 0x77777788},
    {{SUB_U32, 0x80000001, 5}, 0x7ffffffc}, {{SUB_U32, 0x12345678, 0x9abcdef0}, 0x77777788}, {{MUL_LO_S32, 0x80000001, 5}, 0x80000005},
    {{MUL_LO_S32, 0x12345678, 0x9abcdef0}, 0x242d2080}, {{MUL_LO_U32, 0x80000001, 5}, 0x80000005},
    {{MUL_LO_U32, 0x12345678, 0x9abcdef0}, 0x242d2080}, {{AND_B32, 0x80000001, 5}, 1}, {{AND_B32, 0x12345678, 0x9abcdef0}, 0x12345670},
    {{OR_B32, 0x80000001, 5}, 0x80000005}, {{OR_B32, 0x12345678, 0x9abcdef0}, 0x9abcdef8}, {{XOR_B32, 0x80000001, 5}, 0x80000004},
    {{XOR_B32, 0x12345678, 0x9abcdef0}, 0x88888888}, {{MAX_S32, 0x80000000, 1}, 1}, {{MAX_S32, 7, 0xffffffff}, 7}, {{MIN_U32, 0x80000000, 1}, 1},
    {{MIN_U32, 7, 0xffffffff}, 7}, {{NOT_B32, 0xf0f1234}, 0xf0f0edcb}, {{SHR_B32, 0x80000000, 31}, 1}, {{SHR_B32, 0x80000000, 32}, 0},
    {{MAD_LO_U32, 0x80000001, 3, 0xffffffff}, 0x80000002}, {{SHF_R_WRAP_B32, 0x80000001, 15, 4}, 0xf8000000},
    {{SHF_R_WRAP_B32, 0x12345678, 0x9abcdef0, 32}, 0x12345678}, {{SHF_R_WRAP_B32, 1, 2, 33}, 0},
    {{SHF_R_WRAP_B32, 0x12345678, 0x9abcdef0, 20}, 0xcdef0123}, {{SHF_L, 0x12345678, 0x9abcdef0, 32}, 0x9abcdef0}, {{SHF_L, 0x80000000, 0, 65}, 1},
    {{SHF_L, 0x12345678, 0x9abcdef0, 20}, 0xef012345}, {{ABS_F32, 0x80000000}, 0}, {{ABS_F32, 0xff800000}, 0x7f800000}, {{ABS_F32, 0x80000001}, 1},
    {{NEG_F32, 0}, 0x80000000}, {{NEG_F32, 0xff800000}, 0x7f800000}, {{FMA_RN_F32, 0x3f800001, 0x3f800001, 0xbf800002}, 0x28800000},
    {{FMA_RN_F32, 1, 1, 0x80000000}, 0}, {{CVT_RNI_F32_F32, 0x40200000}, 0x40000000}, {{CVT_RNI_F32_F32, 0xbf000000}, 0x80000000},
    {{CVT_RNI_F32_F32, 0x4b000001}, 0x4b000001}, {{SELP_S32, 5, 6, 1}, 5}, {{SELP_S32, 5, 6}, 6}, {{SELP_F32, 5, 6, 1}, 5}, {{SELP_F32, 5, 6}, 6},
    {{ADD_U16, 0x8001, 5}, 0x8006}, {{ADD_U16, 0xabcd, 0xfff3}, 0xabc0}, {{SUB_S16, 0x8001, 5}, 0x7ffc}, {{SUB_S16, 0xabcd, 0xfff3}, 0xabda},
    {{SUB_U16, 0x8001, 5}, 0x7ffc}, {{SUB_U16, 0xabcd, 0xfff3}, 0xabda}, {{MUL_LO_S16, 0x8001, 5}, 0x8005}, {{MUL_LO_S16, 0xabcd, 0xfff3}, 0x4697},
    {{MUL_LO_U16, 0x8001, 5}, 0x8005}, {{MUL_LO_U16, 0xabcd, 0xfff3}, 0x4697}, {{AND_B16, 0x8001, 5}, 1}, {{AND_B16, 0xabcd, 0xfff3}, 0xabc1},
    {{OR_B16, 0x8001, 5}, 0x8005}, {{OR_B16, 0xabcd, 0xfff3}, 0xffff}, {{XOR_B16, 0x8001, 5}, 0x8004}, {{XOR_B16, 0xabcd, 0xfff3}, 0x543e},
    {{SHL_B16, 0x8123, 4}, 0x1230}, {{SHL_B16, 1, 16}, 0}, {{SHL_B16, 1, 0x10000}, 0}, {{SELP_B16, 5, 6, 1}, 5}, {{SELP_B16, 5, 6}, 6},
    {{SELP_U16, 5, 6, 1}, 5}, {{SELP_U16, 5, 6}, 6}, {{SELP_S16, 5, 6, 1}, 5}, {{SELP_S16, 5, 6}, 6}, {{MUL_WIDE_U16, 0xffff, 0xfffe}, 0xfffd0002},
    {{MUL_HI_U64, 0xffffffff, 1, 0x80000001}, 2}, {{MUL_HI_U64, 0x12345678, 0x9abcdef0, 0xfedcba98}, 0xda12f666},
    {{MUL_HI_U64, 0xffffffff, 0xffffffff, 0xffffffff}, 0xfffffffd}, {{ADD_S64, 0xffffffff, 1, 0x80000001}, 0x80000003},
    {{ADD_S64, 0x12345678, 0x9abcdef0, 0xfedcba98}, 0x468acef0}, {{ADD_U64, 0xffffffff, 1, 0x80000001}, 0x80000003},
    {{ADD_U64, 0x12345678, 0x9abcdef0, 0xfedcba98}, 0x468acef0}, {{SUB_S64, 0xffffffff, 1, 0x80000001}, 0x7ffffffe},
    {{SUB_S64, 0x12345678, 0x9abcdef0, 0xfedcba98}, 0x13579bdf}, {{SUB_U64, 0xffffffff, 1, 0x80000001}, 0x7ffffffe},
    {{SUB_U64, 0x12345678, 0x9abcdef0, 0xfedcba98}, 0x13579bdf}, {{MUL_LO_U64, 0xffffffff, 1, 0x80000001}, 0x7fffffff},
    {{MUL_LO_U64, 0x12345678, 0x9abcdef0, 0xfedcba98}, 0x56d9b30e}, {{AND_B64, 0xffffffff, 1, 0x80000001}, 2},
    {{AND_B64, 0x12345678, 0x9abcdef0, 0xfedcba98}, 0xacd0f100}, {{OR_B64, 0xffffffff, 1, 0x80000001}, 0x80000000},
    {{OR_B64, 0x12345678, 0x9abcdef0, 0xfedcba98}, 0x99b9ddf0}, {{XOR_B64, 0xffffffff, 1, 0x80000001}, 0x7ffffffe},
    {{XOR_B64, 0x12345678, 0x9abcdef0, 0xfedcba98}, 0xece8ecf0}, {{MIN_S64, 0xffffffff, 1, 0x80000001}, 0x80000002},
    {{MIN_S64, 0x12345678, 0x9abcdef0, 0xfedcba98}, 0xacf13568}, {{MAX_S64, 0xffffffff, 1, 0x80000001}, 0},
    {{MAX_S64, 0x12345678, 0x9abcdef0, 0xfedcba98}, 0x99999988}, {{MIN_U64, 0xffffffff, 1, 0x80000001}, 0},
    {{MIN_U64, 0x12345678, 0x9abcdef0, 0xfedcba98}, 0xacf13568}, {{MAX_U64, 0xffffffff, 1, 0x80000001}, 0x80000002},
    {{MAX_U64, 0x12345678, 0x9abcdef0, 0xfedcba98}, 0x99999988}, {{MAD_LO_S64, 0x12345678, 0x9abcdef0, 0xfedcba98}, 0xf0734c96},
    {{MAD_LO_U64, 0x12345678, 0x9abcdef0, 0xfedcba98}, 0xf0734c96}, {{DIV_U64, 0x12345678, 0x9abcdef0, 16}, 0x951adc4}, {{DIV_U64, 5, 7}, 1},
    {{REM_U64, 0x12345678, 0x9abcdef0, 16}, 0xfd0176c6}, {{REM_U64, 5, 7}, 5}, {{NOT_B64, 0, 1}, 0xfffffffd},
    {{NOT_B64, 0x12345678, 0x9abcdef0}, 0x530eca96}, {{NEG_S64, 0, 1}, 0xffffffff}, {{NEG_S64, 0x12345678, 0x9abcdef0}, 0x530eca97},
    {{SHR_U64, 0, 0x80000000, 4}, 0x8000000}, {{SHR_U64, 0, 0x80000000, 63}, 1}, {{SHR_U64, 0xffffffff, 0xffffffff, 64}, 0},
    {{SHR_B64, 0, 0x80000000, 4}, 0x8000000}, {{SHR_B64, 0, 0x80000000, 63}, 1}, {{SHR_B64, 0xffffffff, 0xffffffff, 64}, 0},
    {{SELP_B64, 5, 6, 1}, 11}, {{SELP_B64, 5, 6}, 6}, {{SELP_U64, 5, 6, 1}, 11}, {{SELP_U64, 5, 6}, 6}, {{SELP_S64, 5, 6, 1}, 11},
    {{SELP_S64, 5, 6}, 6}, {{MAD_WIDE_S32, 0xfffffffe, 3, 7}, 3}, {{MAD_WIDE_U32, 0xfffffffe, 3, 7}, 6}, {{AND_PRED, 1}, 0}, {{AND_PRED, 1, 1}, 1},
    {{AND_PRED, 0}, 0}, {{OR_PRED, 1}, 1}, {{OR_PRED, 1, 1}, 1}, {{OR_PRED, 0}, 0}, {{XOR_PRED, 1}, 1}, {{XOR_PRED, 1, 1}, 0}, {{XOR_PRED, 0}, 0},
    {{NOT_PRED, 1}, 0}, {{NOT_PRED, 0}, 1}, {{SETP_GT_F32, 0x7fc00000}, 0}, {{SETP_GT_F32, 0x80000000, 1}, 0}, {{SETP_GT_F32, 1, 0x80000000}, 1},
    {{SETP_GT_F32, 0, 0x80000000}, 0}, {{SETP_LT_F32, 0x7fc00000}, 0}, {{SETP_LT_F32, 0x80000000, 1}, 1}, {{SETP_LT_F32, 1, 0x80000000}, 0},
    {{SETP_LT_F32, 0, 0x80000000}, 0}, {{SETP_LE_F32, 0x7fc00000}, 0}, {{SETP_LE_F32, 0, 0x80000000}, 1}, {{SETP_LE_F32, 1, 0x80000000}, 0},
};
const int n_values = (int)(sizeof values / sizeof values[0]);
const char *const texts[] = {
#define TEXT(name, text) text,
    INSTRUCTIONS(TEXT)};

// Comparisons and conversions of whole numbers, of every type, beside what C++ makes of them. The types
// stand twice, since a macro does not expand inside itself.
#define TYPES(X, ...) \
    X(u8, uint8_t, 16, __VA_ARGS__) X(s8, int8_t, 16, __VA_ARGS__) X(u16, uint16_t, 16, __VA_ARGS__) X(s16, int16_t, 16, __VA_ARGS__) \
    X(u32, uint32_t, 32, __VA_ARGS__) X(s32, int32_t, 32, __VA_ARGS__) X(u64, uint64_t, 64, __VA_ARGS__) X(s64, int64_t, 64, __VA_ARGS__)
#define SOURCES(X, ...) \
    X(u8, uint8_t, 16, __VA_ARGS__) X(s8, int8_t, 16, __VA_ARGS__) X(u16, uint16_t, 16, __VA_ARGS__) X(s16, int16_t, 16, __VA_ARGS__) \
    X(u32, uint32_t, 32, __VA_ARGS__) X(s32, int32_t, 32, __VA_ARGS__) X(u64, uint64_t, 64, __VA_ARGS__) X(s64, int64_t, 64, __VA_ARGS__)
#define COMPARE_ALL(X) \
    ORDERED(X, 16, s, int16_t) ORDERED(X, 16, u, uint16_t) ORDERED(X, 32, s, int32_t) ORDERED(X, 32, u, uint32_t) ORDERED(X, 64, s, int64_t) \
    ORDERED(X, 64, u, uint64_t) EQUAL(X, 16, b, uint16_t) EQUAL(X, 32, b, uint32_t) EQUAL(X, 64, b, uint64_t)
#define EQUAL(X, bits, sign, T) X(eq, ==, bits, sign, T) X(ne, !=, bits, sign, T)
#define ORDERED(X, bits, sign, T) EQUAL(X, bits, sign, T) X(lt, <, bits, sign, T) X(le, <=, bits, sign, T) X(gt, >, bits, sign, T) X(ge, >=, bits, sign, T)
const int n_whole = 8 * 8 + 8 + 6 * 6 + 3 * 2;

__global__ void whole(const uint64_t *in, uint64_t *out)
{
    uint64_t a = in[2 * threadIdx.x], b = in[2 * threadIdx.x + 1], r, *o = out + threadIdx.x * n_whole;
    float f;
    int is;

#define CVT(from, F, n, to, m) \
    asm volatile("{ .reg .b" #n " x; .reg .b" #m " y; cvt.u" #n ".u64 x, %1; cvt." #to "." #from " y, x; cvt.u64.u" #m " %0, y; }" : "=l"(r) : "l"(a)); \
    *o++ = r;
#define CVTS(to, T, m, ...) SOURCES(CVT, to, m)
#define CVTF(from, F, n, ...) \
    asm volatile("{ .reg .b" #n " x; cvt.u" #n ".u64 x, %1; cvt.rn.f32." #from " %0, x; }" : "=f"(f) : "l"(a)); \
    *o++ = __float_as_uint(f);
#define SETP(name, op, bits, sign, T) \
    asm volatile("{ .reg .pred p; .reg .b" #bits " x, y; cvt.u" #bits ".u64 x, %1; cvt.u" #bits ".u64 y, %2; setp." #name "." #sign #bits \
                 " p, x, y; selp.u32 %0, 1, 0, p; }" : "=r"(is) : "l"(a), "l"(b)); \
    *o++ = (uint64_t)is;
    TYPES(CVTS, 0)
    TYPES(CVTF, 0)
    COMPARE_ALL(SETP)
}

int check_whole(void)
{
    static const uint64_t edge[] = {0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x10001, 0x7fffffff, 0x80000000, 0xffffffff,
                                    0x100000080, 0x8000008000000001, 0x7fffffffffffffff, 0xffffffffffffffff};
    static uint64_t in[2 * 256], out[256 * n_whole];
    void *d_in, *d_out;
    int bad = 0;

    for (int i = 0; i < 256; i++) {
        in[2 * i] = edge[i / 16];
        in[2 * i + 1] = edge[i % 16];
    }
    cudaMalloc(&d_in, sizeof in);
    cudaMalloc(&d_out, sizeof out);
    cudaMemcpy(d_in, in, sizeof in, cudaMemcpyHostToDevice);
    whole<<<1, 256>>>((const uint64_t *)d_in, (uint64_t *)d_out);
    if (cudaError_t e = cudaGetLastError() ? cudaErrorLaunchFailure : cudaDeviceSynchronize())
        return printf("whole: %s\n", cudaGetErrorString(e)), 1;
    cudaMemcpy(out, d_out, sizeof out, cudaMemcpyDeviceToHost);
    for (int i = 0; i < 256; i++) {
        const uint64_t a = in[2 * i], b = in[2 * i + 1], *o = out + i * n_whole;
        float f;
        unsigned u;

#define SAME(text, want) \
    if (*o++ != (uint64_t)(want) && bad++ < 10) \
        printf("%s of %llx, %llx: %llx\n", text, (unsigned long long)a, (unsigned long long)b, (unsigned long long)o[-1]);
#define CVT_IS(from, F, n, to, T, m) SAME("cvt." #to "." #from, (uint##m##_t)(T)(F)a)
#define CVTS_ARE(to, T, m, ...) SOURCES(CVT_IS, to, T, m)
#define CVTF_IS(from, F, n, ...) f = (float)(F)a; memcpy(&u, &f, 4); SAME("cvt.rn.f32." #from, u)
#define SETP_IS(name, op, bits, sign, T) SAME("setp." #name "." #sign #bits, (T)a op (T)b)
        TYPES(CVTS_ARE, 0)
        TYPES(CVTF_IS, 0)
        COMPARE_ALL(SETP_IS)
    }
    return bad;
}

struct pair {
    double d;
    int n;
};

__device__ __noinline__ int longest(const int *from, int n, struct pair *out)
{
    int best = 0;

    for (int i = 0; i < n; i++)
        if (from[i] > from[best])
            best = i;
    out->n = from[best];
    return best;
}

__global__ void several(const float4 *in, int *out)
{
    __shared__ int sum, most, swapped, bits;
    __shared__ unsigned long long least;
    extern __shared__ float pool[];
    int t = (int)(threadIdx.x + blockDim.x * threadIdx.y), lane = t % 32, x[16], *o = out + 18 * t;
    struct pair p;
    float4 v = in[t];

    if (t == 0) {
        sum = most = swapped = bits = 0;
        least = ~0ull;
    }
    pool[t] = v.x;
    __syncthreads();
    o[0] = (int)(v.x + 10 * v.y + 100 * v.z + 1000 * v.w);
    for (int i = 0; i < 16; i++)
        x[(i * 5 + t) & 15] = i;
    o[1] = longest(x, 16, &p);
    o[2] = p.n;
    atomicAdd(&sum, t);
    atomicMax(&most, t * 7);
    atomicCAS(&swapped, 0, 5);
    atomicOr(&bits, 1 << t / 4);
    atomicMin(&least, (unsigned long long)(t & 1) << 63 | (unsigned long long)(100 - t) << 32);
    __syncthreads();
    o[3] = sum;
    o[4] = most;
    o[5] = swapped;
    o[6] = __shfl_xor_sync(0xffffffff, t, 1);
    o[7] = __shfl_up_sync(0xffffffff, t, 3);
    o[8] = __shfl_down_sync(0xffffffff, t, 30);
    o[9] = __shfl_sync(0xffffffff, t, 9, 8);
    o[10] = (int)__ballot_sync(0xffffffff, lane & 1);
    o[11] = __any_sync(0xffffffff, lane == 40) + 2 * __all_sync(0xffffffff, lane < 32);
    o[12] = (int)pool[63 - t];
    o[13] = (int)(blockIdx.x + 10 * threadIdx.y + 100 * blockDim.y);
    o[16] = bits;
    o[17] = (int)(least >> 32);
    *(int2 *)(o + 14) = make_int2(t, (int)((long long)-t * 3000000000ll >> 32));
}

int check_several(void)
{
    static float in[64 * 4];
    static int out[64 * 18];
    void *d_in, *d_out;
    int bad = 0;

    for (int i = 0; i < 256; i++)
        in[i] = (float)(i % 10);
    cudaMalloc(&d_in, sizeof in);
    cudaMalloc(&d_out, sizeof out);
    cudaMemcpy(d_in, in, sizeof in, cudaMemcpyHostToDevice);
    several<<<1, dim3(8, 8), 64 * sizeof(float)>>>((const float4 *)d_in, (int *)d_out);
    if (cudaError_t e = cudaGetLastError() ? cudaErrorLaunchFailure : cudaDeviceSynchronize())
        return printf("several: %s\n", cudaGetErrorString(e)), 1;
    cudaMemcpy(out, d_out, sizeof out, cudaMemcpyDeviceToHost);
    for (int t = 0; t < 64; t++) {
        int lane = t % 32, base = t - lane, v[4], want[18];

        for (int i = 0; i < 4; i++)
            v[i] = (4 * t + i) % 10;
        want[0] = v[0] + 10 * v[1] + 100 * v[2] + 1000 * v[3];
        want[1] = (15 * 5 + t) & 15;
        want[2] = 15;
        want[3] = 63 * 64 / 2;
        want[4] = 63 * 7;
        want[5] = 5;
        want[6] = t ^ 1;
        want[7] = lane < 3 ? t : t - 3;
        want[8] = lane < 2 ? t + 30 : t;
        want[9] = base + lane / 8 * 8 + 1;
        want[10] = (int)0xaaaaaaaa;
        want[11] = 2;
        want[12] = 4 * (63 - t) % 10;
        want[13] = 10 * (t / 8) + 800;
        want[14] = t;
        want[15] = (int)(-t * 3000000000ll >> 32);
        want[16] = 0xffff;
        want[17] = 100 - 62;
        for (int i = 0; i < 18; i++)
            if (out[18 * t + i] != want[i] && bad++ < 10)
                printf("thread %d, value %d: %d, not %d\n", t, i, out[18 * t + i], want[i]);
    }
    return bad;
}

} // namespace

int main(void)
{
    static unsigned in[4 * n_values], out[n_values];
    void *d_in, *d_out;
    int bad = 0;

    for (int i = 0; i < n_values; i++)
        memcpy(in + 4 * i, values[i].in, sizeof values[i].in);
    cudaMalloc(&d_in, sizeof in);
    cudaMalloc(&d_out, sizeof out);
    cudaMemcpy(d_in, in, sizeof in, cudaMemcpyHostToDevice);
    one<<<(n_values + 63) / 64, 64>>>((const unsigned *)d_in, (unsigned *)d_out, n_values);
    if (cudaError_t e = cudaGetLastError() ? cudaErrorLaunchFailure : cudaDeviceSynchronize())
        return printf("values: %s\n", cudaGetErrorString(e)), 1;
    cudaMemcpy(out, d_out, sizeof out, cudaMemcpyDeviceToHost);
    for (int i = 0; i < n_values; i++)
        if (out[i] != values[i].want) {
            printf("%s of %08x, %08x, %08x: %08x, not %08x\n", texts[values[i].in[0]], values[i].in[1], values[i].in[2], values[i].in[3], out[i],
                   values[i].want);
            bad++;
        }
    bad += check_several() + check_whole();
    printf("%d values, %d wrong\n", n_values + 64 * 18 + 256 * n_whole, bad);
    return bad != 0;
}

/* Block layouts of the ggml types, as GGUF files hold them. Facts of the
 * format; every field is little-endian. */
#ifndef SLUICE_KERNELS_BLOCKS_H
#define SLUICE_KERNELS_BLOCKS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define SL_LAYOUT(type, n) static_assert(sizeof(struct type) == (n), "layout")
#else
#define SL_LAYOUT(type, n) _Static_assert(sizeof(struct type) == (n), "layout")
#endif

/* Blocks of 32 weights. d: scale, m: minimum, both f16; qs: the low bits, value
 * i in the low half and value i + 16 in the high half of byte i; qh: bit i is
 * the fifth bit of value i. */
struct blk_q4_0 { uint16_t d; uint8_t qs[16]; };
struct blk_q4_1 { uint16_t d, m; uint8_t qs[16]; };
struct blk_q5_0 { uint16_t d; uint8_t qh[4]; uint8_t qs[16]; };
struct blk_q5_1 { uint16_t d, m; uint8_t qh[4]; uint8_t qs[16]; };
struct blk_q8_0 { uint16_t d; int8_t qs[32]; };
struct blk_iq4_nl { uint16_t d; uint8_t qs[16]; };
struct blk_mxfp4 { uint8_t e; uint8_t qs[16]; }; /* e: the scale is 2^(e - 127) */

struct blk_nvfp4 { uint8_t d[4]; uint8_t qs[32]; }; /* 64 weights; each 16 with an E4M3 scale without a sign, and 8 bytes of codes */

/* Few levels. q1_0: 128 weights, a bit each: plus or minus d. q2_0: 64 weights of two bits, tq2_0: 256, in halves whose
 * byte i has weights i, i + 32, i + 64 and i + 96: d times (level - 1). tq1_0: 256 weights; the bytes have five digits to the base
 * of three (160 + 80 weights, from byte to byte 32 or 16 apart), in qh four (16), as the fraction of 256 that is just above them. */
struct blk_q1_0 { uint16_t d; uint8_t qs[16]; };
struct blk_q2_0 { uint16_t d; uint8_t qs[16]; };
struct blk_tq1_0 { uint8_t qs[48]; uint8_t qh[4]; uint16_t d; };
struct blk_tq2_0 { uint8_t qs[64]; uint16_t d; };

/* Superblocks of 256 weights; d and dmin scale the sub-blocks' own scales. */
struct blk_q2_k { uint8_t scales[16]; uint8_t qs[64]; uint16_t d, dmin; };
struct blk_q3_k { uint8_t hmask[32]; uint8_t qs[64]; uint8_t scales[12]; uint16_t d; };
struct blk_q4_k { uint16_t d, dmin; uint8_t scales[12]; uint8_t qs[128]; };
struct blk_q5_k { uint16_t d, dmin; uint8_t scales[12]; uint8_t qh[32]; uint8_t qs[128]; };
struct blk_q6_k { uint8_t ql[128]; uint8_t qh[64]; int8_t scales[16]; uint16_t d; };
struct blk_iq4_xs { uint16_t d, scales_h; uint8_t scales_l[4]; uint8_t qs[128]; };

/* Superblocks on grids: indices of grid points in qs, with high bits in qh. Where
 * it has no place of its own, the scale of a sub-block is in the top bits of qs or
 * qh; the 16 bits of iq1_m's d are in the top bits of its four words of scales. */
struct blk_iq2_xxs { uint16_t d; uint16_t qs[32]; };
struct blk_iq2_xs { uint16_t d; uint16_t qs[32]; uint8_t scales[8]; };
struct blk_iq2_s { uint16_t d; uint8_t qs[64], qh[8], scales[8]; };
struct blk_iq3_xxs { uint16_t d; uint8_t qs[96]; };
struct blk_iq3_s { uint16_t d; uint8_t qs[64], qh[8], signs[32], scales[4]; };
struct blk_iq1_s { uint16_t d; uint8_t qs[32]; uint16_t qh[8]; };
struct blk_iq1_m { uint8_t qs[32], qh[16]; uint16_t scales[4]; };

SL_LAYOUT(blk_q4_0, 18);
SL_LAYOUT(blk_q4_1, 20);
SL_LAYOUT(blk_q5_0, 22);
SL_LAYOUT(blk_q5_1, 24);
SL_LAYOUT(blk_q8_0, 34);
SL_LAYOUT(blk_iq4_nl, 18);
SL_LAYOUT(blk_mxfp4, 17);
SL_LAYOUT(blk_nvfp4, 36);
SL_LAYOUT(blk_q1_0, 18);
SL_LAYOUT(blk_q2_0, 18);
SL_LAYOUT(blk_tq1_0, 54);
SL_LAYOUT(blk_tq2_0, 66);
SL_LAYOUT(blk_q2_k, 84);
SL_LAYOUT(blk_q3_k, 110);
SL_LAYOUT(blk_q4_k, 144);
SL_LAYOUT(blk_q5_k, 176);
SL_LAYOUT(blk_q6_k, 210);
SL_LAYOUT(blk_iq4_xs, 136);
SL_LAYOUT(blk_iq2_xxs, 66);
SL_LAYOUT(blk_iq2_xs, 74);
SL_LAYOUT(blk_iq2_s, 82);
SL_LAYOUT(blk_iq3_xxs, 98);
SL_LAYOUT(blk_iq3_s, 110);
SL_LAYOUT(blk_iq1_s, 50);
SL_LAYOUT(blk_iq1_m, 56);

/* The 16 levels of iq4_nl and iq4_xs. */
#define SL_IQ4_LEVELS \
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113

/* What the 16 codes of E2M1 (MXFP4, F4) stand for; -0 is 0, as in ggml. */
#define SL_E2M1_VALUES \
    0.f, 0.5f, 1.f, 1.5f, 2.f, 3.f, 4.f, 6.f, 0.f, -0.5f, -1.f, -1.5f, -2.f, -3.f, -4.f, -6.f
#define SL_E2M1_SAFE 0x1p125f /* under a scale below this they are finite */

#endif

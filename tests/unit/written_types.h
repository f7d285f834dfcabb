/* The types that a quantizer writes: all but F32, which is a copy; those that a GPU writes, too, first.
 * golden_test holds the list against what the program says of itself. */
#ifndef SLUICE_TESTS_WRITTEN_TYPES_H
#define SLUICE_TESTS_WRITTEN_TYPES_H

#include "proto/types.h"

/* Those that a GPU makes, too. */
#define DEVICE_TYPES \
    SL_TYPE_F16, SL_TYPE_BF16, SL_TYPE_Q8_0, SL_TYPE_Q4_0, SL_TYPE_Q4_1, SL_TYPE_Q5_0, SL_TYPE_Q5_1, \
    SL_TYPE_Q2_K, SL_TYPE_Q3_K, SL_TYPE_Q4_K, SL_TYPE_Q5_K, SL_TYPE_Q6_K, SL_TYPE_IQ4_NL, SL_TYPE_IQ4_XS, \
    SL_TYPE_IQ1_S, SL_TYPE_IQ1_M, SL_TYPE_IQ2_XXS, SL_TYPE_IQ2_XS, SL_TYPE_IQ2_S, SL_TYPE_IQ3_XXS, SL_TYPE_IQ3_S
#define WRITTEN_TYPES DEVICE_TYPES, SL_TYPE_MXFP4, SL_TYPE_Q1_0, SL_TYPE_Q2_0, SL_TYPE_TQ1_0, SL_TYPE_TQ2_0

#endif

#include "kernels/lanes_scalar.h"
#include "kernels/text_backend.h"

const struct sl_backend_ops sl_ops_scalar = {LANE_NAME, backend_quantize, backend_load, NULL, NULL, backend_q8_0};

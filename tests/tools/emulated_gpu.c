/* `sluice` with emulated GPUs in place of the CUDA runtime: for tests/tap/device.t. */
#include "tests/unit/emulated_gpu.h"

const struct sl_gpu_api *sl_gpu_api(void)
{
    return emulated_api();
}

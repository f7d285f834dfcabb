#include "kernels/lanes_portable.h"

#define OF SL_BACKEND_PORTABLE
#include "kernels_runs.h"

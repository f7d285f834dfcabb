#include "kernels/gpu.h"

#include <string.h>

bool sl_gpu_takes(int type, int dtype)
{
    const struct sl_type_info *t = sl_type_info(type);
    bool source = dtype == SL_DTYPE_F8_E4M3 || dtype == SL_DTYPE_F8_E5M2 || dtype == SL_DTYPE_F16 ||
                  dtype == SL_DTYPE_BF16 || dtype == SL_DTYPE_F32 || dtype == SL_DTYPE_F4;

    if (!t || !source)
        return false;
    switch (type) {
    case SL_TYPE_F32: case SL_TYPE_F16: case SL_TYPE_BF16: case SL_TYPE_Q8_0:
    case SL_TYPE_Q4_0: case SL_TYPE_Q4_1: case SL_TYPE_Q5_0: case SL_TYPE_Q5_1: case SL_TYPE_IQ4_NL:
    case SL_TYPE_Q2_K: case SL_TYPE_Q3_K: case SL_TYPE_Q4_K: case SL_TYPE_Q5_K: case SL_TYPE_Q6_K:
    case SL_TYPE_IQ4_XS:
        return true;
    default:
        return sl_gpu_grid_of(type) != SL_GRID_COUNT;
    }
}

enum sl_grid_id sl_gpu_grid_of(int type)
{
    switch (type) {
    case SL_TYPE_IQ1_S: case SL_TYPE_IQ1_M: return SL_GRID_IQ1;
    case SL_TYPE_IQ2_XXS: return SL_GRID_IQ2_XXS;
    case SL_TYPE_IQ2_XS: return SL_GRID_IQ2_XS;
    case SL_TYPE_IQ2_S: return SL_GRID_IQ2_S;
    case SL_TYPE_IQ3_XXS: return SL_GRID_IQ3_XXS;
    case SL_TYPE_IQ3_S: return SL_GRID_IQ3_S;
    default: return SL_GRID_COUNT;
    }
}

bool sl_gpu_fits(const struct sl_gpu_info *info)
{
    return info->major >= 8;
}

int sl_gpu_count(const struct sl_gpu_api *api)
{
    int n = 0;

    return api && api->count(&n) == 0 && n > 0 ? n : 0;
}

const char *sl_gpu_absence(const struct sl_gpu_api *api)
{
    int n = 0, rc;

    if (!api)
        return "this build has no CUDA; build with nvcc in PATH";
    rc = api->count(&n);
    if (rc == 0 && n > 0)
        return NULL;
    if (rc == 0 || api->fault(rc) == SL_GPU_FAULT_NONE)
        return "no GPU here, or CUDA_VISIBLE_DEVICES names none, or nvidia-uvm is not loaded";
    if (api->fault(rc) == SL_GPU_FAULT_START)
        return "CUDA does not start here: does nvidia-smi work, and may this user open /dev/nvidia-uvm?";
    return api->words(rc);
}

int sl_gpu_fail(const struct sl_gpu_device *d, int err, const char *what, struct sl_error *e)
{
    static const char *const advice[] = {
        "this is a bug", "see nvidia-smi", "see nvidia-smi", "give less --vram, or free memory on the device",
        "see nvidia-smi and the kernel's log", "the device is lost to this process; see nvidia-smi and the kernel's log"};

    return sl_fail(e, SL_EDEVICE, "GPU cuda:%d (%s): %s: %s; %s", d->number, d->info.name, what,
                   d->api->words(err), advice[d->api->fault(err)]);
}

/* What of a grid goes to the device, and how much. */
#define PARTS 3
struct part {
    const void *from;
    size_t bytes;
};

static void parts_of(enum sl_grid_id id, struct part p[PARTS])
{
    const struct sl_grid *g = sl_grid_for_writing(id);
    int used, room;

    sl_grid_room(id, &used, &room);
    p[0] = (struct part){g->map, (g->bits == 2 ? 65536u : 4096u) * sizeof *g->map};
    p[1] = (struct part){g->lists, (size_t)used * SL_GRID_UNIT * sizeof *g->lists};
    p[2] = (struct part){g->moves, (size_t)used * SL_GRID_UNIT * (size_t)(g->bits - 1) * sizeof *g->moves};
}

static size_t up(size_t n)
{
    return (n + 255) / 256 * 256;
}

static int upload_grids(struct sl_gpu_device *d, struct sl_error *e)
{
    void *stream = NULL;
    size_t total = 0, at = 0;
    struct part p[PARTS];
    int rc;

    for (int id = 0; id < SL_GRID_COUNT; id++) {
        parts_of((enum sl_grid_id)id, p);
        for (int i = 0; i < PARTS; i++)
            total += up(p[i].bytes);
    }
    rc = d->api->alloc(total, &d->grids);
    if (rc == 0)
        rc = d->api->stream_new(&stream);
    for (int id = 0; id < SL_GRID_COUNT && rc == 0; id++) {
        const struct sl_grid *g = sl_grid_for_writing((enum sl_grid_id)id);
        void *place[PARTS];

        parts_of((enum sl_grid_id)id, p);
        for (int i = 0; i < PARTS; i++) {
            place[i] = (uint8_t *)d->grids + at;
            at += up(p[i].bytes);
            if (rc == 0)
                rc = d->api->copy_in(stream, place[i], p[i].from, p[i].bytes);
        }
        d->grid[id] = (struct sl_grid){g->bits, g->points, NULL, place[0], place[1], place[2]};
    }
    if (rc == 0)
        rc = d->api->wait(stream);
    if (stream)
        d->api->stream_free(stream);
    return rc ? sl_gpu_fail(d, rc, "uploading the grids", e) : 0;
}

int sl_gpu_open(const struct sl_gpu_api *api, int device, struct sl_gpu_device *out, struct sl_error *e)
{
    int n = sl_gpu_count(api), rc;

    memset(out, 0, sizeof *out);
    out->api = api;
    out->number = device;
    if (n == 0)
        return sl_fail(e, SL_EUNSUPPORTED, "cuda:%d: %s", device, sl_gpu_absence(api));
    if (device < 0 || device >= n)
        return sl_fail(e, SL_EUNSUPPORTED, "cuda:%d: there %s %d CUDA device%s here", device, n == 1 ? "is" : "are", n,
                       n == 1 ? "" : "s");
    rc = api->info(device, &out->info);
    if (rc == 0 && !sl_gpu_fits(&out->info))
        return sl_fail(e, SL_EUNSUPPORTED, "cuda:%d (%s): its compute capability is %d.%d, and 8.0 or later is needed", device,
                       out->info.name, out->info.major, out->info.minor);
    if (rc == 0)
        rc = api->use(device);
    if (rc)
        return sl_gpu_fail(out, rc, "opening it", e);
    rc = upload_grids(out, e);
    if (rc < 0)
        sl_gpu_close(out);
    return rc;
}

void sl_gpu_close(struct sl_gpu_device *d)
{
    if (d->grids) {
        d->api->use(d->number);
        d->api->release(d->grids);
    }
    d->grids = NULL;
}

int sl_gpu_quantize(const struct sl_gpu_device *d, const struct sl_gpu_work *w, size_t in_bytes, size_t w_floats,
                    uint32_t *status, struct sl_error *e)
{
    const struct sl_gpu_api *api = d->api;
    size_t out_bytes = sl_type_bytes(w->type, w->elems), rows = w->row ? w->elems / w->row + 1 : 1;
    size_t sizes[5] = {in_bytes, w_floats * sizeof(float), rows * sizeof(float), out_bytes, sizeof *status};
    enum sl_grid_id id = sl_gpu_grid_of(w->type);
    struct sl_gpu_work k = *w;
    void *p[5] = {NULL}, *stream = NULL;
    int rc = api->use(d->number);

    *status = 0;
    if (id != SL_GRID_COUNT)
        k.grid = d->grid[id];
    for (int i = 0; i < 5 && rc == 0; i++)
        rc = api->alloc(sizes[i] ? sizes[i] : 1, &p[i]);
    if (rc == 0)
        rc = api->stream_new(&stream);
    if (rc == 0)
        rc = api->copy_in(stream, p[0], w->in, in_bytes);
    if (rc == 0 && w_floats)
        rc = api->copy_in(stream, p[1], w->w, sizes[1]);
    if (rc == 0)
        rc = api->copy_in(stream, p[4], status, sizeof *status);
    k.in = p[0];
    k.w = p[1];
    k.means = p[2];
    k.out = p[3];
    k.status = p[4];
    if (rc == 0)
        rc = api->run(stream, &k);
    if (rc == 0)
        rc = api->copy_out(stream, w->out, k.out, out_bytes);
    if (rc == 0)
        rc = api->copy_out(stream, status, k.status, sizeof *status);
    if (rc == 0)
        rc = api->wait(stream);
    if (stream)
        api->stream_free(stream);
    for (int i = 0; i < 5; i++)
        if (p[i])
            api->release(p[i]);
    return rc ? sl_gpu_fail(d, rc, "quantizing", e) : 0;
}

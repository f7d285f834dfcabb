/* The general.* keys: recommended sampling, name, licence, origin. */
#ifndef SLUICE_PROTO_METADATA_GENERAL_H
#define SLUICE_PROTO_METADATA_GENERAL_H

#include "proto/gguf.h"
#include "proto/source_file.h"

struct cJSON;

struct sl_metadata_in {
    struct sl_source_dir dir;    /* with README.md and generation_config.json; its path may be NULL */
    const struct cJSON *config;  /* config.json; may be NULL */
    const char *model_name;      /* overrides general.name; NULL: found out */
    uint64_t total;              /* weights of the model */
    uint64_t shared;             /* of all tensors but the experts' */
    uint64_t expert, n_expert;   /* of one expert in every layer; experts */
};

/* Effect: appends the general.* keys that the converter of August 2026 writes
 * after general.type, in its order, from generation_config.json, the model
 * card, _name_or_path and the folder's name, in this order of rank. One that
 * cannot be understood counts as absent. *base_name = prefix for file
 * names, *model_name = general.name; both are the caller's (free). Errors:
 * SL_ESOURCE (a file that is there cannot be read, or the card names more than 500 models or data sets), SL_EFAIL (out of memory). */
int sl_metadata_general(const struct sl_metadata_in *in, struct sl_kvs *kvs, char **base_name,
                        char **model_name, struct sl_error *e) SL_MUST_USE;

#endif

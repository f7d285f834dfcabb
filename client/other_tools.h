/* What llama.cpp's and Hugging Face's tools are asked for, and Sluice is not: what to do instead. */
#ifndef SLUICE_CLIENT_OTHER_TOOLS_H
#define SLUICE_CLIENT_OTHER_TOOLS_H

/* Return one line without an end, static; NULL: nothing is known. option: with its dashes. */
const char *other_tools_verb(const char *name);
const char *other_tools_option(const char *verb, const char *option);

/* Returns an option's name here (without dashes) by that of convert_hf_to_gguf.py; name itself where that is not known. */
const char *other_tools_name(const char *name);

#endif

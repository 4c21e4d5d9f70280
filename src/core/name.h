/* SPDX-License-Identifier: MIT */
/* What other modules need to know of names beyond the public header. */
#ifndef ANTIPHON_CORE_NAME_H
#define ANTIPHON_CORE_NAME_H

#include <antiphon/name.h>

#include <stdbool.h>

/* 1 to APH_NAME_MAX letters, digits, `_` and `.`; `name` need not end with a NUL. */
bool aph_name_is_valid(const char *name, size_t len);

#endif

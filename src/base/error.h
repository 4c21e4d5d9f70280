/* SPDX-License-Identifier: MIT */
/* The text behind aph_error(): where an error is born, say what was tried and what to do about it. */
#ifndef ANTIPHON_BASE_ERROR_H
#define ANTIPHON_BASE_ERROR_H

#include <antiphon/api.h>

/* Keeps the text for this thread and returns `r`, a negative errno value. Leaves errno alone. */
APH_API __attribute__((format(printf, 2, 3), cold)) int aph_err(int r, const char *format, ...);

#endif

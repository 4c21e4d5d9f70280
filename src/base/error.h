/* SPDX-License-Identifier: MIT */
/*
 * The text behind aph_error(): where an error is born, say what was tried and what to do about it.
 */
#ifndef ANTIPHON_BASE_ERROR_H
#define ANTIPHON_BASE_ERROR_H

#include <antiphon/api.h>

#include <errno.h>

/* Keeps the text for this thread and returns `r`, a negative errno value. Leaves errno alone. */
APH_API __attribute__((format(printf, 2, 3), cold)) int aph_err(int r, const char *format, ...);

/* What to do about an errno of the system's, to be put behind its text. */
static inline const char *aph_advice(int e)
{
	switch (e) {
	case EMFILE:
		return "; raise the limit on open files (ulimit -n)";
	case ENFILE:
		return "; close some files of the system, or raise fs.file-max";
	case ENOSPC:
	case EDQUOT:
		return "; make room there";
	case ENOMEM:
	case ENOBUFS:
		return "; end something that takes memory, or raise the limits on it";
	default:
		return "";
	}
}

#endif

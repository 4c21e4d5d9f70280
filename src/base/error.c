/* SPDX-License-Identifier: MIT */
/* The text of the last failure, one per thread. */
#include "base/error.h"

#include <antiphon/error.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

static _Thread_local char text[512];

int aph_err(int r, const char *format, ...)
{
	int saved = errno;
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	errno = saved;
	return r;
}

const char *aph_error(void)
{
	return text[0] ? text : "no failure so far";
}

const char *aph_version(void)
{
	return APH_VERSION;
}

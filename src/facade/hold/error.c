/* SPDX-License-Identifier: MIT */
/* One sentence for each thread. */
#include "error.h"

#include <antiphon/error.h>
#include <antiphon/hold.h>

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char sentence[256] = "nothing has failed in this thread";

int hold_complain(int r, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)vsnprintf(sentence, sizeof(sentence), format, args);
	va_end(args);
	return r;
}

int hold_complain_aph(int r)
{
	return hold_complain(r, "%s", aph_error());
}

const char *aph_hold_error(void)
{
	return sentence;
}

/* SPDX-License-Identifier: MIT */
/*
 * Numbers for people. Each function writes into the caller's buffer and returns it.
 */
#ifndef ANTIPHON_CLI_FORMAT_H
#define ANTIPHON_CLI_FORMAT_H

#include <stdint.h>
#include <sys/types.h>

struct text {
	char s[40];
};

/* "0.83 us", "12.4 ms", "3.0 s" */
const char *format_duration(struct text *text, double ns);
/* "512 B", "1.5 MiB" */
const char *format_bytes(struct text *text, double bytes);
/* "950", "12.3 k", "4.10 M": for rates */
const char *format_rate(struct text *text, double value);
/* The name of a user or group where there is one, else the number; "-" for a negative one. */
const char *format_user(struct text *text, int64_t uid);
const char *format_group(struct text *text, int64_t gid);
/* Copies with every byte that could steer a terminal turned into '?'. */
const char *format_safe(struct text *text, const char *untrusted);

#endif

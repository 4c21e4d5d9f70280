/* SPDX-License-Identifier: MIT */
/*
 * Numbers for people.
 */
#include "format.h"

#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>

/* Three significant digits, so that a column is easy to compare by eye. */
static const char *scaled(struct text *text, double value, const char *unit)
{
	int digits = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;

	snprintf(text->s, sizeof(text->s), "%.*f%s", digits, value, unit);
	return text->s;
}

const char *format_duration(struct text *text, double ns)
{
	if (ns < 1e6)
		return scaled(text, ns / 1e3, " us");
	if (ns < 1e9)
		return scaled(text, ns / 1e6, " ms");
	return scaled(text, ns / 1e9, " s");
}

const char *format_bytes(struct text *text, double bytes)
{
	static const char *const units[] = { " KiB", " MiB", " GiB", " TiB" };
	size_t unit = 0;

	if (bytes < 1024) {
		snprintf(text->s, sizeof(text->s), "%.0f B", bytes);
		return text->s;
	}
	bytes /= 1024;
	while (bytes >= 1023.5 && unit < sizeof(units) / sizeof(units[0]) - 1) {
		bytes /= 1024;
		unit++;
	}
	return scaled(text, bytes, units[unit]);
}

const char *format_rate(struct text *text, double value)
{
	if (value < 999.5)
		return scaled(text, value, "");
	if (value < 999.5e3)
		return scaled(text, value / 1e3, " k");
	return scaled(text, value / 1e6, " M");
}

const char *format_user(struct text *text, int64_t uid)
{
	const struct passwd *user;

	if (uid < 0)
		return strcpy(text->s, "-");
	user = getpwuid((uid_t)uid);
	if (user != NULL && strlen(user->pw_name) < sizeof(text->s))
		return format_safe(text, user->pw_name);
	snprintf(text->s, sizeof(text->s), "%lld", (long long)uid);
	return text->s;
}

const char *format_group(struct text *text, int64_t gid)
{
	const struct group *group;

	if (gid < 0)
		return strcpy(text->s, "-");
	group = getgrgid((gid_t)gid);
	if (group != NULL && strlen(group->gr_name) < sizeof(text->s))
		return format_safe(text, group->gr_name);
	snprintf(text->s, sizeof(text->s), "%lld", (long long)gid);
	return text->s;
}

const char *format_safe(struct text *text, const char *untrusted)
{
	size_t i;

	for (i = 0; i < sizeof(text->s) - 1 && untrusted[i] != '\0'; i++) {
		unsigned char c = (unsigned char)untrusted[i];

		text->s[i] = c >= 0x20 && c < 0x7f ? (char)c : '?';
	}
	text->s[i] = '\0';
	return text->s;
}

/* SPDX-License-Identifier: MIT */
/* Addresses: `[caps:]NAME[,uid=U][,gid=G]` to struct aph_name and back. */
#include "base/error.h"
#include "core/name.h"

#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENTRY_LEAST ((size_t)4 << 10) /* of the databases of users and groups */
#define ENTRY_MOST  ((size_t)16 << 20)

bool aph_name_is_valid(const char *name, size_t len)
{
	size_t i;

	if (len < 1 || len > APH_NAME_MAX)
		return false;
	for (i = 0; i < len; i++) {
		/* Not isalnum(): a name must not depend on the locale. */
		char c = name[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		      c == '_' || c == '.'))
			return false;
	}
	return true;
}

/* -1 is no id to the kernel either: it means "leave as it is". */
static int parse_number(int64_t *out, const char *text)
{
	int64_t value = 0;

	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return -EINVAL;
		value = value * 10 + (*text - '0');
		if (value >= UINT32_MAX)
			return -EINVAL;
	}
	*out = value;
	return 0;
}

/*
 * Looks once, with so much room for what comes along with the id: 0, or what getpwnam_r() says; -1:
 * nobody.
 */
static int find_id(int64_t *out, const char *text, bool is_uid, char *buf, size_t size)
{
	struct passwd pw, *user = NULL;
	struct group gr, *group = NULL;
	int e = is_uid ? getpwnam_r(text, &pw, buf, size, &user)
		       : getgrnam_r(text, &gr, buf, size, &group);

	if (user)
		*out = pw.pw_uid;
	if (group)
		*out = gr.gr_gid;
	return e ? e : user || group ? 0 : -1;
}

static int lookup(int64_t *out, const char *text, bool is_uid)
{
	size_t size;
	int e = ERANGE;

	/* A group comes with the names of all its members. */
	for (size = ENTRY_LEAST; e == ERANGE && size <= ENTRY_MOST; size *= 4) {
		char *buf = malloc(size);

		if (!buf)
			return aph_err(-ENOMEM, "no memory to look '%s' up", text);
		e = find_id(out, text, is_uid, buf, size);
		free(buf);
	}
	if (e == 0)
		return 0;
	return aph_err(-ENOENT, "there is no %s '%s': give an existing name or a number",
		       is_uid ? "user" : "group", text);
}

static int parse_id(int64_t *out, const char *text, bool is_uid)
{
	if (*out != APH_ID_DEFAULT)
		return aph_err(-EINVAL, "%s is given twice: once is enough",
			       is_uid ? "uid" : "gid");
	if (!*text)
		return aph_err(-EINVAL, "%s= has no value: give a number, a name or 'any'",
			       is_uid ? "uid" : "gid");
	if (strcmp(text, "any") == 0) {
		*out = APH_ID_ANY;
		return 0;
	}
	if (isdigit((unsigned char)text[0])) {
		if (parse_number(out, text) < 0)
			return aph_err(-EINVAL, "'%s' is not a %s: it has to be below 4294967295",
				       text, is_uid ? "uid" : "gid");
		return 0;
	}
	return lookup(out, text, is_uid);
}

static int parse_part(struct aph_name *name, const char *part)
{
	if (strncmp(part, "uid=", 4) == 0)
		return parse_id(&name->uid, part + 4, true);
	if (strncmp(part, "gid=", 4) == 0)
		return parse_id(&name->gid, part + 4, false);
	return aph_err(-EINVAL,
		       "'%s' is not part of an address: after the name come ,uid=U and ,gid=G",
		       part);
}

/* Skips the scheme. What other libraries carry is told apart from what nobody carries. */
static int skip_scheme(const char **address)
{
	static const char *const others[] = { "srv:", "chan:" };
	size_t i;

	if (strncmp(*address, "caps:", 5) == 0) {
		*address += 5;
		return 0;
	}
	if (strncmp(*address, "rx:", 3) == 0)
		return aph_err(-EPROTONOSUPPORT,
			       "'%s' is not the name of a service on this host, as caps:NAME is",
			       *address);
	for (i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		if (strncmp(*address, others[i], strlen(others[i])) == 0)
			return aph_err(
				-EPROTONOSUPPORT,
				"addresses that begin with '%s' are not supported yet: use caps:NAME or "
				"rx:HOST:PORT/SERVICE",
				others[i]);
	}
	return 0;
}

int aph_name_parse(struct aph_name *out, const char *address)
{
	struct aph_name name = { .uid = APH_ID_DEFAULT, .gid = APH_ID_DEFAULT };
	char buf[APH_ADDRESS_MAX + 1];
	char *part, *rest = buf;
	int r;

	if (!address)
		return aph_err(-EINVAL, "no address: give one such as caps:echo");
	if (strlen(address) > APH_ADDRESS_MAX)
		return aph_err(-EINVAL, "the address is longer than %d bytes", APH_ADDRESS_MAX);
	r = skip_scheme(&address);
	if (r < 0)
		return r;
	memcpy(buf, address, strlen(address) + 1);

	part = strsep(&rest, ",");
	if (!aph_name_is_valid(part, strlen(part)))
		return aph_err(
			-EINVAL,
			"'%s' is not a name: use 1 to %d letters, digits, '_' and '.', as in caps:echo",
			part, APH_NAME_MAX);
	memcpy(name.name, part, strlen(part) + 1);
	while ((part = strsep(&rest, ","))) {
		r = parse_part(&name, part);
		if (r < 0)
			return r;
	}
	*out = name;
	return 0;
}

static void append_id(char *buf, size_t size, const char *key, int64_t id)
{
	size_t used = strlen(buf);

	if (id == APH_ID_ANY)
		(void)snprintf(buf + used, size - used, ",%s=any", key);
	else if (id != APH_ID_DEFAULT)
		(void)snprintf(buf + used, size - used, ",%s=%lld", key, (long long)id);
}

int aph_name_format(const struct aph_name *name, char *buf, size_t size)
{
	char text[APH_ADDRESS_MAX + 1];

	(void)snprintf(text, sizeof(text), "caps:%.*s", APH_NAME_MAX, name->name);
	append_id(text, sizeof(text), "uid", name->uid);
	append_id(text, sizeof(text), "gid", name->gid);
	if (strlen(text) >= size)
		return aph_err(-ENOSPC, "the address does not fit into %zu bytes", size);
	memcpy(buf, text, strlen(text) + 1);
	return 0;
}

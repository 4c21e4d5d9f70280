/* SPDX-License-Identifier: MIT */
/*
 * Names: where a service is met.
 *
 * A local name is the triple (name, uid, gid), written `caps:NAME[,uid=U][,gid=G]`, or just `NAME`.
 *
 *   uid, gid given      U or G is a number, or the name of a user or group
 *   uid=any, gid=any    for a client: whoever serves it; for a service: not found by searches for
 *                       an id
 *   uid not given       for a client: served by the caller's own effective user, else by root;
 *                       for a service: the caller's effective user
 *   gid not given       for a client: any; for a service: none
 *
 * A name proves who serves it: the kernel says who listens, and a service found under uid=U is run
 * by U or by root. Nobody else can take the name.
 */
#ifndef ANTIPHON_NAME_H
#define ANTIPHON_NAME_H

#include <antiphon/api.h>

APH_BEGIN_DECLS

#define APH_NAME_MAX	63  /* bytes of a name, without the NUL: letters, digits, `_` and `.` */
#define APH_ADDRESS_MAX 127 /* bytes of a written address, without the NUL */

#define APH_ID_ANY     INT64_C(-1) /* see above */
#define APH_ID_DEFAULT INT64_C(-2) /* not given */

struct aph_name {
	char name[APH_NAME_MAX + 1];
	int64_t uid; /* a uid, APH_ID_ANY or APH_ID_DEFAULT */
	int64_t gid; /* a gid, APH_ID_ANY or APH_ID_DEFAULT */
};

/*
 * Reads an address. 0, or -EINVAL (not well formed), -ENOENT (no such user or group),
 * -EPROTONOSUPPORT (a scheme that this build does not carry), -ENOMEM; aph_error() says which part.
 * Any thread.
 */
APH_API int aph_name_parse(struct aph_name *out, const char *address);

/* Writes the address of `name` into `buf`. 0, or -ENOSPC when `size` is too small. Any thread. */
APH_API int aph_name_format(const struct aph_name *name, char *buf, size_t size);

APH_END_DECLS

#endif

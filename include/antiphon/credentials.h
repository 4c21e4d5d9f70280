/* SPDX-License-Identifier: MIT */
/*
 * Credentials: who is at the other end of a channel, as the kernel says. They are taken when the
 * channel is opened and do not change in its life: a process that later changes its user keeps
 * calling as who it was when it connected. A service that another process has taken over is that
 * process from then on.
 */
#ifndef ANTIPHON_CREDENTIALS_H
#define ANTIPHON_CREDENTIALS_H

#include <antiphon/api.h>

APH_BEGIN_DECLS

struct aph_credentials {
	pid_t pid;
	uid_t uid; /* real */
	uid_t euid;
	gid_t gid; /* real */
	gid_t egid;
	size_t n_groups;
	const gid_t *groups; /* supplementary; borrowed, lives as long as the channel */
	const char *label; /* security label where the kernel has one, else ""; borrowed likewise */
};

APH_END_DECLS

#endif

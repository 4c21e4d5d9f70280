/* SPDX-License-Identifier: MIT */
/*
 * The runtime directory: which services there are, and how they do. For tools; calls do not need
 * it.
 */
#ifndef ANTIPHON_DIRECTORY_H
#define ANTIPHON_DIRECTORY_H

#include <antiphon/name.h>

APH_BEGIN_DECLS

struct aph_service_info {
	/*
	 * uid and gid as registered; APH_ID_ANY where there is none. A service of other hosts'
	 * calls has its address for a name: `rx:127.0.0.1:7009/147`.
	 */
	struct aph_name name;
	uid_t owner;	     /* who runs it */
	pid_t pid;	     /* 0 when the caller may not know */
	char program[16];    /* the process's name, "" when the caller may not know */
	int has_stats;	     /* the rest is known: the service let us ask and answered in time */
	uint64_t channels;   /* open now */
	uint64_t calls;	     /* received since it began */
	uint64_t calls_open; /* received and not ended */
	uint64_t ended_disposed;
	uint64_t ended_aborted; /* aborted or refused by the service */
	uint64_t ended_gone;
	uint64_t violations;	/* channels ended for breaking the protocol */
	uint64_t sampled_calls; /* calls whose service time was taken: a sample of all */
	/* The sum of their service times, from receipt to the end of the reply. */
	uint64_t sampled_ns;
	uint64_t latency
		[40]; /* of the sampled: how many took less than 2^i ns and at least 2^(i-1) */
};

/*
 * Lists the services of the runtime directories that the caller can see, newest first within a
 * name, and this host's services at addresses of RxRPC, which show themselves there. A service that
 * does not answer by `deadline_ns` is listed without figures. `*list` is the caller's, to be freed
 * with free(3). 0 (`*n` is 0 where there is no runtime directory, so that nobody serves anything),
 * -EACCES or -ENOTDIR (it is not usable), -EMFILE, -ENOMEM.
 */
APH_API int aph_directory_list(struct aph_service_info **list, size_t *n, uint64_t deadline_ns);

/*
 * The directory in which services of this process register, made if it has to be. 0, -ENOENT,
 * -EACCES, -ENOTDIR, -EMFILE, -ENAMETOOLONG; aph_error() says what to do.
 */
APH_API int aph_directory_path(char *buf, size_t size);

APH_END_DECLS

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Who is at the other end of a request's connection, as the kernel says; asked for only if wanted.
 */
#include "server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

#define LABEL_MAX 4096u

static int read_groups(struct aph_afdt_request *request)
{
	socklen_t len = 0;
	gid_t none;

	if (getsockopt(request->watch.fd, SOL_SOCKET, SO_PEERGROUPS, &none, &len) == 0 ||
	    errno != ERANGE)
		return 0; /* none, or a kernel that does not say */
	request->groups = malloc(len);
	if (!request->groups)
		return -ENOMEM;
	if (getsockopt(request->watch.fd, SOL_SOCKET, SO_PEERGROUPS, request->groups, &len) < 0)
		return -errno;
	request->credentials.groups = request->groups;
	request->credentials.n_groups = len / sizeof(gid_t);
	return 0;
}

static int read_label(struct aph_afdt_request *request)
{
	char label[LABEL_MAX];
	socklen_t len = sizeof(label) - 1;

	request->credentials.label = "";
	if (getsockopt(request->watch.fd, SOL_SOCKET, SO_PEERSEC, label, &len) < 0 || len == 0)
		return 0;
	label[len] = 0;
	request->label = strdup(label);
	if (!request->label)
		return -ENOMEM;
	request->credentials.label = request->label;
	return 0;
}

APH_API int aph_afdt_request_credentials(struct aph_afdt_request *request,
					 const struct aph_credentials **out)
{
	struct ucred ucred;
	socklen_t len = sizeof(ucred);
	int r;

	if (!request->has_credentials) {
		if (getsockopt(request->watch.fd, SOL_SOCKET, SO_PEERCRED, &ucred, &len) < 0)
			return -errno;
		free(request->groups);
		free(request->label);
		request->groups = NULL;
		request->label = NULL;
		request->credentials = (struct aph_credentials){
			.pid = ucred.pid,
			.uid = ucred.uid,
			.euid = ucred.uid,
			.gid = ucred.gid,
			.egid = ucred.gid,
		};
		r = read_groups(request);
		if (r == 0)
			r = read_label(request);
		if (r < 0)
			return r;
		request->has_credentials = true;
	}
	*out = &request->credentials;
	return 0;
}

APH_API int aph_afdt_request_pidfd(struct aph_afdt_request *request)
{
	const struct aph_credentials *credentials = NULL;
	socklen_t len = sizeof(int);
	int fd, r;

	if (getsockopt(request->watch.fd, SOL_SOCKET, SO_PEERPIDFD, &fd, &len) == 0)
		return fd;
	if (errno != ENOPROTOOPT)
		return -errno;
	/* A kernel before 6.5. The process is not gone as long as its connection is not. */
	r = aph_afdt_request_credentials(request, &credentials);
	if (r < 0 || !credentials)
		return r;
	fd = (int)syscall(SYS_pidfd_open, credentials->pid, 0);
	return fd < 0 ? -errno : fd;
}

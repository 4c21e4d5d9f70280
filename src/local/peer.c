/* SPDX-License-Identifier: MIT */
/* Who is at the other end of a socket, as the kernel says. */
#include "base/error.h"
#include "local/local.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

#define LABEL_MAX 4096u

static int read_groups(struct aph_channel *channel, int sock)
{
	socklen_t len = 0;
	gid_t *groups, none;

	if (getsockopt(sock, SOL_SOCKET, SO_PEERGROUPS, &none, &len) == 0 || errno != ERANGE)
		return 0; /* none, or a kernel that does not say */
	groups = malloc(len);
	if (!groups)
		return -ENOMEM;
	if (getsockopt(sock, SOL_SOCKET, SO_PEERGROUPS, groups, &len) < 0) {
		free(groups);
		return 0;
	}
	channel->groups = groups;
	channel->peer.groups = groups;
	channel->peer.n_groups = len / sizeof(gid_t);
	return 0;
}

static int read_label(struct aph_channel *channel, int sock)
{
	char label[LABEL_MAX];
	socklen_t len = sizeof(label) - 1;

	channel->peer.label = "";
	if (getsockopt(sock, SOL_SOCKET, SO_PEERSEC, label, &len) < 0 || len == 0)
		return 0;
	label[len] = '\0';
	channel->label = strdup(label);
	if (!channel->label)
		return -ENOMEM;
	channel->peer.label = channel->label;
	return 0;
}

int aph_local_peer_credentials(struct aph_channel *channel, int sock)
{
	struct ucred ucred;
	socklen_t len = sizeof(ucred);
	int r;

	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &ucred, &len) < 0)
		return aph_err(-errno, "cannot tell who is at the other end of a socket");
	free(channel->groups);
	free(channel->label);
	channel->groups = NULL;
	channel->label = NULL;
	channel->peer = (struct aph_credentials){
		.pid = ucred.pid,
		.uid = ucred.uid,
		.euid = ucred.uid,
		.gid = ucred.gid,
		.egid = ucred.gid,
	};
	r = read_groups(channel, sock);
	if (r == 0)
		r = read_label(channel, sock);
	return r;
}

bool aph_local_is_in_group(const struct aph_credentials *who, int64_t gid)
{
	size_t i;

	if ((int64_t)who->egid == gid)
		return true;
	for (i = 0; i < who->n_groups; i++) {
		if ((int64_t)who->groups[i] == gid)
			return true;
	}
	return false;
}

bool aph_local_has_left(const struct aph_local_channel *lc)
{
	struct pollfd poller = { .fd = lc->sock, .events = POLLRDHUP };

	return poll(&poller, 1, 0) > 0 && (poller.revents & (POLLRDHUP | POLLHUP));
}

int aph_local_pidfd(struct aph_channel *channel)
{
	struct aph_local_channel *lc = aph_local_channel(channel);
	socklen_t len = sizeof(int);
	int fd;

	/*
	 * At a client the socket names the process that called listen(); the one that answers is
	 * known by the pid of its first message alone.
	 */
	if (lc->sock >= 0 && !channel->is_client &&
	    getsockopt(lc->sock, SOL_SOCKET, SO_PEERPIDFD, &fd, &len) == 0)
		return fd;
	/* Who has taken the service over has said so here, if nobody has looked yet. */
	if (channel->state == APH_CHANNEL_OPEN && channel->is_client)
		(void)aph_local_read_socket(lc);
	if (channel->state == APH_CHANNEL_ENDED)
		return aph_err(-ESRCH, "the process at the other end has gone");
	fd = (int)syscall(SYS_pidfd_open, channel->peer.pid, 0);
	if (fd < 0)
		return aph_err(-errno, "no pidfd of process %d: %s", (int)channel->peer.pid,
			       strerror(errno));
	/* Who has died in between may have left its pid to another; its end of the socket tells. */
	if (aph_local_has_left(lc)) {
		(void)close(fd);
		return aph_err(-ESRCH, "the process at the other end has gone");
	}
	return fd;
}

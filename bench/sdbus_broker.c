/* SPDX-License-Identifier: MIT */
/*
 * dbus-broker takes its listening sockets and its policy from a controller, over a socket pair that
 * it inherits. This is the least controller there can be.
 */
#include "sdbus_broker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#define BROKER "/usr/bin/dbus-broker"

/*
 * A policy is: what holds per uid, what holds per gid and uid range, SELinux names, and AppArmor. A
 * batch is: may connect, and the verdicts on owning names, on sending and on receiving, each with
 * its priority.
 */
#define VERDICTS "bta(btbs)a(btssssuutt)a(btssssuutt)"
#define POLICY	 "(a(u(" VERDICTS "))a(buu(" VERDICTS "))a(ss)bs)"

bool sdbus_have_broker(void)
{
	return access(BROKER, X_OK) == 0;
}

static int spawn(struct bench_job *job, int control)
{
	char fd[16];
	pid_t pid = bench_fork(job, job->c.place == BENCH_ONE_CORE ? job->cpus[0] : -1);

	if (pid == 0) {
		fcntl(control, F_SETFD, 0);
		snprintf(fd, sizeof fd, "%d", control);
		execl(BROKER, BROKER, "--controller", fd, "--machine-id",
		      "0123456789abcdef0123456789abcdef", "--max-bytes", "1000000000", "--max-fds",
		      "100000", "--max-objects", "100000", (char *)NULL);
		_exit(127);
	}
	if (pid > 0)
		job->charged[job->n_charged++] = pid;
	return pid < 0 ? -errno : 0;
}

static int add_listener(sd_bus *bus, int listener)
{
	const uint64_t priority = 1, any_min = 0, any_max = UINT64_MAX;
	const uint32_t all_users = UINT32_MAX, any_type = 0, any_broadcast = 0;
	sd_bus_message *m = NULL;
	int r = sd_bus_message_new_method_call(bus, &m, NULL, "/org/bus1/DBus/Broker",
					       "org.bus1.DBus.Broker", "AddListener");

	if (r >= 0)
		r = sd_bus_message_append(m, "ohv", "/org/bus1/DBus/Listener/0", listener, POLICY,
					  /* one batch, for all users: may connect */
					  1, all_users, 1, priority,
					  /* may own every name (an empty prefix) */
					  1, 1, priority, 1, "",
					  /* may send and receive everything */
					  1, 1, priority, "", "", "", "", any_type, any_broadcast,
					  any_min, any_max, 1, 1, priority, "", "", "", "",
					  any_type, any_broadcast, any_min, any_max,
					  /* nothing per group, nothing for SELinux and AppArmor */
					  0, 0, 0, "");
	if (r >= 0)
		r = sd_bus_call(bus, m, 0, NULL, NULL);
	sd_bus_message_unref(m);
	return r;
}

int sdbus_start_broker(struct bench_job *job)
{
	int listener, pair[2], r;
	char path[128];
	sd_bus *bus;

	snprintf(path, sizeof path, "%s%s", job->address, SDBUS_BROKER_SUFFIX);
	listener = bench_listen(path, SOCK_STREAM | SOCK_NONBLOCK);
	if (listener < 0)
		return listener;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	r = spawn(job, pair[1]);
	close(pair[1]);
	if (r < 0 || (r = sd_bus_new(&bus)) < 0)
		return r;
	/* The broker ends with the connection to its controller, so it stays open. */
	if ((r = sd_bus_set_fd(bus, pair[0], pair[0])) < 0 || (r = sd_bus_start(bus)) < 0)
		return r;
	return add_listener(bus, listener);
}

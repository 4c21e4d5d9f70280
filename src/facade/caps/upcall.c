/* SPDX-License-Identifier: MIT */
/*
 * Telling a program that a port has something to retrieve: by an eventfd of its own, by a
 * descriptor of ours, or by calling a function on the attendant.
 *
 * What an upcid is: 0 and -1 are nothing, which is what programs pass that were written when the
 * argument had no effect; small numbers are descriptors; numbers from FIRST_ID up stand for
 * functions.
 */
#include "port.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define FIRST_ID 0x40000000
#define N_IDS	 0x10000

struct registration {
	caps_upcall_t function; /* NULL: free */
	void *arg;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct registration *registrations;
static int n_registrations;

void aph_caps_upcall_lock(void)
{
	(void)pthread_mutex_lock(&lock);
}

void aph_caps_upcall_unlock(void)
{
	(void)pthread_mutex_unlock(&lock);
}

/* -- upcids ------------------------------------------------------------------------------------ */

APH_API int caps_upcall_function(caps_upcall_t function, void *arg)
{
	struct registration *grown;
	int i, id = -1;

	if (!function)
		return aph_caps_fail(-EINVAL);
	(void)pthread_mutex_lock(&lock);
	for (i = 0; i < n_registrations && registrations[i].function; i++)
		;
	if (i == n_registrations && i < N_IDS) {
		grown = realloc(registrations, (size_t)(i + 1) * sizeof(*registrations));
		if (grown) {
			registrations = grown;
			n_registrations++;
		}
	}
	if (i < n_registrations) {
		registrations[i] = (struct registration){ function, arg };
		id = FIRST_ID + i;
	}
	(void)pthread_mutex_unlock(&lock);
	return id < 0 ? aph_caps_fail(-ENOMEM) : id;
}

/* The registration behind an id, with the lock held, or NULL. */
static struct registration *find(int upcid)
{
	int i = upcid - FIRST_ID;

	return upcid >= FIRST_ID && i < n_registrations && registrations[i].function
		       ? &registrations[i]
		       : NULL;
}

APH_API int caps_upcall_release(int upcid)
{
	struct registration *registration;

	(void)pthread_mutex_lock(&lock);
	registration = find(upcid);
	if (registration)
		registration->function = NULL;
	(void)pthread_mutex_unlock(&lock);
	return registration ? 0 : aph_caps_fail(-EINVAL);
}

/*
 * Whether a descriptor is an eventfd. Where the kernel cannot be asked, the caller is believed; a
 * wrong one would get eight bytes written to it.
 */
static bool is_eventfd(int fd)
{
	char path[32], target[32] = "";

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (readlink(path, target, sizeof(target) - 1) < 0)
		return fcntl(fd, F_GETFD) >= 0 && access("/proc/self/fd", F_OK) < 0;
	return strcmp(target, "anon_inode:[eventfd]") == 0;
}

int aph_caps_upcall_init(struct aph_caps_upcall *upcall, int upcid)
{
	struct registration *registration;
	int e = 0;

	*upcall = (struct aph_caps_upcall){ .fd = -1 };
	if (upcid == 0 || upcid == -1)
		return 0;
	if (upcid < 0)
		return EINVAL;
	if (upcid < FIRST_ID) {
		if (!is_eventfd(upcid))
			return EINVAL;
		upcall->fd = fcntl(upcid, F_DUPFD_CLOEXEC, 3);
		return upcall->fd < 0 ? errno : 0;
	}
	(void)pthread_mutex_lock(&lock);
	registration = find(upcid);
	if (registration) {
		upcall->function = registration->function;
		upcall->arg = registration->arg;
	} else {
		e = EINVAL;
	}
	(void)pthread_mutex_unlock(&lock);
	return e;
}

void aph_caps_upcall_deinit(struct aph_caps_upcall *upcall)
{
	if (upcall->fd >= 0)
		(void)close(upcall->fd);
	*upcall = (struct aph_caps_upcall){ .fd = -1 };
}

/* -- telling ----------------------------------------------------------------------------------- */

bool aph_caps_upcall_wanted(const struct aph_caps_port *port)
{
	return port->own_fd >= 0 || port->upcall.fd >= 0 || port->upcall.function;
}

static void raise_fd(int fd)
{
	static const uint64_t one = 1;

	(void)!write(fd, &one, sizeof(one));
}

void aph_caps_upcall_tell(struct aph_caps_port *port)
{
	bool any = !aph_caps_link_empty(&port->ready), news = any && port->fresh;
	uint64_t count;

	port->fresh = false;
	if (news && port->upcall.fd >= 0)
		raise_fd(port->upcall.fd);
	if (news && port->upcall.function && !port->upcall_due) {
		port->upcall_due = true;
		aph_caps_ring(&port->attention, 1);
	}
	if (port->own_fd < 0 || any == port->own_raised)
		return;
	if (any)
		raise_fd(port->own_fd);
	else
		(void)!read(port->own_fd, &count, sizeof(count));
	port->own_raised = any;
}

APH_API int caps_upcall_fd(int number)
{
	struct aph_caps_port *port = aph_caps_port_lock(number);
	int fd, e = 0;

	if (!port)
		return -1;
	if (port->own_fd < 0) {
		port->own_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		port->own_raised = false;
		e = port->own_fd < 0 ? errno : aph_caps_attend(port);
		if (e && port->own_fd >= 0) {
			(void)close(port->own_fd); /* nobody would raise it */
			port->own_fd = -1;
		}
		/* One that only serves has to begin to take events. */
		if (port->receiver == APH_CAPS_ATTENDANT)
			(void)aph_endpoint_wake(port->ep);
	}
	fd = port->own_fd;
	aph_caps_leave(port);
	aph_caps_port_unlock(port);
	return e ? aph_caps_fail(-e) : fd;
}

/* SPDX-License-Identifier: MIT */
/*
 * The driver as its user sees it: opening, closing, and what it fills in for the engine.
 */
#include "udp/udp.h"
#include "base/error.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define SPIN_MAX_US 25
#define SPIN_FAR_US 400 /* where wake-ups are slow */
#define EPOCH_TRIES 8

static void *default_alloc(void *arg, size_t size)
{
	(void)arg;
	return malloc(size);
}

static void default_free(void *arg, void *memory, size_t size)
{
	(void)arg;
	(void)size;
	free(memory);
}

static void default_random(void *arg, void *out, size_t len)
{
	char *bytes = out;

	(void)arg;
	while (len) {
		ssize_t n = getrandom(bytes, len, 0);

		/* Without it nothing the engine promises holds; no kernel we run on lacks it. */
		if (n < 0 && errno != EINTR)
			abort();
		if (n > 0) {
			bytes += n;
			len -= (size_t)n;
		}
	}
}

static unsigned n_cpus(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : UINT_MAX;
}

static int check(const struct aph_rx_udp_options *options)
{
	const struct aph_rx_config *config = options->config;
	sa_family_t family = options->local.family;

	if (options->size != sizeof(*options))
		return aph_err(-EINVAL,
			       "UDP options of an unknown size: set size to sizeof *options");
	if (config && config->size != sizeof(*config))
		return aph_err(
			-EINVAL,
			"an engine's configuration of an unknown size: set size to its sizeof");
	if (config && !config->alloc != !config->free)
		return aph_err(-EINVAL, "give both alloc and free, or neither");
	if (!options->lock != !options->unlock)
		return aph_err(-EINVAL, "give both lock and unlock, or neither");
	if (family != AF_UNSPEC && family != AF_INET && family != AF_INET6)
		return aph_err(-EAFNOSUPPORT, "address family %d is neither IPv4 nor IPv6", family);
	return 0;
}

static int new_engine(struct aph_rx_udp *udp, const struct aph_rx_config *given)
{
	struct aph_rx_config config = { .size = sizeof(config) };

	if (given)
		config = *given;
	if (!config.alloc) {
		config.alloc = default_alloc;
		config.free = default_free;
	}
	if (!config.random)
		config.random = default_random;
	if (udp->has_segment)
		config.flags |= APH_RX_SEGMENTS;
	/* Probes need options of the socket for a moment, and other processes use it too. */
	if (udp->port && udp->port->is_attached)
		config.flags |= APH_RX_NO_PMTU_PROBES;
	udp->budget_asked = config.receive_budget;
	if (config.receive_budget && config.receive_budget < udp->budget_max)
		udp->budget = udp->budget_max = config.receive_budget;
	config.receive_budget = udp->budget;
	return aph_rx_new(&udp->rx, &config, aph_rx_udp_now());
}

/*
 * Engines of one port are told apart by their epochs: chosen at random, two are the same once in a
 * long time.
 */
static int enter_port(struct aph_rx_udp *udp, const struct aph_rx_config *config)
{
	int r = aph_udp_port_enter(udp);

	for (int i = 0; r == -EEXIST && i < EPOCH_TRIES; i++) {
		udp->rx = aph_rx_free(udp->rx);
		r = new_engine(udp, config);
		if (r == 0)
			r = aph_udp_port_enter(udp);
	}
	if (r == -ETIMEDOUT)
		return aph_err(-EADDRINUSE, "the process that has the port does not answer");
	return r < 0 ? aph_err(r, "cannot enter a shared UDP port") : 0;
}

int aph_rx_udp_open(struct aph_rx_udp **out, const struct aph_rx_udp_options *options)
{
	struct aph_rx_udp_options defaults = { .size = sizeof(defaults) };
	uint32_t spin_us = SPIN_MAX_US, far_us = SPIN_FAR_US;
	struct aph_rx_udp *udp;
	int r;

	options = options ? options : &defaults;
	r = check(options);
	if (r < 0)
		return r;
	udp = calloc(1, sizeof(*udp));
	if (!udp)
		return aph_err(-ENOMEM, "no memory for a UDP driver");
	if (options->spin_max_us) {
		spin_us = options->spin_max_us == UINT32_MAX ? 0 : options->spin_max_us;
		far_us = 0;
	}
	aph_udp_spin_init(&udp->spin, spin_us * UINT64_C(1000), far_us * UINT64_C(1000), n_cpus());
	udp->lock = options->lock;
	udp->unlock = options->unlock;
	udp->lock_arg = options->lock_arg;
	udp->fd = udp->event_fd = udp->epoll_fd = udp->timer_fd = udp->member.fd = -1;
	udp->lines[0].fd = udp->lines[1].fd = -1;
	udp->keeps = options->flags & APH_RX_UDP_KEEP;
	aph_udp_register(udp);
	r = options->flags & APH_RX_UDP_SHARE ? aph_udp_port_join(udp, options)
					      : aph_udp_socket_open(udp, options);
	if (r == 0)
		r = new_engine(udp, options->config);
	if (r == 0 && udp->port)
		r = enter_port(udp, options->config);
	if (r == 0)
		r = aph_udp_inbox_init(udp);
	if (r < 0) {
		(void)aph_rx_udp_close(udp);
		return r;
	}
	aph_udp_lines_open(udp);
	*out = udp;
	return 0;
}

struct aph_rx_udp *aph_rx_udp_close(struct aph_rx_udp *udp)
{
	if (!udp)
		return NULL;
	aph_udp_unregister(udp);
	if (udp->rx) {
		aph_udp_inbox_deinit(udp);
		if (!udp->forked)
			(void)aph_udp_send(udp, aph_rx_udp_now());
		(void)aph_rx_free(udp->rx);
	}
	if (udp->port && (!udp->forked || udp->port->keeps)) {
		aph_udp_port_leave(udp, udp->forked);
		aph_udp_queue_free(udp);
	}
	aph_udp_socket_close(udp);
	free(udp);
	return NULL;
}

struct aph_rx *aph_rx_udp_engine(struct aph_rx_udp *udp)
{
	return udp->rx;
}

int aph_rx_udp_address(const struct aph_rx_udp *udp, struct aph_rx_address *out)
{
	*out = udp->local;
	return 0;
}

int aph_udp_check(const struct aph_rx_udp *udp)
{
	if (udp->forked)
		return aph_err(-ENOTCONN, "this UDP driver belongs to the parent process: open "
					  "another one after fork()");
	return 0;
}

int aph_rx_udp_flush(struct aph_rx_udp *udp)
{
	int r = aph_udp_check(udp);
	bool is_awake;

	if (r < 0)
		return r;
	is_awake = atomic_load_explicit(&udp->place, memory_order_relaxed) == APH_UDP_AWAKE;
	if (!is_awake)
		aph_udp_spin_note_other(&udp->spin);
	r = aph_udp_send(udp, aph_rx_udp_now());
	/* Else whoever sleeps there receives, and so reads them. */
	if (udp->errors_there && is_awake)
		aph_udp_read_all(udp, aph_rx_udp_now());
	aph_udp_update(udp);
	return r;
}

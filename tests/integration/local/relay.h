/* SPDX-License-Identifier: MIT */
/* Services that take over from one another, for the tests of that. */
#ifndef TESTS_LOCAL_RELAY_H
#define TESTS_LOCAL_RELAY_H

#include "service.h"

#include <time.h>

static inline void nap_ms(int ms)
{
	struct timespec nap = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	nanosleep(&nap, NULL);
}

/* A service that may be taken over, and takes over what is there. */
static inline struct service_config relay(unsigned flags)
{
	return (struct service_config){ .address = "relay",
					.end_on_terminate = true,
					.options.flags = APH_SERVICE_GIVE | flags };
}

/* It ends when it is asked to. */
static inline void relay_first(struct service *service, unsigned flags)
{
	struct service_config config = relay(flags);

	service_start(service, SERVICE_PROCESS, &config);
}

static inline void relay_next(struct service *service, unsigned flags)
{
	struct service_config config = relay(flags | APH_SERVICE_TAKE);

	service_start(service, SERVICE_PROCESS, &config);
}

/* It goes on until it is stopped. */
static inline void relay_patient(struct service *service, unsigned flags)
{
	struct service_config config = relay(flags);

	config.end_on_terminate = false;
	service_start(service, SERVICE_PROCESS, &config);
}

#endif

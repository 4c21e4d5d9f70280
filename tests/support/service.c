/* SPDX-License-Identifier: MIT */
/*
 * The loop of the test service and its life as process or thread. What it does for each request is
 * in work.c.
 */
#include "service.h"

#include "check.h"
#include "fds.h"
#include "work.h"

#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* For the signal handler of a service process. */
static struct service *the_service;

static void on_term(int signal)
{
	(void)signal;
	atomic_store(&the_service->stop, true);
	aph_endpoint_wake(the_service->ep);
}

static void handle(struct service *service, const struct aph_event *ev)
{
	struct service_seen *seen = service->seen;

	CHECK(ev->service == service->handle);
	switch (ev->type) {
	case APH_EVENT_REQUEST:
		seen->requests++;
		work_begin(service, ev->call);
		break;
	case APH_EVENT_READABLE:
		seen->readable++;
		work_step(aph_call_data(ev->call));
		break;
	case APH_EVENT_WRITABLE:
		seen->writable++;
		work_step(aph_call_data(ev->call));
		break;
	case APH_EVENT_SIGNAL:
		seen->signal_code = (uint32_t)ev->result.code;
		seen->signals++;
		break;
	case APH_EVENT_END:
		if (ev->result.outcome == APH_DISPOSED) {
			seen->disposed++;
		} else if (ev->result.outcome == APH_ABORTED || ev->result.outcome == APH_REFUSED) {
			seen->own_ends++;
		} else {
			CHECK(ev->result.outcome == APH_GONE);
			seen->gone++;
			seen->gone_for[ev->result.reason & 15]++;
		}
		work_end(aph_call_data(ev->call));
		break;
	case APH_EVENT_CONNECT:
		seen->connects++;
		CHECK(aph_channel_data(ev->channel) == NULL);
		aph_channel_set_data(ev->channel, service);
		break;
	case APH_EVENT_DISCONNECT:
		seen->disconnects++;
		CHECK(aph_channel_data(ev->channel) == service);
		aph_channel_close(ev->channel);
		break;
	case APH_EVENT_TERMINATE:
		seen->terminates++;
		if (service->config.end_on_terminate)
			atomic_store(&service->stop, true);
		break;
	default:
		fprintf(stderr, "a service got %s\n", aph_event_name(ev->type));
		abort();
	}
}

/* One event at a time through poll(), as a foreign loop would do it. */
static int next_by_fd(struct service *service, struct aph_event *ev)
{
	struct pollfd poller = { .events = POLLIN };

	poller.fd = (int)CHECK_OK(aph_endpoint_fd(service->ep));
	if (poll(&poller, 1, -1) < 0)
		return -errno;
	return aph_endpoint_next(service->ep, ev, APH_NOW);
}

static void loop(struct service *service)
{
	struct aph_event ev;
	int r;

	while (!atomic_load(&service->stop)) {
		if (service->config.by_fd)
			r = next_by_fd(service, &ev);
		else
			r = aph_endpoint_next(service->ep, &ev, APH_FOREVER);
		if (r == -EINTR || r == -ECANCELED || r == -EAGAIN)
			continue;
		CHECK_OK(r);
		handle(service, &ev);
	}
}

int service_turn(struct service *service, int max)
{
	struct aph_event ev;
	int n = 0, r = 0;

	while (n < max && (r = aph_endpoint_next(service->ep, &ev, APH_NOW)) == 0) {
		handle(service, &ev);
		n++;
	}
	CHECK(r == 0 || r == -EAGAIN);
	return n;
}

static int open_service(struct service *service)
{
	struct aph_endpoint_options options = { .size = sizeof(options) };
	int r;

	options.spin_max_us = service->config.spin_max_us;
	r = aph_endpoint_new(&service->ep, &options);
	if (r < 0)
		return r;
	service->config.options.size = sizeof(service->config.options);
	service->config.options.data = service;
	r = aph_service_open(&service->handle, service->ep, service->config.address,
			     &service->config.options);
	if (r < 0)
		return r;
	CHECK(aph_service_data(service->handle) == service);
	return 0;
}

static void close_service(struct service *service)
{
	aph_service_close(service->handle);
	work_free_all(service);
	CHECK(aph_endpoint_free(service->ep) == NULL);
}

static void become(const struct service_config *config)
{
	struct rlimit limit;

	if (config->gid || config->uid) {
		CHECK_OK(setgroups(config->n_groups, config->groups));
		CHECK_OK(setresgid(config->gid, config->gid, config->gid));
		CHECK_OK(setresuid(config->uid, config->uid, config->uid));
		/* Changing the user has cleared it. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		prctl(PR_SET_DUMPABLE, 1);
	}
	if (config->nofile) {
		CHECK_OK(getrlimit(RLIMIT_NOFILE, &limit));
		limit.rlim_cur = config->nofile;
		CHECK_OK(setrlimit(RLIMIT_NOFILE, &limit));
	}
}

static int process_main(int ctl, void *arg)
{
	struct service *service = arg;
	struct sigaction act = { .sa_handler = on_term };

	the_service = service;
	become(&service->config);
	CHECK_OK(open_service(service));
	sigaction(SIGTERM, &act, NULL);
	child_say(ctl, 'r');
	loop(service);
	/* From here on a second signal has nothing left to wake. */
	signal(SIGTERM, SIG_IGN);
	close_service(service);
	return service->seen->works == 0 ? 0 : 1;
}

static void *thread_main(void *arg)
{
	loop(arg);
	return NULL;
}

void service_start(struct service *service, enum service_mode mode,
		   const struct service_config *config)
{
	memset(service, 0, sizeof(*service));
	service->mode = mode;
	service->config = *config;
	service->seen = mmap(NULL, sizeof(*service->seen), PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(service->seen != MAP_FAILED);
	if (mode == SERVICE_PROCESS) {
		child_start(&service->child, process_main, service);
		CHECK(child_hear(service->child.ctl, check_hang_ms(5000)) == 'r');
	} else {
		CHECK_OK(open_service(service));
		if (mode == SERVICE_INLINE)
			return;
		CHECK(pthread_create(&service->thread, NULL, thread_main, service) == 0);
	}
}

void service_start_simple(struct service *service, enum service_mode mode, const char *address)
{
	struct service_config config = { .address = address };

	service_start(service, mode, &config);
}

void service_gone(struct service *service, int result)
{
	int got = child_finish(&service->child, check_hang_ms(5000));

	if (got != result)
		fprintf(stderr, "the service ended with %d, not %d\n", got, result);
	CHECK(got == result);
	munmap(service->seen, sizeof(*service->seen));
	service->seen = NULL;
}

void service_kill(struct service *service)
{
	child_signal(&service->child, SIGKILL);
	service_gone(service, CHILD_SIGNALLED + SIGKILL);
}

void service_stop(struct service *service)
{
	if (service->mode == SERVICE_PROCESS) {
		child_signal(&service->child, SIGTERM);
		service_gone(service, 0);
		return;
	}
	if (service->mode == SERVICE_THREAD) {
		atomic_store(&service->stop, true);
		CHECK_OK(aph_endpoint_wake(service->ep));
		CHECK(pthread_join(service->thread, NULL) == 0);
	}
	close_service(service);
	CHECK(service->seen->works == 0);
	munmap(service->seen, sizeof(*service->seen));
	service->seen = NULL;
}

void service_await_at(const char *file, int line, const _Atomic uint32_t *number, uint32_t n)
{
	const struct timespec nap = { .tv_nsec = 200000 };
	uint64_t deadline = aph_deadline_ms((uint64_t)check_hang_ms(3000));

	while (atomic_load(number) != n) {
		if (aph_time_ns() > deadline) {
			fprintf(stderr, "%s:%d: waited for %u in vain, it is %u\n", file, line, n,
				atomic_load(number));
			abort();
		}
		nanosleep(&nap, NULL);
	}
}

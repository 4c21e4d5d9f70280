/* SPDX-License-Identifier: MIT */
/*
 * Running out: of descriptors at either side, of room in the directory, of what a channel may have.
 * An error that says so, nothing lost for others, nothing left behind.
 */
#include "suite.h"

#include "fds.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static rlim_t limit_descriptors(rlim_t n)
{
	struct rlimit limit;
	rlim_t old;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	old = limit.rlim_cur;
	limit.rlim_cur = n;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	return old;
}

static int fillers[1024], n_fillers;

/* Fills the gaps among the open descriptors; returns how many are open then. */
static rlim_t fill_gaps(void)
{
	struct fds fds;
	int highest = 0, fd;

	fds_take(&fds);
	for (fd = 0; fd < FDS_MAX; fd++)
		if (fds.open[fd])
			highest = fd;
	while ((fd = dup(STDERR_FILENO)) < highest) {
		assert_true(n_fillers < 1024);
		fillers[n_fillers++] = fd;
	}
	close(fd);
	return (rlim_t)highest + 1;
}

static void open_gaps(void)
{
	while (n_fillers > 0)
		close(fillers[--n_fillers]);
}

/* This program comes without the library of remote addresses; to load it takes a descriptor. */
static void no_descriptors_to_load_what_calls_far(void **state)
{
	struct aph_channel *channel;
	struct aph_endpoint *ep;
	rlim_t old;

	(void)state;
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	old = limit_descriptors(fill_gaps());
	assert_int_equal(aph_channel_open(&channel, ep, "rx:127.0.0.1:7/1", NULL),
			 -EPROTONOSUPPORT);
	limit_descriptors(old);
	assert_non_null(strstr(aph_error(), "Too many open files"));
	open_gaps();
	aph_endpoint_free(ep);
}

/* With room for n more descriptors, from none to enough: each try fails cleanly or works. */
static void no_descriptors_at_the_client(void **state)
{
	struct service service;
	struct aph_endpoint *ep;
	struct aph_channel *channel;
	int before, worked = 0, failed = 0, r;
	rlim_t base, old;

	(void)state;
	if (suite_mode == SERVICE_THREAD)
		suite_skip("the service needs descriptors of its own");
	service_start_simple(&service, suite_mode, "full");
	base = fill_gaps();
	before = fds_count();
	for (rlim_t more = 0; more < 12; more++) {
		old = limit_descriptors(base + more);
		r = aph_endpoint_new(&ep, NULL);
		if (r == 0) {
			r = aph_channel_open(&channel, ep, "full", NULL);
			if (r == 0) {
				client_echo(channel);
				aph_channel_close(channel);
				worked++;
			}
			aph_endpoint_free(ep);
		}
		limit_descriptors(old);
		if (r < 0) {
			assert_int_equal(r, -EMFILE);
			assert_true(strlen(aph_error()) > 10);
			failed++;
		}
		assert_int_equal(fds_count(), before);
	}
	open_gaps();
	assert_true(worked > 0 && failed > 0);
	/* The service has come to no harm by those that gave up. */
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	assert_int_equal(aph_channel_open(&channel, ep, "full", NULL), 0);
	client_echo(channel);
	aph_channel_close(channel);
	aph_endpoint_free(ep);
	service_stop(&service);
}

static void no_descriptors_to_begin_a_service(void **state)
{
	struct aph_endpoint *ep;
	struct aph_service *service;
	int before, worked = 0, r;
	rlim_t base, old;

	(void)state;
	base = fill_gaps();
	before = fds_count();
	for (rlim_t more = 0; more < 12; more++) {
		old = limit_descriptors(base + more);
		r = aph_endpoint_new(&ep, NULL);
		if (r == 0) {
			r = aph_service_open(&service, ep, "begin", NULL);
			if (r == 0) {
				aph_service_close(service);
				worked++;
			}
			aph_endpoint_free(ep);
		}
		limit_descriptors(old);
		assert_true(r == 0 || r == -EMFILE);
		assert_int_equal(fds_count(), before);
		assert_int_equal(dir_sockets(), 0);
	}
	open_gaps();
	assert_true(worked > 0);
}

/*
 * A service that has no descriptors left for newcomers serves the ones it has, and does not spin.
 */
static void no_descriptors_at_the_service(void **state)
{
	enum {
		N = 60
	};
	struct service_config config = { .address = "full", .nofile = 60 };
	struct aph_channel_options options = { .size = sizeof(options) };
	struct aph_channel *channels[N];
	struct service service;
	struct aph_endpoint *ep;
	int opened = 0, r = 0;
	long switches;

	(void)state;
	if (suite_mode == SERVICE_THREAD)
		suite_skip("the limit must be the service's alone");
	service_start(&service, suite_mode, &config);
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	while (opened < N) {
		options.deadline_ns = aph_deadline_ms((uint64_t)check_ms(1000));
		r = aph_channel_open(&channels[opened], ep, "full", &options);
		if (r < 0)
			break;
		opened++;
	}
	assert_true(opened >= 8 && opened < N);
	/* Turned away or left waiting; never something that looks like another trouble. */
	if (r != -EBUSY && r != -ETIMEDOUT)
		print_message("refused with %d\n", r);
	assert_true(r == -EBUSY || r == -ETIMEDOUT);
	for (int i = 0; i < opened; i++)
		client_echo(channels[i]);
	usleep(50000);
	switches = child_switches(service.child.pid);
	usleep(300000);
	assert_true(child_switches(service.child.pid) - switches < 60);
	/* When some go, there is room for others. */
	for (int i = 0; i < 8; i++)
		aph_channel_close(channels[--opened]);
	for (int i = 0; i < 4; i++) {
		options.deadline_ns = aph_deadline_ms((uint64_t)check_ms(5000));
		assert_int_equal(aph_channel_open(&channels[opened], ep, "full", &options), 0);
		client_echo(channels[opened++]);
	}
	while (opened > 0)
		aph_channel_close(channels[--opened]);
	aph_endpoint_free(ep);
	service_stop(&service);
}

/*
 * Descriptors arrive for which the receiver has no room: that call ends, and everything else goes
 * on.
 */
static void no_descriptors_to_receive(void **state)
{
	struct service_config config = { .address = "full", .nofile = 40 };
	struct service service;
	struct client client, other;
	struct aph_result result;
	struct aph_call *call;
	int fds[40], n;
	rlim_t old;

	(void)state;
	if (suite_mode == SERVICE_THREAD)
		suite_skip("the limit must be the service's alone");
	service_start(&service, suite_mode, &config);
	client_open(&client, "full");
	client_open(&other, "full");
	for (int i = 0; i < 40; i++)
		fds[i] = STDERR_FILENO;
	assert_int_equal(aph_call_new(&call, client.channel, aph_deadline_ms(5000), NULL), 0);
	assert_int_equal(aph_call_send_fds(call, "f", 1, fds, 40, 0), 1);
	struct aph_event ev;
	do {
		client_next(client.ep, &ev, 3000);
	} while (ev.type != APH_EVENT_END);
	assert_int_not_equal(ev.result.outcome, APH_ANSWERED);
	assert_int_equal(ev.result.reason, APH_REASON_RESOURCES);
	aph_call_free(call);
	client_echo(other.channel);
	if (aph_channel_is_open(client.channel))
		client_echo(client.channel);
	client_close(&client);

	/* The same at the client. */
	client_open(&client, "full");
	assert_int_equal(aph_call_new(&call, client.channel, aph_deadline_ms(5000), NULL), 0);
	assert_int_equal(aph_call_send_fds(call, "f", 1, fds, 8, 0), 1);
	service_await(&service.seen->works, 0);
	old = limit_descriptors(fill_gaps() + 2);
	do {
		client_next(client.ep, &ev, 3000);
	} while (ev.type != APH_EVENT_END);
	result = ev.result;
	n = (int)aph_call_take_fds(call, fds, 40);
	limit_descriptors(old);
	open_gaps();
	for (int i = 0; i < n; i++)
		close(fds[i]);
	assert_true(n == 8 || result.reason == APH_REASON_RESOURCES);
	assert_true(n == 8 || result.outcome == APH_LOST);
	aph_call_free(call);
	client_echo(other.channel);
	client_close(&client);
	client_close(&other);
	service_stop(&service);
}

static size_t resident_kib(pid_t pid)
{
	char path[64];
	unsigned long size = 0, resident = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
	file = fopen(path, "re");
	assert_non_null(file);
	assert_int_equal(fscanf(file, "%lu %lu", &size, &resident), 2);
	fclose(file);
	return resident * 4;
}

/* A channel costs no memory to share before it is used. The first call of each is heard. */
static void channels_that_nobody_uses(void **state)
{
	enum {
		N = 200,
		PAGE_KIB = 4
	};
	struct service_config config = { .address = "unused" };
	size_t before, here_before, after, here_after;
	struct client clients[N + 1];
	struct service service;

	(void)state;
	if (suite_mode == SERVICE_THREAD)
		suite_skip("memory is measured by process");
	if (check_slow())
		suite_skip("a sanitizer has memory of its own for each mapping");
	service_start(&service, suite_mode, &config);
	client_open(&clients[N], "unused");
	client_echo(clients[N].channel);
	before = resident_kib(service.child.pid);
	here_before = resident_kib(getpid());
	for (size_t i = 0; i < N; i++)
		client_open(&clients[i], "unused");
	client_echo(clients[N].channel);
	after = resident_kib(service.child.pid);
	here_after = resident_kib(getpid());
	print_message("%d channels: %zu KiB more at the service, %zu KiB at the client\n", N,
		      after - before, here_after - here_before);
	assert_true(after < before + (size_t)N * PAGE_KIB);
	assert_true(here_after < here_before + (size_t)N * PAGE_KIB);
	for (size_t i = 0; i <= N; i++)
		client_echo(clients[i].channel);
	for (size_t i = 0; i <= N; i++)
		client_close(&clients[i]);
	service_stop(&service);
}

static uint64_t cpu_time_ns(pid_t pid)
{
	struct timespec used;
	clockid_t clock;

	assert_int_equal(clock_getcpuclockid(pid, &clock), 0);
	assert_int_equal(clock_gettime(clock, &used), 0);
	return (uint64_t)used.tv_sec * 1000000000 + (uint64_t)used.tv_nsec;
}

/* A service with nothing to do that it may do sleeps, as soon as it has done all else. */
static void assert_rests(pid_t pid)
{
	uint64_t before, used = UINT64_MAX;

	for (int i = 0; used >= 50000000 && i < 20; i++) {
		usleep(100000);
		before = cpu_time_ns(pid);
		usleep(200000);
		used = cpu_time_ns(pid) - before;
	}
	assert_true(used < 50000000);
}

/*
 * A client that asks for much and reads nothing costs a bounded amount, and others nothing at all.
 */
static void a_client_that_never_reads(void **state)
{
	struct service_config config = { .address = "greedy", .options.calls_max = 32 };
	struct service_get get = { .len = 4u << 20 };
	char request[1 + sizeof(get)] = "g";
	struct service service;
	struct client client, honest;
	struct aph_call *call;
	size_t before, after;
	unsigned begun = 0;

	(void)state;
	if (suite_mode == SERVICE_THREAD)
		suite_skip("memory is measured by process");
	if (check_slow())
		suite_skip("a sanitizer keeps what was freed");
	memcpy(request + 1, &get, sizeof(get));
	service_start(&service, suite_mode, &config);
	client_open(&honest, "greedy");
	client_echo(honest.channel);
	before = resident_kib(service.child.pid);
	client_open(&client, "greedy");
	while (aph_call_new(&call, client.channel, APH_FOREVER, NULL) == 0) {
		assert_int_equal(aph_call_send(call, request, sizeof(request), 0), sizeof(request));
		begun++;
	}
	assert_int_equal(begun, 32);
	for (int i = 0; i < 200; i++)
		assert_true(client_echo(honest.channel) < 500000000);
	service_await(&service.seen->requests, 32 + 201);
	/* Streamed as room appears: the arena and what the test service keeps itself, no more. */
	after = resident_kib(service.child.pid);
	print_message("32 unread replies of 4 MiB: %zu KiB more\n", after - before);
	assert_true(after < before + 4096);
	client_close(&client);
	service_await(&service.seen->works, 0);

	/*
	 * At once: the library keeps what the service gave it, and takes no further request of a
	 * client that it keeps much for.
	 */
	request[0] = 'G';
	client_open(&client, "greedy");
	for (begun = 0; aph_call_new(&call, client.channel, APH_FOREVER, NULL) == 0; begun++)
		assert_true(aph_call_send(call, request, sizeof(request), 0) > 0);
	for (int i = 0; i < 200; i++)
		assert_true(client_echo(honest.channel) < 500000000);
	after = resident_kib(service.child.pid);
	print_message("32 unread replies of 4 MiB at once: %zu KiB more\n", after - before);
	/* A request that it must not take now is no work. */
	assert_rests(service.child.pid);
	assert_true(after < before + 32 * 4096 + 8192);
	client_close(&client);
	client_echo(honest.channel);
	service_await(&service.seen->works, 0);
	/* Given back: what is left is less than a few of them. */
	for (int i = 0; i < 50; i++)
		client_echo(honest.channel);
	after = resident_kib(service.child.pid);
	assert_true(after < before + 4 * 4096 + 8192);
	client_close(&honest);
	service_stop(&service);
}

/* Requests that begin and never go on; calls that are answered late. */
static void a_client_that_stops_in_the_middle(void **state)
{
	struct service service;
	struct client client, honest;
	struct aph_call *call;
	static char data[300000] = "d";
	ssize_t n;

	(void)state;
	service_start_simple(&service, suite_mode, "half");
	client_open(&client, "half");
	client_open(&honest, "half");
	for (int i = 0; i < 1000; i++) {
		assert_int_equal(aph_call_new(&call, client.channel, APH_FOREVER, NULL), 0);
		do {
			n = aph_call_send(call, data, i % 100 ? 1 : sizeof(data), APH_MORE);
		} while (n == -EAGAIN && aph_call_wait(call, aph_deadline_ms(20)) == 0);
		if (i % 50 == 0)
			client_echo(honest.channel);
	}
	for (int i = 0; i < 100; i++)
		client_echo(honest.channel);
	client_close(&client);
	client_put(honest.ep, honest.channel, 500000, 1);
	service_await(&service.seen->works, 0);
	client_close(&honest);
	service_stop(&service);
}

static void options_out_of_range(void **state)
{
	struct aph_channel_options channel_options = { .size = sizeof(channel_options) };
	struct aph_service_options service_options = { .size = sizeof(service_options) };
	struct aph_endpoint_options endpoint_options = { .size = 1 };
	struct service service;
	struct aph_endpoint *ep;
	struct aph_channel *channel;
	struct aph_service *second;

	(void)state;
	assert_int_equal(aph_endpoint_new(&ep, &endpoint_options), -EINVAL);
	service_start_simple(&service, suite_mode, "options");
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	channel_options.depth = 33;
	assert_int_equal(aph_channel_open(&channel, ep, "options", &channel_options), -EINVAL);
	channel_options.depth = 16;
	assert_int_equal(aph_channel_open(&channel, ep, "options", &channel_options), -EINVAL);
	channel_options.depth = 0;
	channel_options.calls_max = 4097;
	assert_int_equal(aph_channel_open(&channel, ep, "options", &channel_options), -EINVAL);
	channel_options.calls_max = 0;
	channel_options.flags = 0x80000000u;
	assert_int_equal(aph_channel_open(&channel, ep, "options", &channel_options), -EINVAL);
	channel_options.flags = 0;
	channel_options.size = 3;
	assert_int_equal(aph_channel_open(&channel, ep, "options", &channel_options), -EINVAL);
	service_options.calls_max = 4097;
	assert_int_equal(aph_service_open(&second, ep, "second", &service_options), -EINVAL);
	service_options.calls_max = 0;
	service_options.flags = 0x80000000u;
	assert_int_equal(aph_service_open(&second, ep, "second", &service_options), -EINVAL);
	service_options.flags = 0;
	service_options.size = 0;
	assert_int_equal(aph_service_open(&second, ep, "second", &service_options), -EINVAL);
	/* All that is allowed works. */
	for (uint32_t depth = 32; depth <= 512; depth *= 2) {
		channel_options = (struct aph_channel_options){ .size = sizeof(channel_options),
								.depth = depth,
								.arena = depth * 4096 };
		assert_int_equal(aph_channel_open(&channel, ep, "options", &channel_options), 0);
		client_echo(channel);
		client_put(ep, channel, 700000, depth);
		client_get(ep, channel, 'g', 700000, depth);
		aph_channel_close(channel);
	}
	aph_endpoint_free(ep);
	service_stop(&service);
}

/* Memory that a channel needs may not be locked, as all that this process maps would be. */
static int with_locked_memory(int ctl, void *arg)
{
	struct aph_channel_options options = { .size = sizeof(options) };
	struct rlimit limit = { .rlim_cur = 256 << 10, .rlim_max = 256 << 10 };
	struct aph_channel *channel;
	struct aph_endpoint *ep;
	uint64_t began;

	(void)ctl;
	CHECK_OK(aph_endpoint_new(&ep, NULL));
	CHECK_OK(setrlimit(RLIMIT_MEMLOCK, &limit));
	if (geteuid() == 0)
		CHECK_OK(setresuid(65534, 65534, 65534));
	CHECK_OK(mlockall(MCL_FUTURE));
	if (mmap(NULL, 1 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
		return 77;
	began = aph_time_ns();
	options.deadline_ns = aph_deadline_ms((uint64_t)check_hang_ms(3000));
	CHECK(aph_channel_open(&channel, ep, arg, &options) == -ENOMEM);
	CHECK(aph_time_ns() - began < (uint64_t)check_hang_ms(1000) * 1000000);
	CHECK(strstr(aph_error(), "shared memory"));
	aph_endpoint_free(ep);
	return 0;
}

static void no_memory_to_lock(void **state)
{
	struct service_config config = { .address = "limits", .options.flags = APH_ALLOW_WORLD };
	char address[APH_ADDRESS_MAX + 1];
	struct service service;
	struct child child;
	int status;

	(void)state;
	service_start(&service, suite_mode, &config);
	snprintf(address, sizeof(address), "limits,uid=%u", (unsigned)geteuid());
	child_start(&child, with_locked_memory, address);
	status = child_finish(&child, check_hang_ms(8000));
	service_stop(&service);
	if (status == 77)
		suite_skip("no memory is locked here"); /* sanitizers see to that */
	assert_int_equal(status, 0);
}

/* A file system without a free inode, in a mount namespace of its own. */
static int on_a_full_disk(int ctl, void *arg)
{
	struct aph_endpoint *ep;
	struct service service;
	char path[300];
	int r, before, n = 0;

	(void)ctl;
	(void)arg;
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("tmpfs", dir_path(), "tmpfs", 0, "size=64k,nr_inodes=8,mode=1777") < 0)
		return 77;
	do {
		snprintf(path, sizeof(path), "%s/fill%d", dir_path(), n++);
		r = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
		if (r >= 0)
			close(r);
	} while (r >= 0);
	CHECK(errno == ENOSPC);
	before = fds_count();
	CHECK_OK(aph_endpoint_new(&ep, NULL));
	CHECK(aph_service_open(NULL, ep, "full", NULL) == -ENOSPC);
	CHECK(strlen(aph_error()) > 10);
	aph_endpoint_free(ep);
	CHECK(fds_count() == before);
	while (n > 0) {
		snprintf(path, sizeof(path), "%s/fill%d", dir_path(), --n);
		unlink(path);
	}
	service_start_simple(&service, SERVICE_THREAD, "full");
	service_stop(&service);
	return 0;
}

static void a_full_disk(void **state)
{
	struct child child;
	int status;

	(void)state;
	if (geteuid() != 0)
		suite_skip("only root can mount a small file system");
	child_start(&child, on_a_full_disk, NULL);
	status = child_finish(&child, check_hang_ms(5000));
	if (status == 77)
		suite_skip("no mount namespaces here");
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(no_descriptors_at_the_client),
		SUITE_TEST(no_descriptors_to_load_what_calls_far),
		SUITE_TEST(no_descriptors_to_begin_a_service),
		SUITE_TEST(no_descriptors_at_the_service),
		SUITE_TEST(no_descriptors_to_receive),
		SUITE_TEST(channels_that_nobody_uses),
		SUITE_TEST(a_client_that_never_reads),
		SUITE_TEST(a_client_that_stops_in_the_middle),
		SUITE_TEST(options_out_of_range),
		SUITE_TEST(no_memory_to_lock),
		SUITE_TEST(a_full_disk),
	};

	return suite_run_both("limits", tests, SUITE_LEN(tests), 60);
}

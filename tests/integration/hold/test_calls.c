/* SPDX-License-Identifier: MIT */
/*
 * Storing, retrieving, listing, deleting, expiring: every result of every function, and what else
 * may come.
 */
#include "fixture.h"

#include "fds.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static struct aph_hold_options with(uint32_t flags)
{
	return (struct aph_hold_options){ .size = sizeof(struct aph_hold_options), .flags = flags };
}

static void what_is_stored_comes_back(void **state)
{
	struct keeper keeper;
	struct aph_hold *hold;

	(void)state;
	keeper_start(&keeper, NULL);
	hold = hold_open();
	assert_int_equal(store(hold, "one", "first", 0), 0);
	assert_int_equal(retrieve(hold, "one", "first", 0), 0);
	assert_int_equal(retrieve(hold, "one", "first", 0), 0);
	assert_int_equal(store(hold, "one", "second", 0), -EEXIST);
	assert_non_null(strstr(aph_hold_error(), "something under the name"));
	assert_int_equal(retrieve(hold, "one", "first", 0), 0);
	assert_int_equal(store(hold, "one", "second", APH_HOLD_REPLACE), 0);
	assert_int_equal(retrieve(hold, "one", "second", 0), 0);
	assert_int_equal(retrieve(hold, "two", "", 0), -ENOENT);
	assert_int_equal(retrieve(hold, "one", "second", APH_HOLD_TAKE), 0);
	assert_int_equal(retrieve(hold, "one", "", 0), -ENOENT);
	assert_int_equal(aph_hold_delete(hold, "one", NULL, SOON), -ENOENT);
	assert_int_equal(store(hold, "one", "third", 0), 0);
	assert_int_equal(aph_hold_delete(hold, "one", NULL, SOON), 0);
	assert_int_equal(retrieve(hold, "one", "", 0), -ENOENT);
	aph_hold_close(hold);
	keeper_stop(&keeper);
}

static void many_under_one_name(void **state)
{
	int fds[APH_HOLD_FDS_MAX + 1], got[APH_HOLD_FDS_MAX];
	static const size_t counts[] = { 1, 2, 16, APH_HOLD_FDS_MAX };
	struct aph_hold_options replace = with(APH_HOLD_REPLACE);
	struct keeper keeper;
	struct aph_hold *hold;
	char text[32];
	size_t n;

	(void)state;
	for (int i = 0; i <= APH_HOLD_FDS_MAX; i++) {
		(void)snprintf(text, sizeof(text), "number %d", i);
		fds[i] = marked(text);
	}
	keeper_start(&keeper, NULL);
	hold = hold_open();
	for (size_t c = 0; c < SUITE_LEN(counts); c++) {
		assert_int_equal(aph_hold_store(hold, "set", fds, counts[c], &replace, SOON), 0);
		n = counts[c] - 1;
		assert_int_equal(aph_hold_retrieve(hold, "set", got, &n, NULL, SOON), -EMSGSIZE);
		n = APH_HOLD_FDS_MAX;
		assert_int_equal(aph_hold_retrieve(hold, "set", got, &n, NULL, SOON), 0);
		assert_int_equal(n, counts[c]);
		for (size_t i = 0; i < n; i++) {
			(void)snprintf(text, sizeof(text), "number %zu", i);
			assert_true(is_marked(got[i], text));
			assert_int_equal(fcntl(got[i], F_GETFD), FD_CLOEXEC);
			close(got[i]);
		}
	}
	assert_int_equal(aph_hold_store(hold, "x", fds, 0, NULL, SOON), -EINVAL);
	assert_int_equal(aph_hold_store(hold, "x", fds, APH_HOLD_FDS_MAX + 1, NULL, SOON), -EINVAL);
	aph_hold_close(hold);
	keeper_stop(&keeper);
	for (int i = 0; i <= APH_HOLD_FDS_MAX; i++)
		close(fds[i]);
}

static void names_and_options(void **state)
{
	static const char *const bad[] = {
		"",	    "-a",
		".a",	    "@a",
		"a b",	    "a:b",
		"a/b",	    "a\n",
		"\xc3\xa4", "a123456789b123456789c123456789d123456789e123456789f123456789g123",
	};
	static const char *const good[] = {
		"a",
		"_",
		"0",
		"web.socket",
		"tty@1",
		"a+b-c.d_e",
		"a123456789b123456789c123456789d123456789e123456789f123456789g12",
	};
	struct aph_hold_options options;
	struct aph_hold_offer *offer;
	struct keeper keeper;
	struct aph_hold *hold;
	size_t n = 1;
	int fd = STDOUT_FILENO;

	(void)state;
	keeper_start(&keeper, NULL);
	hold = hold_open();
	for (size_t i = 0; i < SUITE_LEN(bad); i++) {
		assert_int_equal(aph_hold_store(hold, bad[i], &fd, 1, NULL, SOON), -EINVAL);
		assert_non_null(strstr(aph_hold_error(), "no name"));
	}
	for (size_t i = 0; i < SUITE_LEN(good); i++) {
		assert_int_equal(store(hold, good[i], good[i], 0), 0);
		assert_int_equal(retrieve(hold, good[i], good[i], 0), 0);
	}
	options = with(APH_HOLD_ALL);
	assert_int_equal(aph_hold_store(hold, "a", &fd, 1, &options, SOON), -EINVAL);
	assert_int_equal(aph_hold_delete(hold, "a", &options, SOON), -EINVAL);
	assert_int_equal(aph_hold_offer(&offer, hold, "a", 0, &options), -EINVAL);
	options = with(APH_HOLD_REPLACE);
	assert_int_equal(aph_hold_retrieve(hold, "a", &fd, &n, &options, SOON), -EINVAL);
	options.size = 3;
	assert_int_equal(aph_hold_store(hold, "a", &fd, 1, &options, SOON), -EINVAL);
	fd = 12345;
	assert_int_equal(aph_hold_store(hold, "b", &fd, 1, NULL, SOON), -EBADF);
	aph_hold_close(hold);
	assert_null(aph_hold_close(NULL));
	keeper_stop(&keeper);
}

static void lists(void **state)
{
	struct aph_hold_info *list;
	struct aph_hold_options options = with(0);
	struct keeper keeper;
	struct aph_hold *hold;
	char name[64];
	size_t n;
	int fd = marked("x");

	(void)state;
	keeper_start(&keeper, NULL);
	hold = hold_open();
	assert_int_equal(aph_hold_list(hold, NULL, &list, &n, NULL, SOON), 0);
	assert_int_equal(n, 0);
	free(list);
	options.expiry_ms = 100000;
	assert_int_equal(aph_hold_store(hold, "b.2", &fd, 1, &options, SOON), 0);
	assert_int_equal(store(hold, "b.1", "x", 0), 0);
	assert_int_equal(store(hold, "a", "x", 0), 0);
	assert_int_equal(aph_hold_list(hold, NULL, &list, &n, NULL, SOON), 0);
	assert_int_equal(n, 3);
	assert_string_equal(list[0].name, "a");
	assert_string_equal(list[1].name, "b.1");
	assert_string_equal(list[2].name, "b.2");
	assert_int_equal(list[2].owner, geteuid());
	assert_int_equal(list[2].n_fds, 1);
	assert_true(list[2].expiry_ms > 50000 && list[2].expiry_ms <= 100001);
	assert_int_equal(list[1].expiry_ms, 0);
	assert_int_equal(list[1].offered, 0);
	assert_true(list[1].serial > list[2].serial);
	free(list);
	assert_int_equal(aph_hold_list(hold, "b", &list, &n, NULL, SOON), 0);
	assert_int_equal(n, 2);
	free(list);
	/* Longer than what a channel holds. */
	for (int i = 0; i < 1000; i++) {
		(void)snprintf(name, sizeof(name), "many.%04d.with.a.rather.long.name", i);
		assert_int_equal(aph_hold_store(hold, name, &fd, 1, NULL, SOON), 0);
	}
	assert_int_equal(aph_hold_list(hold, "many.", &list, &n, NULL, SOON), 0);
	assert_int_equal(n, 1000);
	assert_string_equal(list[999].name, "many.0999.with.a.rather.long.name");
	free(list);
	close(fd);
	aph_hold_close(hold);
	keeper_stop(&keeper);
}

static void it_expires(void **state)
{
	struct aph_hold_options options = with(0);
	struct keeper keeper;
	struct aph_hold *hold;
	char name[16];
	int fd = marked("x"), before;
	uint64_t end = SOON;
	pid_t pid;

	(void)state;
	keeper_start(&keeper, NULL);
	hold = hold_open();
	pid = keeper_pid();
	before = fds_settled(pid, hold);
	/* In no order, and one that stays. */
	for (unsigned i = 0; i < 40; i++) {
		(void)snprintf(name, sizeof(name), "e%u", i);
		options.expiry_ms = 1 + (i * 17) % 40;
		assert_int_equal(aph_hold_store(hold, name, &fd, 1, &options, SOON), 0);
	}
	assert_int_equal(store(hold, "stays", "x", 0), 0);
	fds_await(pid, before + 1);
	fds_await(keeper_twin(pid), fds_of(keeper_twin(pid)));
	assert_int_equal(retrieve(hold, "e39", "x", 0), -ENOENT);
	assert_int_equal(retrieve(hold, "stays", "x", 0), 0);
	/*
	 * What is stored in its place has a life of its own; so has what a dead keeper leaves to
	 * its twin.
	 */
	options.expiry_ms = 1500;
	assert_int_equal(aph_hold_store(hold, "later", &fd, 1, &options, SOON), 0);
	options = with(APH_HOLD_REPLACE);
	options.expiry_ms = 20;
	assert_int_equal(aph_hold_store(hold, "stays", &fd, 1, &options, SOON), 0);
	kill(pid, SIGKILL);
	assert_int_equal(retrieve(hold, "later", "x", 0), 0);
	while (retrieve(hold, "stays", "x", 0) != -ENOENT)
		assert_true(aph_time_ns() < end);
	while (retrieve(hold, "later", "x", 0) != -ENOENT)
		assert_true(aph_time_ns() < end);
	close(fd);
	aph_hold_close(hold);
	keeper_stop(&keeper);
}

static void it_closes_what_it_lets_go(void **state)
{
	struct aph_hold *hold;
	struct keeper keeper;
	pid_t pid, twin;
	int before, twin_before, ends[2];
	char byte;

	(void)state;
	keeper_start(&keeper, NULL);
	hold = hold_open();
	pid = keeper_pid();
	twin = keeper_twin(pid);
	before = fds_settled(pid, hold);
	twin_before = fds_settled(twin, hold);
	assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	assert_int_equal(aph_hold_store(hold, "pipe", &ends[1], 1, NULL, SOON), 0);
	close(ends[1]);
	assert_int_equal(read(ends[0], &byte, 1), -1);
	assert_int_equal(errno, EAGAIN);
	assert_int_equal(aph_hold_delete(hold, "pipe", NULL, SOON), 0);
	/* The reader sees the end when both of them have closed it. */
	assert_int_equal(poll(&(struct pollfd){ .fd = ends[0] }, 1, check_hang_ms(5000)), 1);
	assert_int_equal(read(ends[0], &byte, 1), 0);
	close(ends[0]);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(store(hold, "x", "x", APH_HOLD_REPLACE), 0);
		assert_int_equal(store(hold, "x", "x", 0), -EEXIST);
		assert_int_equal(retrieve(hold, "x", "x", i % 2 ? APH_HOLD_TAKE : 0), 0);
	}
	fds_await(pid, before);
	fds_await(twin, twin_before);
	aph_hold_close(hold);
	keeper_stop(&keeper);
}

/* A channel that the keeper holds could never close. */
static void it_does_not_keep_itself(void **state)
{
	static struct fds before, after;
	struct keeper keeper;
	struct aph_hold *hold;
	int pair[2], refused = 0;

	(void)state;
	keeper_start(&keeper, NULL);
	fds_take(&before);
	hold = hold_open();
	assert_int_equal(store(hold, "x", "x", 0), 0);
	fds_take(&after);
	for (int fd = 0; fd < FDS_MAX; fd++) {
		if (!after.open[fd] || before.open[fd])
			continue;
		switch (aph_hold_store(hold, "self", &fd, 1, NULL, SOON)) {
		case -EPERM:
			refused++;
			break;
		case 0:
			assert_int_equal(aph_hold_delete(hold, "self", NULL, SOON), 0);
			break;
		default:
			fail();
		}
	}
	assert_true(refused >= 1);
	/* Anybody else's sockets are welcome, also unconnected and unnamed ones. */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(aph_hold_store(hold, "pair", pair, 2, NULL, SOON), 0);
	close(pair[0]);
	close(pair[1]);
	aph_hold_close(hold);
	keeper_stop(&keeper);
}

static void limits(void **state)
{
	static const char *const limit[] = { "5" };
	struct aph_hold_keeper_options options = { .size = sizeof(options),
						   .limits = limit,
						   .n_limits = 1 };
	struct keeper keeper;
	struct aph_hold *hold;
	int fds[6];

	(void)state;
	for (int i = 0; i < 6; i++)
		fds[i] = STDERR_FILENO;
	keeper_start(&keeper, &options);
	hold = hold_open();
	assert_int_equal(aph_hold_store(hold, "six", fds, 6, NULL, SOON), -EDQUOT);
	assert_int_equal(aph_hold_store(hold, "four", fds, 4, NULL, SOON), 0);
	assert_int_equal(aph_hold_store(hold, "two", fds, 2, NULL, SOON), -EDQUOT);
	assert_int_equal(aph_hold_store(hold, "one", fds, 1, NULL, SOON), 0);
	assert_int_equal(aph_hold_store(hold, "one more", fds, 1, NULL, SOON), -EINVAL);
	assert_int_equal(aph_hold_store(hold, "one.more", fds, 1, NULL, SOON), -EDQUOT);
	{
		struct aph_hold_options replace = with(APH_HOLD_REPLACE);

		assert_int_equal(aph_hold_store(hold, "four", fds, 4, &replace, SOON), 0);
		assert_int_equal(aph_hold_store(hold, "four", fds, 5, &replace, SOON), -EDQUOT);
		assert_int_equal(aph_hold_store(hold, "four", fds, 2, &replace, SOON), 0);
	}
	assert_int_equal(aph_hold_store(hold, "one.more", fds, 2, NULL, SOON), 0);
	aph_hold_close(hold);
	keeper_stop(&keeper);
}

/* A process in which descriptors are scarce. */
static int scarce(int ctl, void *arg)
{
	struct rlimit limit = { .rlim_cur = 120, .rlim_max = 120 };
	struct aph_hold_keeper_options options = { .size = sizeof(options) };

	(void)arg;
	CHECK_OK(setrlimit(RLIMIT_NOFILE, &limit));
	child_say(ctl, 'r');
	/* Told to stop, or killed with us. */
	return -aph_hold_keep(&options);
}

static void descriptors_run_out(void **state)
{
	int fds[APH_HOLD_FDS_MAX], n = 0, r;
	struct child child;
	struct aph_hold *hold;
	char name[16];

	(void)state;
	for (int i = 0; i < APH_HOLD_FDS_MAX; i++)
		fds[i] = STDERR_FILENO;
	child_start(&child, scarce, NULL);
	assert_int_equal(child_hear(child.ctl, check_hang_ms(5000)), 'r');
	(void)keeper_await_pid(0);
	hold = hold_open();
	/* The last of a limit of 120 are for channels. */
	assert_int_equal(aph_hold_store(hold, "many", fds, 64, NULL, SOON), 0);
	do {
		(void)snprintf(name, sizeof(name), "n%d", n++);
		r = aph_hold_store(hold, name, fds, 1, NULL, SOON);
	} while (r == 0);
	assert_int_equal(r, -ENFILE);
	assert_int_equal(n, 27);
	/* Many at once do not even arrive. */
	r = aph_hold_store(hold, "most", fds, 64, NULL, SOON);
	assert_true(r == -EMFILE || r == -ENFILE);
	n = keeper_pid();
	assert_int_equal(aph_hold_delete(hold, "many", NULL, SOON), 0);
	assert_int_equal(store(hold, "again", "x", 0), 0);
	assert_int_equal(keeper_pid(), n);
	assert_int_equal(aph_hold_stop(hold, SOON), 0);
	aph_hold_close(hold);
	assert_int_equal(child_finish(&child, check_hang_ms(5000)), 0);
}

static void nobody_there(void **state)
{
	struct aph_hold_keeper_options options = { .size = 1 };
	static const char *const rule[] = { "can=store" };
	struct service service;
	struct keeper keeper;
	struct aph_hold *hold;

	(void)state;
	assert_int_equal(aph_hold_open(&hold, NULL, SOON), -ENOENT);
	assert_int_equal(aph_hold_open(&hold, "caps:/", SOON), -EINVAL);
	assert_int_equal(keeper_try(&options), -EINVAL);
	options = (struct aph_hold_keeper_options){ .size = sizeof(options),
						    .rules = rule,
						    .n_rules = 1 };
	assert_int_equal(keeper_try(&options), -EINVAL);
	options = (struct aph_hold_keeper_options){ .size = sizeof(options), .survival = 9 };
	assert_int_equal(keeper_try(&options), -EINVAL);
	options.survival = APH_HOLD_SURVIVE_SYSTEMD;
	assert_int_equal(keeper_try(&options), -ENOENT);
	keeper_start(&keeper, NULL);
	options = (struct aph_hold_keeper_options){ .size = sizeof(options) };
	assert_int_equal(keeper_try(&options), -EEXIST);
	keeper_stop(&keeper);
	/* Something else that answers. */
	service_start_simple(&service, SERVICE_PROCESS, "caps:hold");
	hold = hold_open();
	assert_int_equal(store(hold, "x", "x", 0), -EPROTO);
	aph_hold_close(hold);
	service_stop(&service);
}

/* Bytes that no client of ours sends. */
static void garbage(void **state)
{
	struct rng rng = { .state = check_seed() };
	struct keeper keeper;
	struct client client;
	struct aph_hold *hold;
	uint8_t data[300];
	pid_t pid;
	int before, fds[APH_CALL_FDS_MAX];

	(void)state;
	for (int i = 0; i < APH_CALL_FDS_MAX; i++)
		fds[i] = STDERR_FILENO;
	keeper_start(&keeper, NULL);
	hold = hold_open();
	pid = keeper_pid();
	before = fds_settled(pid, hold);
	assert_int_equal(store(hold, "x", "x", 0), 0);
	client_open(&client, "hold");
	for (int i = 0; i < 2000; i++) {
		size_t len = rng_below(&rng, sizeof(data)), n_fds = rng_below(&rng, 4);
		struct aph_result result;
		struct aph_call *call;

		for (size_t j = 0; j < len; j++)
			data[j] = (uint8_t)rng_next(&rng);
		data[0] = 1;
		/* Not "stop" and not "upgrade", which may well be told by us. */
		data[1] = (uint8_t)rng_below(&rng, 7);
		if (rng_below(&rng, 2))
			data[2] = data[3] = 0;
		if (rng_below(&rng, 2))
			memset(data + 24, 'a' + (int)rng_below(&rng, 3), sizeof(data) - 24);
		assert_int_equal(aph_call_new(&call, client.channel, aph_deadline_ms(20), NULL), 0);
		if (aph_call_send_fds(call, data, len, fds, n_fds ? 63 + n_fds - 2 : 0,
				      rng_below(&rng, 8) ? 0 : APH_MORE) >= 0 &&
		    rng_below(&rng, 4)) {
			while (!aph_call_result(call, &result) && aph_call_available(call) == 0)
				(void)aph_call_wait(call, aph_deadline_ms(1));
			(void)aph_call_signal(call, (int32_t)rng_below(&rng, 3));
		}
		aph_call_free(call);
	}
	client_close(&client);
	assert_int_equal(keeper_pid(), pid);
	assert_int_equal(retrieve(hold, "x", "x", 0), 0);
	{
		struct aph_hold_options all = with(APH_HOLD_ALL);
		struct aph_hold_info *list;
		size_t n;

		assert_int_equal(aph_hold_list(hold, NULL, &list, &n, &all, SOON), 0);
		for (size_t i = 0; i < n; i++) {
			struct aph_hold_options of = with(APH_HOLD_OWNER);

			of.owner = list[i].owner;
			assert_int_equal(aph_hold_delete(hold, list[i].name, &of, SOON), 0);
		}
		free(list);
	}
	fds_await(pid, before);
	aph_hold_close(hold);
	keeper_stop(&keeper);
}

/*
 * Something like a keeper: of its first list only the beginning comes, the second is whole, the
 * third goes on for ever.
 */
static int half_a_keeper(int ctl, void *arg)
{
	struct aph_hold_info info = { .name = "web", .n_fds = 1 };
	struct aph_endpoint *ep;
	struct aph_event ev;
	int n = 0;

	(void)arg;
	CHECK_OK(aph_endpoint_new(&ep, NULL));
	CHECK_OK(aph_service_open(NULL, ep, APH_HOLD_ADDRESS, NULL));
	child_say(ctl, 'r');
	while (aph_endpoint_next(ep, &ev, APH_FOREVER) == 0) {
		if (ev.type == APH_EVENT_END && n == 3)
			break;
		if (ev.type != APH_EVENT_REQUEST)
			continue;
		if (++n == 2) {
			CHECK_OK(aph_call_reply(ev.call, &info, sizeof(info)));
			continue;
		}
		CHECK(aph_call_send(ev.call, &info, sizeof(info), APH_MORE) ==
		      (ssize_t)sizeof(info));
		if (n == 1)
			aph_channel_close(ev.channel);
	}
	aph_endpoint_free(ep);
	return 0;
}

static void a_list_breaks_off(void **state)
{
	struct aph_hold_info *list = NULL;
	struct aph_hold *hold;
	struct child child;
	size_t n;

	(void)state;
	child_start(&child, half_a_keeper, NULL);
	assert_int_equal(child_hear(child.ctl, check_hang_ms(5000)), 'r');
	hold = hold_open();
	assert_int_equal(aph_hold_list(hold, NULL, &list, &n, NULL, SOON), 0);
	assert_int_equal(n, 1);
	free(list);
	assert_int_equal(aph_hold_list(hold, NULL, &list, &n, NULL, aph_deadline_ms(30)),
			 -ETIMEDOUT);
	aph_hold_close(hold);
	assert_int_equal(child_finish(&child, check_hang_ms(5000)), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		HOLD_TEST(what_is_stored_comes_back),
		HOLD_TEST(many_under_one_name),
		HOLD_TEST(names_and_options),
		HOLD_TEST(lists),
		HOLD_TEST(it_expires),
		HOLD_TEST(it_closes_what_it_lets_go),
		HOLD_TEST(it_does_not_keep_itself),
		HOLD_TEST(limits),
		HOLD_TEST(descriptors_run_out),
		HOLD_TEST(nobody_there),
		HOLD_TEST(garbage),
		HOLD_TEST(a_list_breaks_off),
	};

	return suite_run("hold calls", tests, SUITE_LEN(tests), 60);
}

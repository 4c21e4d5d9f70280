/* SPDX-License-Identifier: MIT */
/*
 * Real users: who is let in, what the service learns of its caller, and that nobody can take the
 * place of another user's service. Needs root, to become others.
 */
#include "suite.h"
#include "visitor.h"
#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * As whom a service lets in; see channel.h. Each line: who calls, and with which kinds it is let
 * in.
 */
static void permissions(void **state)
{
	static const gid_t crew[] = { CREW };
	static const struct {
		struct visitor who;
		unsigned kinds;
	} callers[] = {
		{ { .uid = ANNA, .gid = ANNA }, APH_ALLOW_USER | APH_ALLOW_WORLD },
		{ { .uid = ANNA, .gid = CREW }, APH_ALLOW_ANY },
		{ { .uid = BERT, .gid = BERT }, APH_ALLOW_WORLD },
		{ { .uid = BERT, .gid = CREW }, APH_ALLOW_GROUP | APH_ALLOW_WORLD },
		{ { .uid = BERT, .gid = BERT, .groups = crew, .n_groups = 1 },
		  APH_ALLOW_GROUP | APH_ALLOW_WORLD },
	};
	struct service_config config = { .uid = ANNA, .gid = CREW };
	char address[64];
	struct service service;
	struct visitor visitor;

	(void)state;
	if (!visitor_need_root())
		return;
	snprintf(address, sizeof(address), "caps:guarded,uid=%u,gid=%u", ANNA, CREW);
	config.address = address;
	for (unsigned allow = 1; allow <= APH_ALLOW_ANY; allow++) {
		config.options.flags = allow;
		service_start(&service, SERVICE_PROCESS, &config);
		for (size_t i = 0; i < SUITE_LEN(callers); i++) {
			for (unsigned wants = 1; wants <= APH_ALLOW_ANY; wants += 2) {
				visitor = callers[i].who;
				visitor.address = address;
				visitor.allow = wants;
				visitor_expect(&visitor,
					       callers[i].kinds & allow & wants ? 0 : EACCES);
			}
		}
		service_stop(&service);
	}
}

/* None of the flags means: the user itself. */
static void the_default_is_the_user(void **state)
{
	struct service_config config = { .address = "mine", .uid = ANNA, .gid = ANNA };
	struct visitor anna = { .uid = ANNA, .gid = ANNA, .address = "mine" };
	struct visitor bert = { .uid = BERT, .gid = BERT, .address = "caps:mine,uid=54321" };
	struct service service;

	(void)state;
	if (!visitor_need_root())
		return;
	service_start(&service, SERVICE_PROCESS, &config);
	visitor_expect(&anna, 0);
	visitor_expect(&bert, EACCES);
	bert.address = "caps:mine,uid=any";
	visitor_expect(&bert, EACCES);
	/* The default address of another user is another name. */
	bert.address = "mine";
	visitor_expect(&bert, ENOENT);
	service_stop(&service);
}

/* A user's own service comes before root's of the same name. */
static void own_before_root(void **state)
{
	struct service_config config = { .address = "both", .options.flags = APH_ALLOW_ANY };
	struct visitor anna = { .uid = ANNA, .gid = ANNA, .address = "both" };
	struct visitor bert = { .uid = BERT, .gid = BERT, .address = "both" };
	struct service root, own;

	(void)state;
	if (!visitor_need_root())
		return;
	service_start(&root, SERVICE_PROCESS, &config);
	visitor_expect(&anna, 0);
	service_await(&root.seen->requests, 1);
	config.uid = ANNA;
	config.gid = ANNA;
	service_start(&own, SERVICE_PROCESS, &config);
	visitor_expect(&anna, 0);
	service_await(&own.seen->requests, 1);
	visitor_expect(&bert, 0);
	service_await(&root.seen->requests, 2);
	assert_int_equal(own.seen->requests, 1);
	service_stop(&own);
	service_stop(&root);
}

static int ask_who_i_am(int ctl, void *arg)
{
	const struct visitor *visitor = arg;
	struct service_caller caller;
	struct client client;
	size_t len = sizeof(caller);

	(void)ctl;
	CHECK_OK(setgroups(visitor->n_groups, visitor->groups));
	/* Real and effective ids that differ. */
	CHECK_OK(setresgid(visitor->gid, visitor->gid + 1, visitor->gid));
	CHECK_OK(setresuid(visitor->uid, visitor->uid + 1, visitor->uid));
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_DUMPABLE, 1);
	client_open(&client, visitor->address);
	CHECK_OK(aph_call(client.channel, "c", 1, &caller, &len, aph_deadline_ms(5000)));
	CHECK(len == sizeof(caller));
	CHECK(caller.pid == getpid());
	CHECK(caller.euid == visitor->uid + 1);
	CHECK(caller.egid == visitor->gid + 1);
	CHECK(caller.uid == visitor->uid);
	CHECK(caller.gid == visitor->gid);
	CHECK(caller.n_groups == visitor->n_groups);
	for (size_t i = 0; i < visitor->n_groups; i++) {
		size_t k = 0;

		while (k < caller.n_groups && caller.groups[k] != visitor->groups[i])
			k++;
		CHECK(k < caller.n_groups);
	}
	client_close(&client);
	/* The leak sanitizer cannot look into a process whose ids differ. */
	CHECK_OK(setresuid(visitor->uid, visitor->uid, visitor->uid));
	CHECK_OK(setresgid(visitor->gid, visitor->gid, visitor->gid));
	prctl(PR_SET_DUMPABLE, 1);
	return 0;
}

static void the_service_learns_who_calls(void **state)
{
	static const gid_t groups[] = { 4, CREW, 60001, 7, 60000 };
	struct service_config config = { .address = "who", .options.flags = APH_ALLOW_ANY };
	struct visitor visitor = { .uid = ANNA,
				   .gid = BERT,
				   .groups = groups,
				   .n_groups = 5,
				   .address = "caps:who,uid=0" };
	struct service service;
	struct child child;

	(void)state;
	if (!visitor_need_root())
		return;
	service_start(&service, SERVICE_PROCESS, &config);
	for (size_t n = 0; n <= 5; n += 5) {
		visitor.n_groups = n;
		child_start(&child, ask_who_i_am, &visitor);
		assert_int_equal(child_finish(&child, check_hang_ms(5000)), 0);
	}
	service_stop(&service);
}

/*
 * What one may register: the own uid and a gid one is in; root anything. The status is the errno.
 */
static int register_as(int ctl, void *arg)
{
	gid_t groups[2000]; /* CREW among them */
	struct aph_endpoint *ep;
	int r;

	(void)ctl;
	for (size_t i = 0; i < SUITE_LEN(groups); i++)
		groups[i] = (gid_t)(CREW - SUITE_LEN(groups) + 1 + i);
	for (size_t i = 0; i < SUITE_LEN(groups); i++)
		groups[i] += groups[i] == ANNA || groups[i] == BERT ? 100000 : 0;
	visitor_become(ANNA, ANNA, groups, SUITE_LEN(groups));
	CHECK_OK(aph_endpoint_new(&ep, NULL));
	r = aph_service_open(NULL, ep, arg, NULL);
	aph_endpoint_free(ep);
	return -r;
}

static void what_one_may_register(void **state)
{
	static const struct {
		char address[40];
		int status;
	} cases[] = {
		{ "plain", 0 },
		{ "caps:plain,uid=54321", 0 },
		{ "caps:plain,uid=54322", EPERM },
		{ "caps:plain,uid=0", EPERM },
		{ "caps:plain,gid=54321", 0 },
		{ "caps:plain,gid=54333", 0 },
		{ "caps:plain,gid=0", EPERM },
		{ "caps:plain,uid=54321,gid=54322", EPERM },
		{ "caps:plain,uid=any", 0 },
		{ "caps:plain,gid=any", 0 },
	};
	struct aph_endpoint *ep;
	struct child child;

	(void)state;
	if (!visitor_need_root())
		return;
	for (size_t i = 0; i < SUITE_LEN(cases); i++) {
		char address[40];

		memcpy(address, cases[i].address, sizeof(address));
		child_start(&child, register_as, address);
		assert_int_equal(child_finish(&child, check_hang_ms(5000)), cases[i].status);
		/* Root may do all of it. */
		assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
		assert_int_equal(aph_service_open(NULL, ep, address, NULL), 0);
		aph_endpoint_free(ep);
	}
}

/* Ids that are none are not cut down to some that are. */
static void ids_out_of_range(void **state)
{
	struct aph_name name = { .name = "plain", .uid = APH_ID_DEFAULT, .gid = APH_ID_DEFAULT };
	struct aph_endpoint *ep;

	(void)state;
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	name.uid = (INT64_C(1) << 32) + geteuid();
	assert_int_equal(aph_service_open_name(NULL, ep, &name, NULL), -EINVAL);
	name.uid = APH_ID_DEFAULT;
	name.gid = UINT32_MAX;
	assert_int_equal(aph_service_open_name(NULL, ep, &name, NULL), -EINVAL);
	name.gid = UINT32_MAX - 1;
	assert_int_equal(aph_service_open_name(NULL, ep, &name, NULL), geteuid() ? -EPERM : 0);
	aph_endpoint_free(ep);
}

/* Puts something in the place where a service of root was met. */
static int squat(int ctl, void *arg)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const char *path = arg;
	int fd;

	visitor_become(BERT, BERT, NULL, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	CHECK(fd >= 0);
	if (bind(fd, (void *)&address, sizeof(address)) == 0) {
		CHECK_OK(listen(fd, 16));
		chmod(path, 0666);
		child_say(ctl, 'y');
	} else {
		child_say(ctl, 'n');
	}
	/* Nobody may ever connect to this; if one does, it is said. */
	fcntl(fd, F_SETFL, O_NONBLOCK);
	child_hear(ctl, check_hang_ms(60000));
	int got = accept(fd, NULL, NULL);
	unlink(path);
	close(fd);
	if (got >= 0) {
		close(got);
		return 1;
	}
	return 0;
}

static void squatting_is_in_vain(void **state)
{
	struct service_config config = { .address = "caps:wanted,uid=0",
					 .options.flags = APH_ALLOW_ANY };
	struct visitor anna = { .uid = ANNA, .gid = ANNA, .address = "wanted" };
	struct service service;
	struct client client;
	struct aph_endpoint *ep;
	struct aph_channel *channel;
	struct child child;
	char path[108];

	(void)state;
	if (!visitor_need_root())
		return;
	service_start(&service, SERVICE_PROCESS, &config);
	dir_only_socket(path, sizeof(path));
	service_stop(&service);
	child_start(&child, squat, path);
	printf("squatting the path of the first service: %s\n",
	       child_hear(child.ctl, check_hang_ms(5000)) == 'y' ? "possible" : "not possible");
	/* Nobody serves it: neither root nor others are led to the squatter. */
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	assert_int_equal(aph_channel_open(&channel, ep, "caps:wanted,uid=0", NULL), -ENOENT);
	assert_int_equal(aph_channel_open(&channel, ep, "wanted", NULL), -ENOENT);
	aph_endpoint_free(ep);
	visitor_expect(&anna, ENOENT);
	/* And the service can begin all the same. */
	service_start(&service, SERVICE_PROCESS, &config);
	client_open(&client, "caps:wanted,uid=0");
	assert_int_equal(aph_channel_credentials(client.channel)->euid, 0);
	client_echo(client.channel);
	client_close(&client);
	visitor_expect(&anna, 0);
	service_stop(&service);
	child_say(child.ctl, 'q');
	assert_int_equal(child_finish(&child, check_hang_ms(5000)), 0);
	dir_remove_sockets();
}

/* A user's own service under its own uid is never taken for root's, whatever it is called. */
static void another_users_service_is_not_met(void **state)
{
	struct service_config config = {
		.address = "caps:lure", .options.flags = APH_ALLOW_ANY, .uid = BERT, .gid = BERT
	};
	struct visitor anna = { .uid = ANNA, .gid = ANNA, .address = "lure" };
	struct aph_endpoint *ep;
	struct aph_channel *channel;
	struct service service;

	(void)state;
	if (!visitor_need_root())
		return;
	for (int any = 0; any < 2; any++) {
		config.address = any ? "caps:lure,uid=any" : "caps:lure";
		service_start(&service, SERVICE_PROCESS, &config);
		assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
		assert_int_equal(aph_channel_open(&channel, ep, "lure", NULL), -ENOENT);
		assert_int_equal(aph_channel_open(&channel, ep, "caps:lure,uid=0", NULL), -ENOENT);
		/* Root trusts no other user unasked, but may ask for it. */
		assert_int_equal(aph_channel_open(&channel, ep, "caps:lure,uid=any", NULL), 0);
		assert_int_equal(aph_channel_credentials(channel)->euid, BERT);
		client_echo(channel);
		aph_channel_close(channel);
		aph_endpoint_free(ep);
		anna.address = "lure";
		visitor_expect(&anna, ENOENT);
		anna.address = "caps:lure,uid=54321";
		visitor_expect(&anna, ENOENT);
		anna.address = "caps:lure,uid=any";
		visitor_expect(&anna, 0);
		service_stop(&service);
	}
}

static int list_all(int ctl, void *arg)
{
	struct aph_service_info *list;
	size_t n;

	(void)ctl;
	(void)arg;
	visitor_become(ANNA, ANNA, NULL, 0);
	CHECK_OK(aph_directory_list(&list, &n, aph_deadline_ms(2000)));
	for (size_t i = 0; i < n; i++)
		if (list[i].owner != ANNA)
			CHECK(!list[i].has_stats);
	free(list);
	return (int)n;
}

/* A service for its own user alone tells its figures to nobody else. */
static void figures_are_for_those_let_in(void **state)
{
	struct service_config config = { .address = "private" };
	struct service service;
	struct child child;

	(void)state;
	if (!visitor_need_root())
		return;
	service_start(&service, SERVICE_PROCESS, &config);
	child_start(&child, list_all, NULL);
	assert_true(child_finish(&child, check_hang_ms(5000)) <= 1);
	service_stop(&service);
}

/* Another user's file is left alone, whatever it looks like. */
static int leave_hidden(int ctl, void *arg)
{
	const struct timespec old[2] = { { .tv_sec = 1000000000 }, { .tv_sec = 1000000000 } };
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	(void)ctl;
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/.00000000000000aa", dir_path());
	visitor_become(*(uid_t *)arg, *(uid_t *)arg, NULL, 0);
	CHECK_OK(bind(sock, (struct sockaddr *)&address, sizeof(address)));
	CHECK_OK(utimensat(AT_FDCWD, address.sun_path, old, AT_SYMLINK_NOFOLLOW));
	close(sock);
	return 0;
}

static void hidden_files_of_others(void **state)
{
	struct service_config config = { .address = "next", .uid = BERT, .gid = BERT };
	uid_t anna = ANNA, bert = BERT;
	struct service service;
	struct child child;

	(void)state;
	if (!visitor_need_root())
		return;
	child_start(&child, leave_hidden, &anna);
	assert_int_equal(child_finish(&child, check_hang_ms(5000)), 0);
	service_start(&service, SERVICE_PROCESS, &config);
	dir_check_sockets(2);
	service_stop(&service);
	/* Root tidies up after everybody. */
	service_start_simple(&service, SERVICE_PROCESS, "next");
	dir_check_sockets(1);
	service_stop(&service);
	child_start(&child, leave_hidden, &bert);
	assert_int_equal(child_finish(&child, check_hang_ms(5000)), 0);
	service_start(&service, SERVICE_PROCESS, &config);
	dir_check_sockets(1);
	service_stop(&service);
}

/* A group whose members fill pages, in a mount namespace of its own. */
static int with_a_large_group(int ctl, void *arg)
{
	struct aph_name name;
	char path[300];
	FILE *groups;

	(void)ctl;
	(void)arg;
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return 77;
	snprintf(path, sizeof(path), "%s/groups", dir_path());
	groups = fopen(path, "we");
	CHECK(groups);
	fprintf(groups, "crew:x:%u:anna", CREW);
	for (int i = 0; i < 10000; i++)
		fprintf(groups, ",member%d", i);
	fprintf(groups, "\n");
	fclose(groups);
	if (mount(path, "/etc/group", NULL, MS_BIND, NULL) < 0)
		return 77;
	CHECK_OK(aph_name_parse(&name, "caps:any,gid=crew"));
	CHECK(name.gid == (int64_t)CREW);
	CHECK(aph_name_parse(&name, "caps:any,gid=crowd") == -ENOENT);
	CHECK_OK(unlink(path));
	return 0;
}

static void large_groups(void **state)
{
	struct child child;
	int status;

	(void)state;
	if (!visitor_need_root())
		return;
	child_start(&child, with_a_large_group, NULL);
	status = child_finish(&child, check_hang_ms(5000));
	if (status == 77)
		suite_skip("no mount namespaces here");
	assert_int_equal(status, 0);
}

/* A service until it is killed. */
static void serve_for_ever(void)
{
	struct aph_endpoint *ep;
	struct aph_event ev;

	CHECK_OK(aph_endpoint_new(&ep, NULL));
	CHECK_OK(aph_service_open(NULL, ep, "mortal", NULL));
	for (;;)
		(void)aph_endpoint_next(ep, &ev, APH_FOREVER);
}

static pid_t fork_or_die(void (*run)(void))
{
	pid_t pid = (pid_t)CHECK_OK(fork());

	if (pid == 0) {
		run();
		_exit(0);
	}
	return pid;
}

static void wait_for_ever(void)
{
	(void)pause();
}

/*
 * The first process of a pid namespace: whoever it starts next gets the pid of a service that has
 * died.
 */
static void meet_a_stranger(void)
{
	struct aph_channel_options options = { .size = sizeof(options), .flags = APH_CHANNEL_WAIT };
	pid_t server = fork_or_die(serve_for_ever);
	struct aph_channel *channel;
	struct aph_endpoint *ep;
	int fd, last;

	CHECK_OK(aph_endpoint_new(&ep, NULL));
	CHECK_OK(aph_channel_open(&channel, ep, "mortal", &options));
	fd = (int)CHECK_OK(aph_channel_pidfd(channel));
	close(fd);
	CHECK_OK(kill(server, SIGKILL));
	CHECK(waitpid(server, NULL, 0) == server);
	last = (int)CHECK_OK(open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC));
	CHECK(dprintf(last, "%d", (int)server - 1) > 0);
	close(last);
	CHECK(fork_or_die(wait_for_ever) == server);
	CHECK(aph_channel_pidfd(channel) == -ESRCH);
	aph_channel_close(channel);
	aph_endpoint_free(ep);
}

static int in_a_pid_namespace(int ctl, void *arg)
{
	int status;

	(void)ctl;
	(void)arg;
	if (unshare(CLONE_NEWPID) < 0 || access("/proc/sys/kernel/ns_last_pid", W_OK) < 0)
		return 77;
	CHECK(waitpid(fork_or_die(meet_a_stranger), &status, 0) > 0);
	dir_remove_sockets();
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/*
 * A pidfd is never that of a process that got the pid later, also before anybody has looked at the
 * channel.
 */
static void a_stranger_with_the_same_pid(void **state)
{
	struct child child;
	int status;

	(void)state;
	if (!visitor_need_root())
		return;
	if (check_slow())
		suite_skip("sanitizers look for their process in another namespace");
	child_start(&child, in_a_pid_namespace, NULL);
	status = child_finish(&child, check_hang_ms(8000));
	if (status == 77)
		suite_skip("no pid namespaces here");
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(permissions),
		SUITE_TEST(the_default_is_the_user),
		SUITE_TEST(own_before_root),
		SUITE_TEST(the_service_learns_who_calls),
		SUITE_TEST(what_one_may_register),
		SUITE_TEST(ids_out_of_range),
		SUITE_TEST(squatting_is_in_vain),
		SUITE_TEST(another_users_service_is_not_met),
		SUITE_TEST(figures_are_for_those_let_in),
		SUITE_TEST(hidden_files_of_others),
		SUITE_TEST(large_groups),
		SUITE_TEST(a_stranger_with_the_same_pid),
	};

	return suite_run("users", tests, SUITE_LEN(tests), 60);
}

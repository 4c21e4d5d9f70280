/* SPDX-License-Identifier: MIT */
/* The contract, first part: names, ports, who finds whom, and who is let in. */
#include "fixture.h"

#include <signal.h>
#include <stdio.h>
#include <sys/time.h>

/* -- types and constants ----------------------------------------------------------------------- */

static void test_values(void **state)
{
	(void)state;
	assert_int_equal(CAPMS_REQUEST, 0);
	assert_int_equal(CAPMS_REQUEST_RETRY, 1);
	assert_int_equal(CAPMS_REPLY, 2);
	assert_int_equal(CAPMS_REPLY_RETRY, 3);
	assert_int_equal(CAPMS_DISPOSE, 4);
	assert_int_equal(CAPT_UNKNOWN, 0);
	assert_int_equal(CAPT_CLIENT, 1);
	assert_int_equal(CAPT_SERVICE, 2);
	assert_int_equal(CAPT_REMOTE, 3);
	assert_int_equal(CAPT_FORKED, 4);
	assert_int_equal(CAPF_UFLAGS, 0xFFFF);
	assert_int_equal(CAPF_USER, 1);
	assert_int_equal(CAPF_GROUP, 2);
	assert_int_equal(CAPF_WORLD, 4);
	assert_int_equal(CAPF_EXCL, 8);
	assert_int_equal(CAPF_ANYCLIENT, 7);
	assert_int_equal(CAPF_WCRED, 0x10);
	assert_int_equal(CAPF_NOFORK, 0x20);
	assert_int_equal(CAPF_WAITSVC, 0x40);
	assert_int_equal(CAPS_ABORT_NOTIMPL, 0);
	assert_int_equal(CAPS_ABORT_RETURNED, 1);
	assert_int_equal(CAPS_ABORT_BEFORESERVER, 2);
	assert_int_equal(CAPS_ABORT_ATSERVER, 3);
	assert_int_equal(CAPF_ABORT_HARD, 1);
	assert_int_equal(CAPS_MAXGROUPS, 16);
	assert_int_equal(CAPS_MAXNAMELEN, 64);
	assert_int_equal(CAPS_MAXINPROG, 128);
}

static void test_layouts(void **state)
{
	struct caps_msgid id = { (off_t)-1, CAPMS_DISPOSE, -1 };
	caps_msgid_t id_pointer = &id;
	struct caps_cred cred = { .ngroups = 1, .groups = { [15] = 7 } };
	caps_cred_t cred_pointer = &cred;

	(void)state;
	assert_int_equal(sizeof(caps_gen_t), 8);
	assert_true((caps_gen_t)-1 < 0);
	assert_int_equal(sizeof(id_pointer->c_id), sizeof(off_t));
	assert_int_equal(offsetof(struct caps_msgid, c_state), sizeof(off_t));
	assert_int_equal(offsetof(struct caps_msgid, c_reserved01), sizeof(off_t) + sizeof(int));
	assert_int_equal(sizeof(cred_pointer->groups), 16 * sizeof(gid_t));
	assert_int_equal(offsetof(struct caps_cred, pid), 0);
	assert_int_equal(offsetof(struct caps_cred, uid), 4);
	assert_int_equal(offsetof(struct caps_cred, euid), 8);
	assert_int_equal(offsetof(struct caps_cred, gid), 12);
	assert_int_equal(offsetof(struct caps_cred, ngroups), 16);
	assert_int_equal(offsetof(struct caps_cred, cacheid), 20);
	assert_int_equal(offsetof(struct caps_cred, groups), 24);
	assert_int_equal(cred_pointer->groups[15], 7);
}

/* -- ports ------------------------------------------------------------------------------------- */

static void test_ports_count_from_1(void **state)
{
	int a = serve("numbers", CAPF_ANYCLIENT), b = connect_to("numbers", CAPF_ANYCLIENT);
	int c = serve("numbers.2", CAPF_ANYCLIENT);

	(void)state;
	assert_int_equal(a, 1);
	assert_int_equal(b, 2);
	assert_int_equal(c, 3);
	assert_int_equal(caps_sys_close(b), 0);
	assert_int_equal(caps_sys_close(c), 0);
	assert_int_equal(caps_sys_close(a), 0);
	a = serve("numbers", CAPF_ANYCLIENT);
	assert_int_equal(a, 1);
	assert_int_equal(caps_sys_close(a), 0);
}

static void test_close_unknown(void **state)
{
	int service = serve("known", CAPF_ANYCLIENT);

	(void)state;
	FAILS(caps_sys_close(0), EINVAL);
	FAILS(caps_sys_close(-1), EINVAL);
	FAILS(caps_sys_close(service + 1), EINVAL);
	FAILS(caps_sys_close(1 << 30), EINVAL);
	assert_int_equal(caps_sys_close(service), 0);
	FAILS(caps_sys_close(service), EINVAL);
}

static void test_every_call_checks_the_port(void **state)
{
	int i, ports[] = { -1, 0, 5, 1 << 30 };
	char buf[4];

	(void)state;
	for (i = 0; i < 4; i++) {
		FAILS(caps_sys_put(ports[i], buf, 1), EINVAL);
		FAILS(caps_sys_reply(ports[i], buf, 1, 1), EINVAL);
		FAILS(caps_sys_get(ports[i], buf, 4, NULL, NULL), EINVAL);
		FAILS(caps_sys_wait(ports[i], buf, 4, NULL, NULL), EINVAL);
		FAILS(caps_sys_abort(ports[i], 1, 0), EINVAL);
		FAILS(caps_sys_setgen(ports[i], 1), EINVAL);
		FAILS(caps_sys_getgen(ports[i]), EINVAL);
		FAILS(caps_upcall_fd(ports[i]), EINVAL);
		FAILS(caps_limit(ports[i], 1), EINVAL);
	}
}

/* -- names ------------------------------------------------------------------------------------- */

static void test_names(void **state)
{
	static const char *const bad[] = { "",	  "a/b",	 "a b", "a-b", "a,b",
					   "a:b", "caf\xc3\xa9", "a\n", "*" };
	char name[CAPS_MAXNAMELEN + 1];
	int port;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		FAILS(caps_sys_service(bad[i], geteuid(), getegid(), 0, CAPF_ANYCLIENT), EINVAL);
		FAILS(caps_sys_client(bad[i], geteuid(), getegid(), 0, CAPF_ANYCLIENT), EINVAL);
	}
	memset(name, 'n', sizeof(name));
	name[64] = '\0';
	FAILS(caps_sys_service(name, geteuid(), getegid(), 0, CAPF_ANYCLIENT), EINVAL);
	FAILS(caps_sys_client(name, geteuid(), getegid(), 0, CAPF_ANYCLIENT), EINVAL);
	name[63] = '\0';
	port = serve(name, CAPF_ANYCLIENT);
	assert_int_equal(caps_sys_close(connect_to(name, CAPF_ANYCLIENT)), 0);
	assert_int_equal(caps_sys_close(port), 0);
	port = serve("Az09_.", CAPF_ANYCLIENT);
	assert_int_equal(caps_sys_close(port), 0);
	port = serve("x", CAPF_ANYCLIENT);
	assert_int_equal(caps_sys_close(port), 0);
}

/* -- finding ----------------------------------------------------------------------------------- */

/* Whether a search with these ids finds the service "found". */
static bool finds(uid_t uid, gid_t gid)
{
	int port = caps_sys_client("found", uid, gid, 0, CAPF_ANYCLIENT);

	if (port < 0) {
		CHECK(errno == ENOENT);
		return false;
	}
	CHECK_OK(caps_sys_close(port));
	return true;
}

static void test_no_match(void **state)
{
	int port = serve("somebody.else", CAPF_ANYCLIENT);

	(void)state;
	assert_false(finds(geteuid(), getegid()));
	assert_false(finds(UID_ANY, GID_ANY));
	assert_int_equal(caps_sys_close(port), 0);
}

static void test_not_registered_for_uid(void **state)
{
	int port = caps_sys_service("found", UID_ANY, getegid(), 0, CAPF_ANYCLIENT);

	(void)state;
	assert_true(port > 0);
	assert_false(finds(geteuid(), GID_ANY));
	assert_false(finds(geteuid(), getegid()));
	assert_true(finds(UID_ANY, getegid()));
	assert_true(finds(UID_ANY, GID_ANY));
	assert_int_equal(caps_sys_close(port), 0);
}

static void test_not_registered_for_gid(void **state)
{
	int port = caps_sys_service("found", geteuid(), GID_ANY, 0, CAPF_ANYCLIENT);

	(void)state;
	assert_true(port > 0);
	assert_false(finds(UID_ANY, getegid()));
	assert_false(finds(geteuid(), getegid()));
	assert_true(finds(geteuid(), GID_ANY));
	assert_true(finds(UID_ANY, GID_ANY));
	assert_int_equal(caps_sys_close(port), 0);
}

static void test_minus_1_matches_any(void **state)
{
	int port = serve("found", CAPF_ANYCLIENT);

	(void)state;
	assert_true(finds(geteuid(), getegid()));
	assert_true(finds(UID_ANY, getegid()));
	assert_true(finds(geteuid(), GID_ANY));
	assert_true(finds(UID_ANY, GID_ANY));
	assert_false(finds(geteuid() + 1, GID_ANY));
	assert_false(finds(UID_ANY, getegid() + 1));
	assert_int_equal(caps_sys_close(port), 0);
	assert_false(finds(geteuid(), getegid()));
}

static void test_newest_first(void **state)
{
	int i, services[3], client;

	(void)state;
	for (i = 0; i < 3; i++)
		services[i] = serve("many", CAPF_ANYCLIENT);
	for (i = 2; i >= 0; i--) {
		client = connect_to("many", CAPF_ANYCLIENT);
		round_trip(client, services[i]);
		assert_int_equal(caps_sys_close(client), 0);
		assert_int_equal(caps_sys_close(services[i]), 0);
	}
	FAILS(caps_sys_client("many", geteuid(), getegid(), 0, CAPF_ANYCLIENT), ENOENT);
}

static void test_exclusive(void **state)
{
	int port = serve("only", CAPF_ANYCLIENT | CAPF_EXCL), other;

	(void)state;
	FAILS(caps_sys_service("only", geteuid(), getegid(), 0, CAPF_ANYCLIENT | CAPF_EXCL),
	      EEXIST);
	FAILS(caps_sys_service("only", UID_ANY, getegid(), 0, CAPF_ANYCLIENT | CAPF_EXCL), EEXIST);
	FAILS(caps_sys_service("only", geteuid(), GID_ANY, 0, CAPF_ANYCLIENT | CAPF_EXCL), EEXIST);
	/* Without the flag, and as another triple, it is nobody's business. */
	other = serve("only", CAPF_ANYCLIENT);
	assert_int_equal(caps_sys_close(other), 0);
	assert_int_equal(caps_sys_close(port), 0);
	port = serve("only", CAPF_ANYCLIENT | CAPF_EXCL);
	assert_int_equal(caps_sys_close(port), 0);
}

static int exclusive_child(int ctl, void *arg)
{
	(void)ctl;
	(void)arg;
	FAILS(caps_sys_service("only", geteuid(), getegid(), 0, CAPF_ANYCLIENT | CAPF_EXCL),
	      EEXIST);
	return 0;
}

static void test_exclusive_elsewhere(void **state)
{
	int port = serve("only", CAPF_ANYCLIENT);
	struct child child;

	(void)state;
	child_of_threads(&child, exclusive_child, NULL);
	assert_int_equal(child_finish(&child, check_hang_ms(5000)), 0);
	assert_int_equal(caps_sys_close(port), 0);
}

/* -- waiting for a service --------------------------------------------------------------------- */

static int late_service(int ctl, void *arg)
{
	int port;

	(void)arg;
	CHECK(child_hear(ctl, check_hang_ms(5000)) == 'g');
	(void)usleep(50000);
	port = serve("late", CAPF_ANYCLIENT);
	CHECK(child_hear(ctl, check_hang_ms(5000)) == 'x');
	CHECK_OK(caps_sys_close(port));
	return 0;
}

static void test_wait_for_service(void **state)
{
	struct child child;
	int client;

	(void)state;
	child_start(&child, late_service, NULL);
	FAILS(caps_sys_client("late", geteuid(), getegid(), 0, CAPF_ANYCLIENT), ENOENT);
	child_say(child.ctl, 'g');
	client = connect_to("late", CAPF_ANYCLIENT | CAPF_WAITSVC);
	assert_int_equal(caps_sys_close(client), 0);
	child_say(child.ctl, 'x');
	assert_int_equal(child_finish(&child, check_hang_ms(5000)), 0);
}

static void on_alarm(int signal)
{
	(void)signal;
}

static void alarm_in(int ms, int flags)
{
	struct sigaction action = { .sa_handler = on_alarm, .sa_flags = flags };
	/* Again and again: one that comes before the call sleeps would be lost. */
	struct itimerval timer = { { 0, 20000 }, { 0, ms * 1000 } };

	(void)sigaction(SIGALRM, &action, NULL);
	(void)setitimer(ITIMER_REAL, &timer, NULL);
}

static void alarm_off(void)
{
	struct itimerval none = { 0 };

	(void)setitimer(ITIMER_REAL, &none, NULL);
	(void)signal(SIGALRM, SIG_DFL);
}

static void test_waiting_is_interrupted(void **state)
{
	(void)state;
	alarm_in(50, 0);
	FAILS(caps_sys_client("never", geteuid(), getegid(), 0, CAPF_ANYCLIENT | CAPF_WAITSVC),
	      EINTR);
	alarm_off();
}

/* -- permission -------------------------------------------------------------------------------- */

/* As whom a child connects, and what it gets. */
struct attempt {
	const char *name;
	uid_t uid, euid;
	gid_t gid;
	gid_t further;
	int flags;
	int e; /* 0: it gets in */
};

static int attempt_child(int ctl, void *arg)
{
	const struct attempt *attempt = arg;
	int port;

	(void)ctl;
	become(attempt->uid, attempt->gid, &attempt->further, attempt->further ? 1 : 0);
	port = caps_sys_client(attempt->name, UID_ANY, GID_ANY, 0, attempt->flags);
	if (attempt->e) {
		FAILS(port, attempt->e);
	} else {
		CHECK_OK(port);
		CHECK_OK(caps_sys_close(port));
	}
	return 0;
}

/* The service does nothing at all meanwhile: its process waits for the child. */
static void attempt_as(const char *name, uid_t uid, gid_t gid, gid_t further, int flags, int e)
{
	struct attempt attempt = { name, uid, uid, gid, further, flags, e };
	struct child child;

	child_of_threads(&child, attempt_child, &attempt);
	assert_int_equal(child_finish(&child, check_hang_ms(5000)), 0);
}

static int as_alice(const char *name, int flags)
{
	return (int)CHECK_OK(caps_sys_service(name, ALICE, ALICES_GID, 0, flags));
}

static void test_user(void **state)
{
	int port;

	(void)state;
	need_root();
	port = as_alice("rights", CAPF_USER);
	attempt_as("rights", ALICE, BOBS_GID, 0, CAPF_ANYCLIENT, 0);
	attempt_as("rights", ALICE, BOBS_GID, 0, CAPF_USER, 0);
	attempt_as("rights", ALICE, ALICES_GID, 0, CAPF_GROUP | CAPF_WORLD, EACCES);
	attempt_as("rights", BOB, ALICES_GID, 0, CAPF_ANYCLIENT, EACCES);
	FAILS(caps_sys_client("rights", UID_ANY, GID_ANY, 0, CAPF_ANYCLIENT),
	      EACCES); /* root is no user */
	assert_int_equal(caps_sys_close(port), 0);
	port = caps_sys_service("rights", UID_ANY, ALICES_GID, 0, CAPF_USER);
	assert_true(port > 0);
	attempt_as("rights", ALICE, ALICES_GID, 0, CAPF_ANYCLIENT, EACCES);
	assert_int_equal(caps_sys_close(port), 0);
}

static void test_group(void **state)
{
	int port;

	(void)state;
	need_root();
	port = as_alice("rights", CAPF_GROUP);
	attempt_as("rights", BOB, ALICES_GID, 0, CAPF_ANYCLIENT, 0);
	attempt_as("rights", BOB, BOBS_GID, ALICES_GID, CAPF_GROUP, 0);
	attempt_as("rights", BOB, BOBS_GID, 0, CAPF_ANYCLIENT, EACCES);
	attempt_as("rights", ALICE, BOBS_GID, 0, CAPF_ANYCLIENT, EACCES);
	attempt_as("rights", ALICE, ALICES_GID, 0, CAPF_USER | CAPF_WORLD, EACCES);
	assert_int_equal(caps_sys_close(port), 0);
}

static void test_world(void **state)
{
	int port;

	(void)state;
	need_root();
	port = as_alice("rights", CAPF_WORLD);
	attempt_as("rights", BOB, BOBS_GID, 0, CAPF_ANYCLIENT, 0);
	attempt_as("rights", BOB, BOBS_GID, 0, CAPF_WORLD, 0);
	attempt_as("rights", ALICE, ALICES_GID, 0, CAPF_USER | CAPF_GROUP, EACCES);
	assert_int_equal(caps_sys_close(port), 0);
}

static void test_nobody(void **state)
{
	int port = serve("rights", 0);

	(void)state;
	FAILS(caps_sys_client("rights", geteuid(), getegid(), 0, CAPF_ANYCLIENT), EACCES);
	assert_int_equal(caps_sys_close(port), 0);
	port = serve("rights", CAPF_ANYCLIENT);
	FAILS(caps_sys_client("rights", geteuid(), getegid(), 0, 0), EACCES);
	FAILS(caps_sys_client("no.rights", geteuid(), getegid(), 0, 0), ENOENT);
	assert_int_equal(caps_sys_close(port), 0);
}

struct registration {
	uid_t uid;
	gid_t gid;
	int e;
};

static int registration_child(int ctl, void *arg)
{
	static const gid_t further[] = { ALICES_GID + 100 };
	static const struct registration all[] = {
		{ ALICE, ALICES_GID, 0 },
		{ ALICE, GID_ANY, 0 },
		{ UID_ANY, ALICES_GID, 0 },
		{ UID_ANY, GID_ANY, 0 },
		{ ALICE, ALICES_GID + 100, 0 },
		{ BOB, ALICES_GID, EPERM },
		{ 0, 0, EPERM },
		{ ALICE, BOBS_GID, EPERM },
		{ UID_ANY, BOBS_GID, EPERM },
		{ BOB, GID_ANY, EPERM },
	};
	size_t i;

	(void)ctl;
	(void)arg;
	become(ALICE, ALICES_GID, further, 1);
	for (i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		int port = caps_sys_service("mine", all[i].uid, all[i].gid, 0, CAPF_ANYCLIENT);

		if (all[i].e) {
			FAILS(port, all[i].e);
		} else {
			CHECK_OK(port);
			CHECK_OK(caps_sys_close(port));
		}
	}
	return 0;
}

static void test_who_may_register(void **state)
{
	struct child child;
	int port;

	(void)state;
	need_root();
	child_start(&child, registration_child, NULL);
	assert_int_equal(child_finish(&child, check_hang_ms(5000)), 0);
	port = caps_sys_service("for.bob", BOB, BOBS_GID, 0, CAPF_ANYCLIENT);
	assert_true(port > 0); /* root may register as anybody */
	assert_int_equal(caps_sys_close(port), 0);
}

static int search_child(int ctl, void *arg)
{
	int port, i, tries = *(int *)arg;

	(void)ctl;
	become(ALICE, ALICES_GID, NULL, 0);
	for (i = 1, port = -1; port < 0; i++) {
		CHECK(i <= 3);
		if (i == 1)
			port = caps_sys_client("generic", getuid(), GID_ANY, 0, CAPF_ANYCLIENT);
		else if (i == 2)
			port = caps_sys_client("generic", UID_ANY, getgid(), 0, CAPF_ANYCLIENT);
		else
			port = caps_sys_client("generic", 0, 0, 0, CAPF_ANYCLIENT);
	}
	CHECK(i == tries + 1);
	CHECK_OK(caps_sys_close(port));
	return 0;
}

static void test_usual_search(void **state)
{
	static const struct {
		uid_t uid;
		gid_t gid;
		int tries;
	} all[] = { { ALICE, GID_ANY, 1 }, { UID_ANY, ALICES_GID, 2 }, { 0, 0, 3 } };
	size_t i;

	(void)state;
	need_root();
	for (i = 0; i < 3; i++) {
		int port = caps_sys_service("generic", all[i].uid, all[i].gid, 0, CAPF_ANYCLIENT);
		int tries = all[i].tries;
		struct child child;

		assert_true(port > 0);
		child_of_threads(&child, search_child, &tries);
		assert_int_equal(child_finish(&child, check_hang_ms(5000)), 0);
		assert_int_equal(caps_sys_close(port), 0);
	}
}

/* -- the contract ------------------------------------------------------------------------------ */

int main(void)
{
	static const struct CMUnitTest tests[] = {
		SENTENCE("the constants have their historical values", test_values),
		SENTENCE("the structures have their historical layouts", test_layouts),
		SENTENCE("ports are small positive integers, counted from 1",
			 test_ports_count_from_1),
		SENTENCE("close: EINVAL for an unknown port", test_close_unknown),
		SENTENCE("every call: EINVAL for an unknown port", test_every_call_checks_the_port),
		SENTENCE("a name is 1 to 63 characters of letters, digits, _ and . else EINVAL",
			 test_names),
		SENTENCE("service: uid -1 means not registered for searches by uid",
			 test_not_registered_for_uid),
		SENTENCE("service: gid -1 means not registered for searches by gid",
			 test_not_registered_for_gid),
		SENTENCE("client: uid or gid -1 matches any", test_minus_1_matches_any),
		SENTENCE("client: no match is ENOENT", test_no_match),
		SENTENCE("services may share a triple: the newest is found first",
			 test_newest_first),
		SENTENCE("service: EEXIST with CAPF_EXCL if one matches", test_exclusive),
		SENTENCE("service: CAPF_EXCL looks beyond this process", test_exclusive_elsewhere),
		SENTENCE("client: CAPF_WAITSVC waits until a service registers",
			 test_wait_for_service),
		SENTENCE("client: CAPF_WAITSVC ends with EINTR on a signal",
			 test_waiting_is_interrupted),
		SENTENCE("permission USER: the service's uid is the client's effective uid",
			 test_user),
		SENTENCE("permission GROUP: the client is in the service's gid", test_group),
		SENTENCE("permission WORLD always passes", test_world),
		SENTENCE("no common permission: EACCES", test_nobody),
		SENTENCE("service: EPERM for foreign ids, unless it is root",
			 test_who_may_register),
		SENTENCE("client: (uid, -1), then (-1, gid), then (0, 0)", test_usual_search),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

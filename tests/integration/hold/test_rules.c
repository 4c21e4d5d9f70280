/* SPDX-License-Identifier: MIT */
/* Who may do what: rules and limits as they are read, and as two users meet them. */
#include "fixture.h"

#include "facade/hold/error.h"
#include "facade/hold/rules.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

static void rules_are_read(void **state)
{
	static const char *const bad[] = {
		"",
		"can=store",
		"prefix=a",
		"uid",
		"uid=",
		"uid=nobody.of.that.name",
		"uid=-1",
		"uid=4294967295",
		"uid=1x",
		"gid=no.such.group",
		"gid=any",
		"uid=1,owner=no.such.user",
		"uid=1,prefix=",
		"uid=1,prefix=@x",
		"uid=1,can=",
		"uid=1,can=store+fly",
		"uid=1,colour=red",
		"uid=1,owner",
	};
	struct hold_rule rule;
	char longest[400];

	(void)state;
	for (size_t i = 0; i < SUITE_LEN(bad); i++) {
		assert_int_equal(hold_rule_parse(&rule, bad[i]), -EINVAL);
		assert_true(strlen(aph_hold_error()) > 10);
	}
	memset(longest, ',', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	assert_int_equal(hold_rule_parse(&rule, longest), -EINVAL);

	assert_int_equal(hold_rule_parse(&rule, "uid=any"), 0);
	assert_true(rule.uid == APH_ID_ANY && rule.gid == APH_ID_ANY);
	assert_true(rule.owner == HOLD_OWNER_SELF && rule.can == HOLD_CAN_ALL);
	assert_int_equal(hold_rule_parse(&rule, "uid=root,owner=any,prefix=web.,can=list+retrieve"),
			 0);
	assert_true(rule.uid == 0 && rule.owner == APH_ID_ANY);
	assert_true(rule.can == (HOLD_CAN_LIST | HOLD_CAN_RETRIEVE));
	assert_string_equal(rule.prefix, "web.");
	assert_int_equal(hold_rule_parse(&rule, "gid=7,owner=12,can=all"), 0);
	assert_true(rule.uid == APH_ID_ANY && rule.gid == 7 && rule.owner == 12);
	assert_int_equal(hold_rule_parse(&rule, "uid=4294967294"), 0);
}

static void limits_are_read(void **state)
{
	static const char *const bad[] = { "",	 "x",	      "-1", "1x", "=1", "no.such.user=1",
					   "1=", "2147483648" };
	struct hold_limit limit;

	(void)state;
	for (size_t i = 0; i < SUITE_LEN(bad); i++)
		assert_int_equal(hold_limit_parse(&limit, bad[i]), -EINVAL);
	assert_int_equal(hold_limit_parse(&limit, "0"), 0);
	assert_true(limit.uid == APH_ID_ANY && limit.n_fds == 0);
	assert_int_equal(hold_limit_parse(&limit, "root=12"), 0);
	assert_true(limit.uid == 0 && limit.n_fds == 12);
}

static void rules_are_applied(void **state)
{
	static const gid_t groups[] = { 5, 7 };
	const struct aph_credentials who = {
		.uid = 1, .euid = 10, .gid = 2, .egid = 20, .n_groups = 2, .groups = groups
	};
	static const struct {
		const char *rule;
		bool fits; /* storing "web.a" of user 10 */
	} table[] = {
		{ "uid=10", true },
		{ "uid=1", false },
		{ "uid=any", true },
		{ "gid=20", true },
		{ "gid=7", true },
		{ "gid=2", false },
		{ "uid=10,gid=6", false },
		{ "uid=10,prefix=web.", true },
		{ "uid=10,prefix=web.ab", false },
		{ "uid=10,can=store", true },
		{ "uid=10,can=retrieve+list+transfer+delete", false },
		{ "uid=10,owner=10", true },
		{ "uid=10,owner=11", false },
		{ "uid=10,owner=any", true },
	};
	struct hold_rule rule;

	(void)state;
	for (size_t i = 0; i < SUITE_LEN(table); i++) {
		assert_int_equal(hold_rule_parse(&rule, table[i].rule), 0);
		assert_int_equal(hold_rule_fits(&rule, &who, HOLD_CAN_STORE, 10, "web.a"),
				 table[i].fits);
	}
	assert_int_equal(hold_rule_parse(&rule, "uid=any"), 0);
	assert_false(hold_rule_fits(&rule, &who, HOLD_CAN_STORE, 11, "web.a"));
	assert_int_equal(hold_rule_parse(&rule, "uid=any,can=store"), 0);
	assert_false(hold_rule_fits(&rule, &who, HOLD_CAN_STORE | HOLD_CAN_DELETE, 10, "web.a"));
}

/* -- as users meet them ------------------------------------------------------------------------ */

static struct aph_hold *open_of_root(void)
{
	struct aph_hold *hold;

	CHECK_OK(aph_hold_open(&hold, "caps:hold,uid=0", SOON));
	return hold;
}

static size_t count(struct aph_hold *hold, uint32_t flags)
{
	const struct aph_hold_options options = { .size = sizeof(options), .flags = flags };
	struct aph_hold_info *list;
	size_t n;

	CHECK_OK(aph_hold_list(hold, NULL, &list, &n, &options, SOON));
	free(list);
	return n;
}

static int stranger(int ctl, void *arg)
{
	struct aph_hold_acceptance *acceptance;
	struct aph_hold_offer *offer;
	struct aph_hold_info *list;
	struct aph_hold *hold;
	size_t n = 1;
	int fd;

	(void)ctl;
	(void)arg;
	become(ALICE);
	hold = open_of_root();
	CHECK(store(hold, "x", "x", 0) == -EACCES);
	CHECK(retrieve(hold, "x", "x", 0) == -EACCES);
	CHECK(aph_hold_delete(hold, "x", NULL, SOON) == -EACCES);
	CHECK(aph_hold_list(hold, NULL, &list, &n, NULL, SOON) == -EACCES);
	CHECK_OK(aph_hold_offer(&offer, hold, "x", ALICE, NULL));
	CHECK(aph_hold_offer_wait(offer, SOON) == -EACCES);
	CHECK(aph_hold_accept(&acceptance, hold, "x", &fd, &n, NULL, SOON) == -EACCES);
	CHECK(aph_hold_stop(hold, SOON) == -EACCES);
	aph_hold_close(hold);
	return 0;
}

static void strangers_may_nothing(void **state)
{
	struct keeper keeper;
	struct child child;

	(void)state;
	need_root();
	keeper_start(&keeper, NULL);
	child_start(&child, stranger, NULL);
	assert_int_equal(child_finish(&child, check_hang_ms(10000)), 0);
	keeper_stop(&keeper);
}

static int ruled_alice(int ctl, void *arg)
{
	struct aph_hold_options of_bob = { .size = sizeof(of_bob),
					   .flags = APH_HOLD_OWNER,
					   .owner = BOB };
	struct aph_hold *hold;
	size_t n = 1;
	int fd;

	(void)ctl;
	(void)arg;
	become(ALICE);
	hold = open_of_root();
	/* "uid=ALICE,prefix=a." and "uid=ALICE,owner=BOB,can=retrieve+list,prefix=b." */
	CHECK_OK(store(hold, "a.one", "1", 0));
	CHECK(store(hold, "b.one", "1", 0) == -EACCES);
	CHECK(retrieve(hold, "a.one", "1", 0) == 0);
	fd = marked("x");
	CHECK(aph_hold_store(hold, "b.two", &fd, 1, &of_bob, SOON) == -EACCES);
	close(fd);
	CHECK_OK(aph_hold_retrieve(hold, "b.bobs", &fd, &n, &of_bob, SOON));
	CHECK(is_marked(fd, "bob"));
	close(fd);
	CHECK(aph_hold_retrieve(hold, "c.bobs", &fd, &n, &of_bob, SOON) == -EACCES);
	CHECK(aph_hold_delete(hold, "b.bobs", &of_bob, SOON) == -EACCES);
	of_bob.flags |= APH_HOLD_TAKE;
	CHECK(aph_hold_retrieve(hold, "b.bobs", &fd, &n, &of_bob, SOON) == -EACCES);
	CHECK(count(hold, 0) == 1);
	CHECK(count(hold, APH_HOLD_ALL) == 2);
	/* Her limit is three. */
	CHECK_OK(store(hold, "a.two", "2", 0));
	CHECK_OK(store(hold, "a.three", "3", 0));
	CHECK(store(hold, "a.four", "4", 0) == -EDQUOT);
	CHECK(aph_hold_stop(hold, SOON) == -EACCES);
	aph_hold_close(hold);
	return 0;
}

static int ruled_bob(int ctl, void *arg)
{
	struct aph_hold *hold;

	(void)ctl;
	(void)arg;
	become(BOB);
	hold = open_of_root();
	CHECK_OK(store(hold, "b.bobs", "bob", 0));
	CHECK_OK(store(hold, "c.bobs", "bob", 0));
	/* A name of hers is another in his hands. */
	CHECK_OK(store(hold, "a.one", "bob", 0));
	CHECK(count(hold, APH_HOLD_ALL) == 3);
	aph_hold_close(hold);
	return 0;
}

static void rules_between_users(void **state)
{
	static const char *const rules[] = {
		"uid=54321,prefix=a.",
		"uid=54321,owner=54322,can=retrieve+list,prefix=b.",
		"uid=54322",
	};
	static const char *const limit[] = { "100", "54321=3" };
	struct aph_hold_keeper_options options = {
		.size = sizeof(options),
		.rules = rules,
		.n_rules = SUITE_LEN(rules),
		.limits = limit,
		.n_limits = SUITE_LEN(limit),
	};
	struct aph_hold_options of_alice = { .size = sizeof(of_alice),
					     .flags = APH_HOLD_OWNER,
					     .owner = ALICE };
	struct keeper keeper;
	struct child child;
	struct aph_hold *hold;

	(void)state;
	need_root();
	keeper_start(&keeper, &options);
	child_start(&child, ruled_bob, NULL);
	assert_int_equal(child_finish(&child, check_hang_ms(10000)), 0);
	child_start(&child, ruled_alice, NULL);
	assert_int_equal(child_finish(&child, check_hang_ms(10000)), 0);
	/* Root sees and touches everything. */
	hold = hold_open();
	assert_int_equal(count(hold, 0), 0);
	assert_int_equal(count(hold, APH_HOLD_ALL), 6);
	assert_int_equal(aph_hold_delete(hold, "a.one", &of_alice, SOON), 0);
	assert_int_equal(count(hold, APH_HOLD_ALL), 5);
	aph_hold_close(hold);
	keeper_stop(&keeper);
}

static size_t count_of(struct aph_hold *hold, const char *prefix)
{
	struct aph_hold_info *list;
	size_t n;

	CHECK_OK(aph_hold_list(hold, prefix, &list, &n, NULL, SOON));
	free(list);
	return n;
}

static int transferring_alice(int ctl, void *arg)
{
	struct aph_hold *hold;

	(void)ctl;
	(void)arg;
	become(ALICE);
	hold = open_of_root();
	CHECK_OK(store(hold, "t.one", "1", 0));
	CHECK_OK(store(hold, "u.one", "1", 0));
	/* What confirming asks when the keeper has died meanwhile. */
	CHECK(count_of(hold, "t.one") == 1);
	CHECK(count_of(hold, "u.one") == 0);
	CHECK(count_of(hold, "t.") == 0);
	CHECK(count_of(hold, NULL) == 0);
	aph_hold_close(hold);
	return 0;
}

/* Who may transfer can find out about a name whether it is his, and may see nothing else. */
static void what_transferring_shows(void **state)
{
	static const char *const rules[] = { "uid=54321,can=store+transfer,prefix=t.",
					     "uid=54321,can=store,prefix=u." };
	struct aph_hold_keeper_options options = {
		.size = sizeof(options),
		.rules = rules,
		.n_rules = SUITE_LEN(rules),
	};
	struct keeper keeper;
	struct child child;

	(void)state;
	need_root();
	keeper_start(&keeper, &options);
	child_start(&child, transferring_alice, NULL);
	assert_int_equal(child_finish(&child, 10000), 0);
	keeper_stop(&keeper);
}

/* A keeper of a user: root may use it, another user not. */
static int alices_keeper(int ctl, void *arg)
{
	(void)arg;
	become(ALICE);
	child_say(ctl, 'r');
	return -aph_hold_keep(NULL);
}

static int visitor(int ctl, void *arg)
{
	struct aph_hold *hold;

	(void)ctl;
	(void)arg;
	become(BOB);
	CHECK_OK(aph_hold_open(&hold, "caps:hold,uid=54321", SOON));
	CHECK(store(hold, "x", "x", 0) == -EACCES);
	CHECK(aph_hold_stop(hold, SOON) == -EACCES);
	aph_hold_close(hold);
	return 0;
}

static void a_keeper_of_a_user(void **state)
{
	struct child keeper, child;
	struct aph_hold *hold;
	int r = -ENOENT;

	(void)state;
	need_root();
	child_start(&keeper, alices_keeper, NULL);
	assert_int_equal(child_hear(keeper.ctl, check_hang_ms(5000)), 'r');
	for (int i = 0; r == -ENOENT && i < 50; i++)
		r = aph_hold_open(&hold, "caps:hold,uid=54321", SOON);
	assert_int_equal(r, 0);
	child_start(&child, visitor, NULL);
	assert_int_equal(child_finish(&child, check_hang_ms(10000)), 0);
	assert_int_equal(store(hold, "roots", "x", 0), 0);
	assert_int_equal(retrieve(hold, "roots", "x", 0), 0);
	assert_int_equal(aph_hold_stop(hold, SOON), 0);
	aph_hold_close(hold);
	assert_int_equal(child_finish(&keeper, check_hang_ms(5000)), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(rules_are_read),    cmocka_unit_test(limits_are_read),
		cmocka_unit_test(rules_are_applied), HOLD_TEST(strangers_may_nothing),
		HOLD_TEST(rules_between_users),	     HOLD_TEST(a_keeper_of_a_user),
		HOLD_TEST(what_transferring_shows),
	};

	return suite_run("hold rules", tests, SUITE_LEN(tests), 60);
}

/* SPDX-License-Identifier: MIT */
/*
 * A name goes from one owner to the next: in which order, and what happens when either dies on the
 * way.
 */
#include "fixture.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int accept_one(struct aph_hold_acceptance **acceptance, struct aph_hold *hold,
		      const char *name, const char *text, uint64_t deadline_ns)
{
	size_t n = 1;
	int fd, r = aph_hold_accept(acceptance, hold, name, &fd, &n, NULL, deadline_ns);

	if (r < 0)
		return r;
	CHECK(is_marked(fd, text));
	close(fd);
	return 0;
}

/*
 * An offer is not waited for. What the same connection asks next is answered after it, though: then
 * the offer stands, or its result is there.
 */
static int stands(struct aph_hold_offer *offer, struct aph_hold *hold)
{
	CHECK(retrieve(hold, "web", "x", 0) == 0);
	return aph_hold_offer_wait(offer, APH_NOW);
}

/*
 * Kills the keeper, and waits until it runs no more. It is ours: what it leaves behind comes to us.
 */
static void crash(pid_t pid)
{
	CHECK_OK(kill(pid, SIGKILL));
	child_await_state(pid, 'Z', check_hang_ms(10000));
}

static void the_new_one_first(void **state)
{
	struct aph_hold_acceptance *acceptance;
	struct aph_hold_offer *offer, *second;
	struct aph_hold *old, *new;
	struct keeper keeper;

	(void)state;
	keeper_start(&keeper, NULL);
	old = hold_open();
	new = hold_open();
	assert_int_equal(store(old, "web", "x", 0), 0);
	assert_int_equal(aph_hold_offer(&offer, old, "nothing", geteuid(), NULL), 0);
	assert_int_equal(aph_hold_offer_wait(offer, SOON), -ENOENT);
	assert_int_equal(aph_hold_offer_wait(offer, SOON), -ENOENT);
	assert_null(aph_hold_offer_free(offer));
	assert_null(aph_hold_offer_free(NULL));
	assert_null(aph_hold_decline(NULL));

	assert_int_equal(aph_hold_offer(&offer, old, "web", geteuid(), NULL), 0);
	assert_int_equal(stands(offer, old), -ETIMEDOUT);
	assert_int_equal(aph_hold_offer(&second, new, "web", geteuid(), NULL), 0);
	assert_int_equal(aph_hold_offer_wait(second, SOON), -EBUSY);
	aph_hold_offer_free(second);
	assert_int_equal(store(new, "web", "y", APH_HOLD_REPLACE), -EBUSY);
	assert_int_equal(retrieve(new, "web", "x", APH_HOLD_TAKE), -EBUSY);
	assert_int_equal(retrieve(new, "web", "x", 0), 0);

	assert_int_equal(accept_one(&acceptance, new, "web", "x", SOON), 0);
	/* It has them, and has not said that it is ready. */
	assert_int_equal(aph_hold_offer_wait(offer, aph_deadline_ms(20)), -ETIMEDOUT);
	assert_int_equal(aph_hold_delete(new, "web", NULL, SOON), -EBUSY);
	assert_int_equal(aph_hold_confirm(acceptance, SOON), 0);
	assert_int_equal(aph_hold_offer_wait(offer, SOON), 0);
	assert_int_equal(aph_hold_offer_wait(offer, APH_NOW), 0);
	aph_hold_offer_free(offer);
	assert_int_equal(retrieve(new, "web", "x", 0), 0);
	assert_int_equal(aph_hold_delete(new, "web", NULL, SOON), 0);
	aph_hold_close(old);
	aph_hold_close(new);
	keeper_stop(&keeper);
}

static void declined_withdrawn_deleted(void **state)
{
	struct aph_hold_acceptance *acceptance;
	struct aph_hold_offer *offer;
	struct aph_hold *old, *new;
	struct keeper keeper;

	(void)state;
	keeper_start(&keeper, NULL);
	old = hold_open();
	new = hold_open();
	assert_int_equal(accept_one(&acceptance, new, "web", "x", SOON), -ENOENT);
	assert_int_equal(store(old, "web", "x", 0), 0);
	assert_int_equal(accept_one(&acceptance, new, "web", "x", aph_deadline_ms(20)), -ETIMEDOUT);
	/* Declined: the offer stands, and somebody else may have it. */
	assert_int_equal(aph_hold_offer(&offer, old, "web", geteuid(), NULL), 0);
	assert_int_equal(accept_one(&acceptance, new, "web", "x", SOON), 0);
	aph_hold_decline(acceptance);
	assert_int_equal(aph_hold_offer_wait(offer, aph_deadline_ms(10)), -ETIMEDOUT);
	assert_int_equal(accept_one(&acceptance, new, "web", "x", SOON), 0);
	/* Withdrawn under it: nothing has changed. */
	aph_hold_offer_free(offer);
	assert_int_equal(retrieve(old, "web", "x", 0), 0);
	assert_int_equal(aph_hold_confirm(acceptance, SOON), -ECANCELED);
	assert_int_equal(retrieve(old, "web", "x", 0), 0);
	/* The name goes away while it is offered. */
	assert_int_equal(aph_hold_offer(&offer, old, "web", geteuid(), NULL), 0);
	assert_int_equal(stands(offer, old), -ETIMEDOUT);
	assert_int_equal(aph_hold_delete(new, "web", NULL, SOON), 0);
	assert_int_equal(aph_hold_offer_wait(offer, SOON), -ENOENT);
	/* Closed with its connection. */
	assert_int_equal(store(old, "web", "x", 0), 0);
	assert_int_equal(aph_hold_offer(&offer, old, "web", geteuid(), NULL), 0);
	assert_int_equal(accept_one(&acceptance, new, "web", "x", SOON), 0);
	aph_hold_close(new);
	aph_hold_close(old);
	keeper_stop(&keeper);
}

/* A name that expires, offered and accepted before it does: how long that took at most. */
static unsigned accept_before_expiry(struct aph_hold *old, struct aph_hold *new,
				     struct aph_hold_offer **offer,
				     struct aph_hold_acceptance **acceptance)
{
	struct aph_hold_options options = { .size = sizeof(options), .expiry_ms = 30 };
	int fd = marked("x"), r;

	/* On a busy machine it may have expired before anybody had a chance. */
	for (;; options.expiry_ms *= 2) {
		assert_int_equal(aph_hold_store(old, "web", &fd, 1, &options, SOON), 0);
		assert_int_equal(aph_hold_offer(offer, old, "web", geteuid(), NULL), 0);
		r = accept_one(acceptance, new, "web", "x", SOON);
		if (r == 0)
			break;
		assert_int_equal(r, -ENOENT);
		assert_int_equal(aph_hold_offer_wait(*offer, SOON), -ENOENT);
		aph_hold_offer_free(*offer);
		assert_true(options.expiry_ms < 5000);
	}
	close(fd);
	return (unsigned)options.expiry_ms;
}

/* It cannot expire between the two, and does so once it is given back. */
static void expiry_waits(void **state)
{
	struct aph_hold_acceptance *acceptance;
	struct aph_hold_offer *offer;
	struct aph_hold *old, *new;
	struct keeper keeper;
	unsigned ms;

	(void)state;
	keeper_start(&keeper, NULL);
	old = hold_open();
	new = hold_open();
	ms = accept_before_expiry(old, new, &offer, &acceptance);
	assert_int_equal(aph_hold_offer_wait(offer, aph_deadline_ms(2 * ms)), -ETIMEDOUT);
	assert_int_equal(retrieve(old, "web", "x", 0), 0);
	aph_hold_decline(acceptance);
	assert_int_equal(aph_hold_offer_wait(offer, SOON), -ENOENT);
	aph_hold_close(new);
	aph_hold_close(old);
	keeper_stop(&keeper);
}

/* -- death at each stage ----------------------------------------------------------------------- */

#define LIMIT_MS check_ms(10000)

enum stage {
	OFFERED,
	ACCEPTED,
	CONFIRMED,
	STAGES,
};

static int old_owner(int ctl, void *arg)
{
	struct aph_hold *hold;
	struct aph_hold_offer *offer;

	(void)arg;
	CHECK_OK(aph_hold_open(&hold, NULL, SOON));
	CHECK_OK(aph_hold_offer(&offer, hold, "web", geteuid(), NULL));
	CHECK(stands(offer, hold) == -ETIMEDOUT);
	child_say(ctl, 'o');
	CHECK_OK(aph_hold_offer_wait(offer, APH_FOREVER));
	child_say(ctl, 'g');
	(void)child_hear(ctl, 100000);
	aph_hold_close(hold);
	return 0;
}

/* With `arg` it says when it is about to accept, too. */
static int new_owner(int ctl, void *arg)
{
	struct aph_hold_acceptance *acceptance;
	struct aph_hold *hold;
	int r;

	CHECK_OK(aph_hold_open(&hold, NULL, SOON));
	if (arg)
		child_say(ctl, 'b');
	CHECK_OK(accept_one(&acceptance, hold, "web", "x", SOON));
	child_say(ctl, 'a');
	if (child_hear(ctl, 100000) == 'c') {
		r = aph_hold_confirm(acceptance, SOON);
		CHECK(r == 0 || r == -ECANCELED); /* done, or the old one was dead by then */
		child_say(ctl, r == 0 ? 'd' : 'x');
		(void)child_hear(ctl, 100000);
	}
	aph_hold_close(hold);
	return 0;
}

/* Whoever it was, the descriptor is there, and the next transfer works. */
static void still_whole(struct aph_hold *hold)
{
	struct aph_hold_acceptance *acceptance;
	struct aph_hold_offer *offer;
	uint64_t end = SOON;
	int r;

	/*
	 * The keeper may not have seen yet that the last one is dead, whose offer is not to be
	 * accepted here.
	 */
	for (;;) {
		CHECK_OK(aph_hold_offer(&offer, hold, "web", geteuid(), NULL));
		r = stands(offer, hold);
		if (r == -ETIMEDOUT)
			break;
		CHECK(r == -EBUSY && aph_time_ns() < end);
		aph_hold_offer_free(offer);
		(void)poll(NULL, 0, 1);
	}
	CHECK_OK(accept_one(&acceptance, hold, "web", "x", SOON));
	CHECK_OK(aph_hold_confirm(acceptance, SOON));
	CHECK_OK(aph_hold_offer_wait(offer, SOON));
	aph_hold_offer_free(offer);
}

static void the_old_one_dies(void **state)
{
	struct keeper keeper;
	struct aph_hold *hold;

	(void)state;
	keeper_start(&keeper, NULL);
	hold = hold_open();
	assert_int_equal(store(hold, "web", "x", 0), 0);
	for (int stage = OFFERED; stage < STAGES; stage++) {
		struct child old, new;

		child_start(&old, old_owner, NULL);
		assert_int_equal(child_hear(old.ctl, LIMIT_MS), 'o');
		if (stage > OFFERED) {
			child_start(&new, new_owner, NULL);
			assert_int_equal(child_hear(new.ctl, LIMIT_MS), 'a');
		}
		if (stage == CONFIRMED) {
			/* At the same moment: either is right, and the keeper is whole. */
			child_say(new.ctl, 'c');
			child_kill(&old);
			child_kill(&new);
		} else {
			child_kill(&old);
		}
		if (stage == ACCEPTED)
			child_kill(&new);
		still_whole(hold);
	}
	aph_hold_close(hold);
	keeper_stop(&keeper);
}

static void the_new_one_dies(void **state)
{
	struct keeper keeper;
	struct aph_hold *hold;
	struct child old, new;

	(void)state;
	keeper_start(&keeper, NULL);
	hold = hold_open();
	assert_int_equal(store(hold, "web", "x", 0), 0);
	child_start(&old, old_owner, NULL);
	assert_int_equal(child_hear(old.ctl, LIMIT_MS), 'o');
	/* Before it confirms: the offer stands, and the next one gets it. */
	for (int i = 0; i < 5; i++) {
		child_start(&new, new_owner, NULL);
		assert_int_equal(child_hear(new.ctl, LIMIT_MS), 'a');
		child_kill(&new);
	}
	child_start(&new, new_owner, NULL);
	assert_int_equal(child_hear(new.ctl, LIMIT_MS), 'a');
	child_say(new.ctl, 'c');
	assert_int_equal(child_hear(new.ctl, LIMIT_MS), 'd');
	assert_int_equal(child_hear(old.ctl, LIMIT_MS), 'g');
	/* After it: it has been done. */
	child_kill(&new);
	still_whole(hold);
	child_say(old.ctl, 'e');
	assert_int_equal(child_finish(&old, LIMIT_MS), 0);
	aph_hold_close(hold);
	keeper_stop(&keeper);
}

/* Two wait for the same name: the second gets it when the first gives it back, or dies. */
static void the_next_in_line(void **state)
{
	struct aph_hold_acceptance *acceptance;
	struct aph_hold_offer *offer;
	struct aph_hold *hold, *first;
	struct keeper keeper;
	struct child new;
	long n;

	(void)state;
	keeper_start(&keeper, NULL);
	hold = hold_open();
	assert_int_equal(store(hold, "web", "x", 0), 0);
	for (int dies = 0; dies < 2; dies++) {
		first = hold_open();
		assert_int_equal(aph_hold_offer(&offer, hold, "web", geteuid(), NULL), 0);
		assert_int_equal(accept_one(&acceptance, first, "web", "x", SOON), 0);
		child_start(&new, new_owner, &keeper);
		assert_int_equal(child_hear(new.ctl, LIMIT_MS), 'b');
		/* It has come to the keeper, or will; as good as certain is that it waits there. */
		do {
			n = child_switches(new.pid);
			assert_int_equal(child_hear(new.ctl, 20), -1);
		} while (child_switches(new.pid) != n);
		if (dies)
			aph_hold_close(first);
		else
			aph_hold_decline(acceptance);
		assert_int_equal(child_hear(new.ctl, LIMIT_MS), 'a');
		child_say(new.ctl, 'c');
		assert_int_equal(child_hear(new.ctl, LIMIT_MS), 'd');
		assert_int_equal(aph_hold_offer_wait(offer, SOON), 0);
		child_say(new.ctl, 'e');
		assert_int_equal(child_finish(&new, LIMIT_MS), 0);
		aph_hold_offer_free(offer);
		if (!dies)
			aph_hold_close(first);
	}
	aph_hold_close(hold);
	keeper_stop(&keeper);
}

static void the_keeper_dies(void **state)
{
	struct keeper keeper;
	struct aph_hold *hold;

	(void)state;
	keeper_start(&keeper, NULL);
	hold = hold_open();
	assert_int_equal(store(hold, "web", "x", 0), 0);
	for (int stage = OFFERED; stage < STAGES; stage++) {
		struct aph_hold_acceptance *acceptance;
		struct child old;
		pid_t pid = keeper_pid();
		int r;

		child_start(&old, old_owner, NULL);
		assert_int_equal(child_hear(old.ctl, LIMIT_MS), 'o');
		if (stage == OFFERED) {
			crash(pid);
			assert_int_equal(accept_one(&acceptance, hold, "web", "x", SOON), 0);
			assert_int_equal(aph_hold_confirm(acceptance, SOON), 0);
		} else {
			assert_int_equal(accept_one(&acceptance, hold, "web", "x", SOON), 0);
			if (stage == ACCEPTED)
				crash(pid);
			r = aph_hold_confirm(acceptance, SOON);
			if (stage == CONFIRMED) {
				crash(pid);
				assert_int_equal(r, 0);
			} else {
				/* Its offer went with it; it is made anew for the next. */
				assert_int_equal(r, -ECANCELED);
				assert_int_equal(accept_one(&acceptance, hold, "web", "x", SOON),
						 0);
				assert_int_equal(aph_hold_confirm(acceptance, SOON), 0);
			}
		}
		assert_int_equal(child_hear(old.ctl, LIMIT_MS), 'g');
		child_say(old.ctl, 'e');
		assert_int_equal(child_finish(&old, LIMIT_MS), 0);
		(void)keeper_await_twin(keeper_await_pid(pid), 0);
		still_whole(hold);
	}
	aph_hold_close(hold);
	keeper_stop(&keeper);
}

/* -- a newcomer -------------------------------------------------------------------------------- */

static void a_newcomer_takes_over(void **state)
{
	struct aph_hold_keeper_options replace = { .size = sizeof(replace), .replace = 1 };
	struct keeper keepers[6];
	struct aph_hold *hold;
	struct child old;
	struct aph_hold_acceptance *acceptance;
	char name[16];

	(void)state;
	/* With nobody there it just begins. */
	keeper_start(&keepers[0], &replace);
	hold = hold_open();
	for (int i = 0; i < 100; i++) {
		(void)snprintf(name, sizeof(name), "n%d", i);
		assert_int_equal(store(hold, name, name, 0), 0);
	}
	assert_int_equal(store(hold, "web", "x", 0), 0);
	child_start(&old, old_owner, NULL);
	assert_int_equal(child_hear(old.ctl, LIMIT_MS), 'o');
	for (int i = 1; i < 6; i++) {
		keeper_start(&keepers[i], &replace);
		keeper_gone(&keepers[i - 1]);
		for (int j = 0; j < 100; j += 9) {
			(void)snprintf(name, sizeof(name), "n%d", j);
			assert_int_equal(retrieve(hold, name, name, 0), 0);
		}
		/* The twin of the newcomer is as good. */
		kill(keeper_pid(), SIGKILL);
		assert_int_equal(store(hold, "n0", "n0", APH_HOLD_REPLACE), 0);
		assert_int_equal(retrieve(hold, "n99", "n99", 0), 0);
	}
	assert_int_equal(accept_one(&acceptance, hold, "web", "x", SOON), 0);
	assert_int_equal(aph_hold_confirm(acceptance, SOON), 0);
	assert_int_equal(child_hear(old.ctl, LIMIT_MS), 'g');
	child_say(old.ctl, 'e');
	assert_int_equal(child_finish(&old, LIMIT_MS), 0);
	aph_hold_close(hold);
	keeper_stop(&keepers[5]);
}

/* -- a service manager that is gone ------------------------------------------------------------ */

/* Takes what it is told, and keeps nothing. */
static int manager(int ctl, void *arg)
{
	int sock = *(int *)arg;
	char bytes[512], control[CMSG_SPACE(sizeof(int))];

	(void)ctl;
	for (;;) {
		struct iovec part = { bytes, sizeof(bytes) };
		struct msghdr message = { .msg_iov = &part,
					  .msg_iovlen = 1,
					  .msg_control = control,
					  .msg_controllen = sizeof(control) };

		if (recvmsg(sock, &message, MSG_CMSG_CLOEXEC) < 0)
			return 1;
		if (message.msg_controllen)
			close(*(int *)CMSG_DATA(CMSG_FIRSTHDR(&message)));
	}
}

/* What was confirmed and cannot be saved waits, and nobody waits for it. */
static void nothing_can_be_saved(void **state)
{
	const struct aph_hold_keeper_options systemd = { .size = sizeof(systemd),
							 .survival = APH_HOLD_SURVIVE_SYSTEMD };
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int sock = (int)CHECK_OK(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	struct aph_hold_acceptance *acceptance;
	struct aph_hold_offer *offer;
	struct aph_hold *hold, *other;
	struct keeper keeper;
	struct child child;

	(void)state;
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", dir_path());
	CHECK_OK(bind(sock, (struct sockaddr *)&address, sizeof(address)));
	child_start(&child, manager, &sock);
	close(sock);
	CHECK_OK(setenv("NOTIFY_SOCKET", address.sun_path, 1));
	keeper_start(&keeper, &systemd);
	CHECK_OK(unsetenv("NOTIFY_SOCKET"));
	hold = hold_open();
	other = hold_open();
	assert_int_equal(store(hold, "web", "x", 0), 0);
	assert_int_equal(aph_hold_offer(&offer, hold, "web", geteuid(), NULL), 0);
	assert_int_equal(stands(offer, hold), -ETIMEDOUT);
	assert_int_equal(accept_one(&acceptance, other, "web", "x", SOON), 0);
	child_kill(&child);
	assert_int_equal(aph_hold_confirm(acceptance, aph_deadline_ms(50)), -ETIMEDOUT);
	/* It has neither changed hands nor come back, and the keeper serves. */
	assert_int_equal(retrieve(other, "web", "x", 0), 0);
	assert_int_equal(aph_hold_offer_wait(offer, aph_deadline_ms(50)), -ETIMEDOUT);
	assert_int_equal(aph_hold_delete(other, "web", NULL, SOON), -EBUSY);
	aph_hold_close(other);
	aph_hold_close(hold);
	keeper_stop(&keeper);
	CHECK_OK(unlink(address.sun_path));
}

/* -- users ------------------------------------------------------------------------------------- */

/* Offers "web" to Bob and says when he has it. */
static int alice(int ctl, void *arg)
{
	struct aph_hold_offer *offer;
	struct aph_hold *hold;

	(void)arg;
	become(ALICE);
	CHECK_OK(aph_hold_open(&hold, "caps:hold,uid=0", SOON));
	CHECK_OK(store(hold, "web", "alice", 0));
	CHECK_OK(aph_hold_offer(&offer, hold, "web", BOB, NULL));
	CHECK(aph_hold_offer_wait(offer, aph_deadline_ms(5)) == -ETIMEDOUT);
	child_say(ctl, 'o');
	CHECK_OK(aph_hold_offer_wait(offer, SOON));
	/* It is hers no more. */
	CHECK(retrieve(hold, "web", "alice", 0) == -ENOENT);
	child_say(ctl, 'g');
	aph_hold_close(hold);
	return 0;
}

static int bob(int ctl, void *arg)
{
	struct aph_hold_options of_alice = { .size = sizeof(of_alice),
					     .flags = APH_HOLD_OWNER,
					     .owner = ALICE };
	struct aph_hold_acceptance *acceptance;
	struct aph_hold *hold;
	size_t n = 1;
	int fd;

	(void)arg;
	become(BOB);
	CHECK_OK(aph_hold_open(&hold, "caps:hold,uid=0", SOON));
	/* Not before it is confirmed. */
	CHECK(aph_hold_retrieve(hold, "web", &fd, &n, &of_alice, SOON) == -EACCES);
	CHECK_OK(store(hold, "web", "bob", 0));
	CHECK(aph_hold_accept(&acceptance, hold, "web", &fd, &n, &of_alice, SOON) == -EEXIST);
	CHECK_OK(aph_hold_delete(hold, "web", NULL, SOON));
	CHECK_OK(aph_hold_accept(&acceptance, hold, "web", &fd, &n, &of_alice, SOON));
	CHECK(is_marked(fd, "alice"));
	close(fd);
	/* The place is taken after all: the offer stands. */
	CHECK_OK(store(hold, "web", "bob", 0));
	CHECK(aph_hold_confirm(acceptance, SOON) == -EEXIST);
	CHECK_OK(aph_hold_delete(hold, "web", NULL, SOON));
	CHECK_OK(aph_hold_accept(&acceptance, hold, "web", &fd, &n, &of_alice, SOON));
	close(fd);
	CHECK_OK(aph_hold_confirm(acceptance, SOON));
	CHECK(retrieve(hold, "web", "alice", 0) == 0);
	child_say(ctl, 'a');
	aph_hold_close(hold);
	return 0;
}

/* Two names are in hand at once, and there is room for one. */
static int crowded_bob(int ctl, void *arg)
{
	struct aph_hold_options of_root = { .size = sizeof(of_root), .flags = APH_HOLD_OWNER };
	struct aph_hold_acceptance *acceptances[2];
	struct aph_hold *hold;
	size_t n = 1;
	int fd;

	(void)ctl;
	(void)arg;
	become(BOB);
	CHECK_OK(aph_hold_open(&hold, "caps:hold,uid=0", SOON));
	for (int i = 0; i < 2; i++) {
		CHECK_OK(aph_hold_accept(&acceptances[i], hold, i ? "b" : "a", &fd, &n, &of_root,
					 SOON));
		close(fd);
	}
	CHECK_OK(aph_hold_confirm(acceptances[0], SOON));
	CHECK(aph_hold_confirm(acceptances[1], SOON) == -EDQUOT);
	aph_hold_close(hold);
	return 0;
}

static void not_more_than_the_limit(void **state)
{
	static const char *const rules[] = { "uid=any" }, *const limits[] = { "54322=1" };
	const struct aph_hold_keeper_options options = {
		.size = sizeof(options),
		.rules = rules,
		.n_rules = 1,
		.limits = limits,
		.n_limits = 1,
	};
	struct aph_hold_offer *a, *b;
	struct keeper keeper;
	struct aph_hold *hold;
	struct child child;

	(void)state;
	need_root();
	keeper_start(&keeper, &options);
	hold = hold_open();
	assert_int_equal(store(hold, "a", "a", 0), 0);
	assert_int_equal(store(hold, "b", "b", 0), 0);
	assert_int_equal(aph_hold_offer(&a, hold, "a", BOB, NULL), 0);
	assert_int_equal(aph_hold_offer(&b, hold, "b", BOB, NULL), 0);
	child_start(&child, crowded_bob, NULL);
	assert_int_equal(child_finish(&child, LIMIT_MS), 0);
	assert_int_equal(aph_hold_offer_wait(a, SOON), 0);
	/* The offer stands. */
	assert_int_equal(aph_hold_offer_wait(b, aph_deadline_ms(5)), -ETIMEDOUT);
	assert_int_equal(retrieve(hold, "b", "b", 0), 0);
	aph_hold_close(hold);
	keeper_stop(&keeper);
}

static void between_users(void **state)
{
	static const char *const rules[] = { "uid=any", NULL };
	struct child a, b;
	struct keeper keeper;
	struct aph_hold *hold;

	(void)state;
	need_root();
	keeper_start_rules(&keeper, rules);
	child_start(&a, alice, NULL);
	assert_int_equal(child_hear(a.ctl, LIMIT_MS), 'o');
	child_start(&b, bob, NULL);
	assert_int_equal(child_hear(b.ctl, LIMIT_MS), 'a');
	assert_int_equal(child_hear(a.ctl, LIMIT_MS), 'g');
	assert_int_equal(child_finish(&a, LIMIT_MS), 0);
	assert_int_equal(child_finish(&b, LIMIT_MS), 0);
	/* Also at the twin. */
	kill(keeper_pid(), SIGKILL);
	hold = hold_open();
	{
		struct aph_hold_options of_bob = { .size = sizeof(of_bob),
						   .flags = APH_HOLD_OWNER,
						   .owner = BOB };

		assert_int_equal(aph_hold_delete(hold, "web", &of_bob, SOON), 0);
	}
	aph_hold_close(hold);
	keeper_stop(&keeper);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		HOLD_TEST(the_new_one_first),	 HOLD_TEST(declined_withdrawn_deleted),
		HOLD_TEST(expiry_waits),	 HOLD_TEST(the_old_one_dies),
		HOLD_TEST(the_new_one_dies),	 HOLD_TEST(the_next_in_line),
		HOLD_TEST(the_keeper_dies),	 HOLD_TEST(a_newcomer_takes_over),
		HOLD_TEST(between_users),	 HOLD_TEST(not_more_than_the_limit),
		HOLD_TEST(nothing_can_be_saved),
	};

	return suite_run("hold transfer", tests, SUITE_LEN(tests), 60);
}

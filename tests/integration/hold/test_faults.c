/* SPDX-License-Identifier: MIT */
/*
 * Allocation 1, 2, 3..., and call 1, 2, 3... of each system call, fails: in the keeper, in the twin
 * that takes over, and in a client. What was confirmed is there afterwards, what fails says so, and
 * nothing is left behind.
 */
#include "fault.h"
#include "fixture.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define WAIT_MS 3000

static const struct {
	enum fault_site site;
	int error;
	unsigned most; /* calls that are tried */
} sites[] = {
	{ FAULT_ALLOCATION, ENOMEM, 200 },   { FAULT_mmap64, ENOMEM, 20 },
	{ FAULT_epoll_create1, EMFILE, 10 }, { FAULT_eventfd, EMFILE, 10 },
	{ FAULT_epoll_ctl, ENOSPC, 20 },     { FAULT_socket, EMFILE, 10 },
	{ FAULT_accept4, EMFILE, 10 },	     { FAULT_sendmsg, ENOBUFS, 30 },
	{ FAULT_recvmsg, ENOBUFS, 12 },	     { FAULT_getsockopt, ENOBUFS, 30 },
};

/* -- the keeper's side ------------------------------------------------------------------------- */

static struct {
	int site;
	unsigned n;
} plan;
static int log_to = -1;

static void tell_serving(const char *text)
{
	if (strncmp(text, "serving", 7) == 0)
		(void)!write(log_to, "s", 1);
}

/* A keeper in which one thing fails. It tells at its end whether that came to pass. */
static int faulty_keeper(int ctl, void *arg)
{
	const struct aph_hold_keeper_options options = {
		.size = sizeof(options),
		.survival = APH_HOLD_SURVIVE_TWIN,
		.log = tell_serving,
	};
	long blocks;
	int r;

	(void)arg;
	log_to = ctl;
	blocks = fault_blocks();
	fault_arm(sites[plan.site].site, plan.n, sites[plan.site].error);
	r = aph_hold_keep(&options);
	(void)!write(ctl, fault_disarm() ? "h" : "n", 1);
	CHECK(fault_blocks() == blocks);
	/* Whoever takes over is not the one that began; it is no failure to have been killed. */
	return r < 0 ? 1 : 0;
}

/* -- a client's life --------------------------------------------------------------------------- */

#define CALMLY aph_deadline_ms((uint64_t)check_ms(WAIT_MS))

static int put(struct aph_hold *hold, const char *name, const char *text)
{
	const struct aph_hold_options options = { .size = sizeof(options),
						  .flags = APH_HOLD_REPLACE };
	int fd = marked(text), r = aph_hold_store(hold, name, &fd, 1, &options, CALMLY);

	close(fd);
	return r;
}

static int get(struct aph_hold *hold, const char *name, const char *text, uint32_t flags)
{
	const struct aph_hold_options options = { .size = sizeof(options), .flags = flags };
	size_t n = 1;
	int fd, r = aph_hold_retrieve(hold, name, &fd, &n, &options, CALMLY);

	if (r < 0)
		return r;
	CHECK(n == 1 && is_marked(fd, text));
	close(fd);
	return 0;
}

static int hand_over(struct aph_hold *hold, const char *name, const char *text)
{
	struct aph_hold_acceptance *acceptance;
	struct aph_hold_offer *offer;
	size_t n = 1;
	int fd, r;

	r = aph_hold_offer(&offer, hold, name, geteuid(), NULL);
	if (r < 0)
		return r;
	r = aph_hold_offer_wait(offer, APH_NOW);
	if (r == -ETIMEDOUT)
		r = aph_hold_accept(&acceptance, hold, name, &fd, &n, NULL, aph_deadline_ms(500));
	if (r == 0) {
		CHECK(n == 1 && is_marked(fd, text));
		close(fd);
		r = aph_hold_confirm(acceptance, CALMLY);
	}
	if (r == 0)
		r = aph_hold_offer_wait(offer, CALMLY);
	aph_hold_offer_free(offer);
	return r;
}

/* Everything once. The first thing that did not work, or 0. What is said to be stored is there. */
static int life(const char *text)
{
	struct aph_hold_info *list = NULL;
	struct aph_hold *hold;
	size_t n = 0;
	int r, first;

	r = aph_hold_open(&hold, NULL, CALMLY);
	if (r < 0)
		return r;
	first = put(hold, "a", text);
	if (first == 0) {
		r = get(hold, "a", text, 0);
		CHECK(r != -ENOENT);
		first = r;
	}
	r = put(hold, "b", text);
	if (r == 0) {
		r = aph_hold_list(hold, NULL, &list, &n, NULL, CALMLY);
		CHECK(r < 0 || n >= 1);
		free(list);
	}
	first = first ? first : r;
	r = hand_over(hold, "b", text);
	first = first ? first : r;
	r = get(hold, "b", text, APH_HOLD_TAKE);
	first = first ? first : r;
	/* Taken, or not: a fault may have come between; then it goes now. */
	(void)aph_hold_delete(hold, "b", NULL, CALMLY);
	aph_hold_close(hold);
	return first;
}

/* There is one fault, and it may come in the midst of this: the next try works. */
#define TWICE(expression)                                  \
	do {                                               \
		if ((expression) < 0)                      \
			assert_int_equal((expression), 0); \
	} while (0)

static void stop(struct aph_hold *hold)
{
	int r = aph_hold_stop(hold, CALMLY);

	if (r < 0)
		r = aph_hold_stop(hold, CALMLY);
	/* The first may have had its effect. */
	assert_true(r == 0 || r == -ENOENT || r == -ECONNRESET);
}

/* -- tests ------------------------------------------------------------------------------------- */

/* The many allocations of a life that goes well are alike after some time. */
static unsigned step(void)
{
	return plan.n < 40 || check_long() ? 1 : 4;
}

static void in_the_keeper(void **state)
{
	unsigned hits = 0;

	(void)state;
	for (plan.site = 0; plan.site < (int)SUITE_LEN(sites); plan.site++) {
		for (plan.n = 1; plan.n <= sites[plan.site].most; plan.n += step()) {
			struct child child;
			int heard, status;

			child_start(&child, faulty_keeper, NULL);
			heard = child_hear(child.ctl, check_hang_ms(5000));
			if (heard == 's') {
				struct aph_hold *hold;

				(void)life("first");
				/* Once it has happened, all is as if it had not. */
				TWICE(life("second"));
				TWICE(aph_hold_open(&hold, NULL, CALMLY));
				TWICE(get(hold, "a", "second", 0));
				stop(hold);
				aph_hold_close(hold);
				/* It may say once more that it serves. */
				while ((heard = child_hear(child.ctl, check_hang_ms(5000))) == 's')
					continue;
			}
			assert_true(heard == 'h' || heard == 'n');
			status = child_finish(&child, check_hang_ms(5000));
			/* One that cannot begin says so. */
			assert_true(status == 0 || (status == 1 && heard == 'h'));
			hits += heard == 'h';
			if (heard == 'n')
				break;
		}
	}
	print_message("%u faults\n", hits);
	assert_true(hits > 40);
}

/* The twin has the same plan, and its own count: what fails in it, it tries again. */
static void in_the_twin(void **state)
{
	(void)state;
	plan.site = 0;
	for (plan.n = 1; plan.n <= 60; plan.n += check_long() ? 1 : 6) {
		struct aph_hold *hold;
		struct child child;
		pid_t pid;
		int heard;

		child_start(&child, faulty_keeper, NULL);
		heard = child_hear(child.ctl, check_hang_ms(5000));
		if (heard != 's') {
			assert_int_equal(heard, 'h');
			assert_int_equal(child_finish(&child, check_hang_ms(5000)), 1);
			continue;
		}
		(void)life("first");
		TWICE(aph_hold_open(&hold, NULL, CALMLY));
		TWICE(put(hold, "kept", "kept"));
		pid = keeper_pid();
		assert_int_equal(kill(child.pid, SIGKILL), 0);
		TWICE(get(hold, "kept", "kept", 0));
		TWICE(life("second"));
		pid = keeper_await_pid(pid);
		stop(hold);
		aph_hold_close(hold);
		assert_int_equal(child_finish(&child, check_hang_ms(5000)),
				 CHILD_SIGNALLED + SIGKILL);
		/* Orphans are ours: hold_setup(). */
		assert_int_equal(waitpid(pid, NULL, 0), pid);
	}
}

static void in_a_client(void **state)
{
	struct keeper keeper;
	unsigned hits = 0;

	(void)state;
	keeper_start(&keeper, NULL);
	assert_int_equal(life("first"), 0);
	for (size_t i = 0; i < SUITE_LEN(sites); i++) {
		for (unsigned n = 1;; n++) {
			long blocks = fault_blocks();
			bool hit;
			int r;

			fault_arm(sites[i].site, n, sites[i].error);
			r = life("faulty");
			hit = fault_disarm();
			assert_true(fault_blocks() == blocks);
			if (r < 0)
				assert_true(strlen(aph_hold_error()) > 5);
			assert_int_equal(life("again"), 0);
			if (!hit) {
				assert_int_equal(r, 0);
				break;
			}
			assert_true(n < 500);
			hits++;
		}
	}
	print_message("%u faults\n", hits);
	assert_true(hits > 20);
	keeper_stop(&keeper);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		HOLD_TEST(in_the_keeper),
		HOLD_TEST(in_the_twin),
		HOLD_TEST(in_a_client),
	};

	return suite_run("hold faults", tests, SUITE_LEN(tests), 110);
}

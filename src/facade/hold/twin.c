/* SPDX-License-Identifier: MIT */
/*
 * The twin: a second process, so that what is kept outlives the keeper.
 *
 * It is a child with the same table of descriptors (CLONE_FILES), which lives as long as either of
 * the two does, and with the image (image.c), which says what they are. So there is nothing to tell
 * it: what is in the image is the twin's, whatever happens to the keeper in the next moment, and
 * the twin uses no time at all.
 *
 * When the keeper has died, the twin closes the descriptors that the image does not know: the
 * keeper's channels, whose clients learn of its death by that, and what was about to be kept or let
 * go. What was open before anything was served stays.
 *
 * A twin is made only while there is no endpoint: one that the keeper goes on to use must not be in
 * the twin's memory, where its descriptors would be somebody else's later on.
 */
#include "keeper.h"

#include "../../base/close.h"
#include "../../base/quick.h"
#include "close.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STUCK_MS  100	/* a dead keeper that is not gone by then has a thread that cannot end */
#define AGAIN_MS  200	/* until a take-over without memory is tried again */
#define FD_LAST	  65535 /* where close_range(2) is missing: there are no greater ones, as a rule */
#define SLOTS_MIN 64	/* names that were inherited may be more than the keeper would take */

/* -- the keeper's side ------------------------------------------------------------------------- */

static int keep_number(struct hold_keeper *keeper, size_t *max, int fd)
{
	if (keeper->n_own == *max) {
		size_t more = *max ? 2 * *max : 64;
		int *own = reallocarray(keeper->own, more, sizeof(*own));

		if (!own)
			return -ENOMEM;
		keeper->own = own;
		*max = more;
	}
	keeper->own[keeper->n_own++] = fd;
	return 0;
}

/* What was inherited will be kept or closed. */
int hold_twin_prepare(struct hold_keeper *keeper)
{
	int end_of_inherited = HOLD_FIRST_FD + hold_n_inherited(keeper);
	struct rlimit limit = { .rlim_cur = FD_LAST };
	size_t max = 0;
	int r = 0;

	(void)getrlimit(RLIMIT_NOFILE, &limit);
	for (int fd = 0; fd <= FD_LAST && (rlim_t)fd < limit.rlim_cur && r == 0; fd++) {
		if ((fd < HOLD_FIRST_FD || fd >= end_of_inherited) && fcntl(fd, F_GETFD) >= 0)
			r = keep_number(keeper, &max, fd);
	}
	return r;
}

bool hold_twin_is_missing(const struct hold_keeper *keeper)
{
	return keeper->survival == APH_HOLD_SURVIVE_TWIN && !keeper->twin;
}

static int put_entry(const struct hold_entry *entry, void *arg)
{
	return hold_image_put(arg, (struct hold_entry *)entry, NULL);
}

/* What the twin needs, made once. */
static int prepare_image(struct hold_keeper *keeper)
{
	size_t n_slots = keeper->fds_max + keeper->table.n_entries + SLOTS_MIN;
	int r;

	if (keeper->image)
		return 0;
	r = hold_image_new(&keeper->image, (uint32_t)n_slots);
	return r < 0 ? r : hold_table_each(&keeper->table, put_entry, keeper->image);
}

/* A fork whose child does not get a copy of the table of descriptors, but the table. */
static pid_t fork_sharing(void)
{
#ifdef __s390x__
	return (pid_t)syscall(SYS_clone, 0L, CLONE_FILES | SIGCHLD, 0L, 0L, 0L);
#else
	return (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0L, 0L, 0L, 0L);
#endif
}

int hold_twin_make(struct hold_keeper *keeper)
{
	pid_t pid;
	int r = prepare_image(keeper);

	if (r < 0)
		return r;
	if (keeper->self < 0)
		keeper->self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	if (keeper->self < 0)
		return -errno;
	pid = aph_close_fork(fork_sharing);
	if (pid < 0)
		return -errno;
	keeper->twin = pid;
	if (pid == 0)
		return HOLD_TWIN;
	hold_log(keeper, "the twin is process %d", (int)pid);
	return HOLD_KEEPER;
}

bool hold_twin_reap(struct hold_keeper *keeper)
{
	if (!keeper->twin || waitpid(keeper->twin, NULL, WNOHANG) != keeper->twin)
		return false;
	keeper->twin = 0;
	return true;
}

void hold_twin_end(struct hold_keeper *keeper)
{
	if (keeper->twin) {
		(void)kill(keeper->twin, SIGKILL);
		while (waitpid(keeper->twin, NULL, 0) < 0 && errno == EINTR)
			continue;
	}
	keeper->twin = 0;
	if (keeper->self >= 0)
		(void)close(keeper->self);
	keeper->self = -1;
	hold_image_free(keeper->image);
	keeper->image = NULL;
}

/* -- changes ----------------------------------------------------------------------------------- */

int hold_save_put(struct hold_keeper *keeper, struct hold_entry *entry, struct hold_entry *old)
{
	struct hold_record record;
	int r;

	if (keeper->survival == APH_HOLD_SURVIVE_NOT)
		return 0;
	if (keeper->survival == APH_HOLD_SURVIVE_TWIN) {
		if (!keeper->twin || hold_child_has_died())
			return -EAGAIN;
		return hold_image_put(keeper->image, entry, old) < 0 ? -EAGAIN : 0;
	}
	hold_record_of(&record, entry);
	r = hold_manager_put(keeper, &record, entry->fds);
	if (r == 0 && old)
		r = hold_manager_remove(keeper, old->serial);
	return r;
}

int hold_save_drop(struct hold_keeper *keeper, struct hold_entry *entry)
{
	if (keeper->survival == APH_HOLD_SURVIVE_SYSTEMD)
		return hold_manager_remove(keeper, entry->serial);
	if (keeper->image)
		hold_image_drop(keeper->image, entry);
	return 0;
}

int hold_save_move(struct hold_keeper *keeper, const struct hold_entry *entry, uid_t new_owner,
		   uint64_t serial, uint64_t token)
{
	struct hold_record record;
	int r;

	if (keeper->image)
		hold_image_move(keeper->image, entry, new_owner, serial, token);
	if (keeper->survival != APH_HOLD_SURVIVE_SYSTEMD)
		return 0;
	hold_record_of(&record, entry);
	record.owner = new_owner;
	record.serial = serial;
	record.token = token;
	r = hold_manager_put(keeper, &record, entry->fds);
	return r == 0 ? hold_manager_remove(keeper, entry->serial) : r;
}

/* -- the twin's side --------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
	int left = *(const int *)a, right = *(const int *)b;

	return left < right ? -1 : left > right;
}

static void close_quick(int from, int to)
{
	if (from > to || close_range((unsigned)from, (unsigned)to, 0) == 0)
		return;
	for (int fd = from; fd <= to && fd <= FD_LAST; fd++)
		(void)close(fd);
}

/*
 * The keeper's own sockets and the like are closed here and now, as others are to find them closed.
 */
static bool may_be_own(int fd)
{
	struct statx file;
	int domain;

	(void)hold_may_linger(fd, &domain);
	if (domain != AF_UNSPEC)
		return domain == AF_UNIX;
	return statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &file) == 0 &&
	       (file.stx_mode & S_IFMT) == 0;
}

/* What the keeper had not closed yet may not let us close it either. */
static void close_span(int from, int to)
{
	for (int fd = from; fd <= to && fd <= FD_LAST; fd++) {
		if (aph_closes_quickly(fd) || may_be_own(fd))
			continue;
		close_quick(from, fd - 1);
		aph_close_lingering(APH_CLOSE_ANYBODY, &fd, 1);
		from = fd + 1;
	}
	close_quick(from, to);
}

struct numbers {
	int *fds;
	size_t n;
};

static int add_numbers(const struct hold_record *record, const int *fds, uint32_t slot, void *arg)
{
	struct numbers *numbers = arg;

	(void)slot;
	if (numbers->fds)
		memcpy(numbers->fds + numbers->n, fds, record->n_fds * sizeof(int));
	numbers->n += record->n_fds;
	return 0;
}

/* Closes all but what is kept and what was open at the beginning. */
static int close_others(const struct hold_keeper *keeper)
{
	struct numbers numbers = { 0 };
	int next = 0;

	(void)hold_image_each(keeper->image, add_numbers, &numbers);
	numbers.fds = calloc(numbers.n + keeper->n_own + 1, sizeof(int));
	if (!numbers.fds)
		return -ENOMEM;
	numbers.n = 0;
	(void)hold_image_each(keeper->image, add_numbers, &numbers);
	if (keeper->n_own)
		memcpy(numbers.fds + numbers.n, keeper->own, keeper->n_own * sizeof(int));
	numbers.n += keeper->n_own;
	qsort(numbers.fds, numbers.n, sizeof(int), compare);
	for (size_t i = 0; i < numbers.n; i++) {
		close_span(next, numbers.fds[i] - 1);
		next = numbers.fds[i] + 1;
	}
	close_span(next, INT_MAX);
	free(numbers.fds);
	return 0;
}

static int add_entry(const struct hold_record *record, const int *fds, uint32_t slot, void *arg)
{
	struct hold_entry *entry;
	int r = hold_record_apply(arg, record, fds, &entry);

	if (r == 0)
		entry->slot = slot;
	return r;
}

/* Makes this process what the keeper was. It may be tried again. */
static int take_over(struct hold_keeper *keeper)
{
	int r;

	/*
	 * Once: what a thread is still to close must not be closed again, when another may have its
	 * number.
	 */
	if (keeper->self >= 0) {
		r = close_others(keeper);
		if (r < 0)
			return r;
		keeper->self = -1;
	}
	hold_image_adopt(keeper->image);
	/* What it has is from when it was made; only the numbers are of any meaning still. */
	hold_table_forget(&keeper->table);
	return hold_image_each(keeper->image, add_entry, &keeper->table);
}

/* Sleeps until the keeper is dead, or *stop; `signals` are those that come only meanwhile. */
static bool keeper_has_died(const struct hold_keeper *keeper, const sigset_t *signals,
			    volatile const int *stop)
{
	struct pollfd wait = { .fd = keeper->self, .events = POLLIN };

	while (!*stop) {
		if (ppoll(&wait, 1, NULL, signals) > 0)
			return true;
		/*
		 * Other threads of it may be just about to close something: only those that cannot
		 * be ended stay.
		 */
		if (hold_child_has_died()) {
			(void)poll(&wait, 1, STUCK_MS);
			return true;
		}
	}
	return false;
}

enum hold_role hold_twin_sleep(struct hold_keeper *keeper, volatile const int *stop)
{
	static const struct timespec span = { .tv_sec = 0, .tv_nsec = AGAIN_MS * 1000000L };
	enum hold_role role = HOLD_ENDS;
	sigset_t signals, before;

	(void)prctl(PR_SET_NAME, "antiphon-twin");
	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigaddset(&signals, SIGINT);
	(void)sigaddset(&signals, SIGCHLD);
	(void)sigprocmask(SIG_BLOCK, &signals, &before);
	/*
	 * A thread that cannot finish closing something outlives the keeper: its descriptor does
	 * not tell then.
	 */
	(void)prctl(PR_SET_PDEATHSIG, SIGCHLD);
	(void)sigemptyset(&signals);
	if (keeper_has_died(keeper, &signals, stop)) {
		while (take_over(keeper) < 0) {
			hold_log(keeper, "the twin cannot take over yet: out of memory");
			(void)nanosleep(&span, NULL);
		}
		role = HOLD_KEEPER;
	} else if (unshare(CLONE_FILES) < 0) {
		/* Whatever is closed from here on is the keeper's. */
		_exit(0);
	}
	(void)sigprocmask(SIG_SETMASK, &before, NULL);
	(void)prctl(PR_SET_PDEATHSIG, 0);
	(void)prctl(PR_SET_NAME, "antiphon");
	return role;
}

/* SPDX-License-Identifier: MIT */
/*
 * The keeper's loop: events to verbs, roles, beginning and end.
 */
#include "keeper.h"

#include "../../base/close.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define CHANNELS_MAX	   4096
#define LIMIT_DEFAULT	   1024 /* descriptors of a user */
#define WAITING_MAX	   1024 /* offers, acceptances and things that are being taken, of a user */
#define RETRY_MS	   20	/* until something that did not work is tried again */
#define LINGER_MS	   100	/* for answers to be taken when the keeper ends */
#define LEAVE_MS	   1000 /* for channels to go to a newcomer */
#define OPEN_TRIES	   300	/* to serve after the keeper has died: a minute, all in all */
#define OPEN_PAUSE_MS	   200
#define OPEN_QUICK_TRIES   50
#define NOFILE_MAX	   65536
#define NOFILE_OF_CHANNELS 4 /* a descriptor of so many is for channels and the like */

/* -- signals ----------------------------------------------------------------------------------- */

static volatile int stop_signal, child_signal;
static struct aph_endpoint *volatile awake;

static void on_signal(int number)
{
	struct aph_endpoint *ep = awake;
	int saved = errno;

	if (number == SIGCHLD)
		child_signal = 1;
	else
		stop_signal = number;
	if (ep)
		(void)aph_endpoint_wake(ep);
	errno = saved;
}

static const int signals[] = { SIGTERM, SIGINT, SIGCHLD };

static void catch_signals(struct sigaction *before)
{
	struct sigaction action = { .sa_handler = on_signal };

	stop_signal = 0;
	(void)sigemptyset(&action.sa_mask);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		(void)sigaction(signals[i], &action, &before[i]);
}

static void release_signals(const struct sigaction *before)
{
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		(void)sigaction(signals[i], &before[i], NULL);
}

bool hold_child_has_died(void)
{
	return child_signal;
}

/* -- small things ------------------------------------------------------------------------------ */

void hold_log(const struct hold_keeper *keeper, const char *format, ...)
{
	char text[512];
	va_list args;

	if (!keeper->log)
		return;
	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	keeper->log(text);
}

bool hold_is_master(const struct hold_keeper *keeper, const struct aph_credentials *who)
{
	return who->euid == 0 || who->euid == keeper->uid;
}

bool hold_may(const struct hold_keeper *keeper, const struct aph_credentials *who, unsigned can,
	      uid_t owner, const char *name)
{
	if (hold_is_master(keeper, who))
		return true;
	for (size_t i = 0; i < keeper->n_rules; i++) {
		if (hold_rule_fits(&keeper->rules[i], who, can, owner, name))
			return true;
	}
	return false;
}

uint32_t hold_room(const struct hold_keeper *keeper, uid_t uid)
{
	uint32_t limit = LIMIT_DEFAULT, share = hold_table_share(&keeper->table, uid);
	bool is_own = false;

	for (size_t i = 0; i < keeper->n_limits; i++) {
		const struct hold_limit *l = &keeper->limits[i];

		if (l->uid == (int64_t)uid)
			is_own = true;
		if (l->uid == (int64_t)uid || (l->uid == APH_ID_ANY && !is_own))
			limit = l->n_fds;
	}
	return share < limit ? limit - share : 0;
}

void hold_deny(struct aph_call *call, int error)
{
	if (error == -EAGAIN)
		(void)aph_call_refuse(call, APH_REASON_BUSY);
	else
		(void)aph_call_abort(call, -error);
}

uint64_t hold_new_serial(struct hold_keeper *keeper)
{
	struct timespec now;
	uint64_t serial;

	/* The time, so that whoever comes after us has greater ones. */
	(void)clock_gettime(CLOCK_REALTIME, &now);
	serial = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	if (serial <= keeper->table.last_serial)
		serial = keeper->table.last_serial + 1;
	keeper->table.last_serial = serial;
	return serial;
}

bool hold_is_waiting_enough(const struct hold_keeper *keeper, uid_t uid)
{
	unsigned n = 0;

	for (const struct hold_work *work = keeper->works; work; work = work->next)
		n += work->uid == uid;
	return n >= WAITING_MAX;
}

void hold_work_add(struct hold_keeper *keeper, struct hold_work *work, struct hold_job *job)
{
	work->call = job->call;
	work->uid = job->who->euid;
	work->next = keeper->works;
	keeper->works = work;
	aph_call_set_data(job->call, work);
}

void hold_work_free(struct hold_keeper *keeper, struct hold_work *work)
{
	struct hold_work **link = &keeper->works;

	while (*link != work)
		link = &(*link)->next;
	*link = work->next;
	if (work->call)
		aph_call_set_data(work->call, NULL);
	free(work);
}

void hold_drop(struct hold_keeper *keeper, struct hold_entry *entry)
{
	hold_table_remove(&keeper->table, entry);
	hold_entry_free(entry);
}

/* -- events ------------------------------------------------------------------------------------ */

/* Answered first: the answer must be out before the end. */
static int stop(struct hold_keeper *keeper, struct hold_job *job)
{
	if (!hold_is_master(keeper, job->who))
		return -EACCES;
	keeper->stopping = true;
	return aph_call_reply(job->call, NULL, 0) == -ENOMEM ? -ENOMEM : 0;
}

static int perform(struct hold_keeper *keeper, struct hold_job *job)
{
	if (keeper->newcomer >= 0 || keeper->stopping)
		return -EAGAIN;
	switch (job->request.verb) {
	case HOLD_STORE:
		return hold_store(keeper, job);
	case HOLD_RETRIEVE:
		return hold_retrieve(keeper, job);
	case HOLD_DELETE:
		return hold_delete(keeper, job);
	case HOLD_LIST:
		return hold_list(keeper, job);
	case HOLD_OFFER:
		return hold_offer(keeper, job);
	case HOLD_ACCEPT:
		return hold_accept(keeper, job);
	case HOLD_STOP:
		return stop(keeper, job);
	case HOLD_UPGRADE:
		return hold_upgrade(keeper, job);
	default:
		return -EBADMSG;
	}
}

static void take_request(struct hold_keeper *keeper, struct aph_call *call)
{
	uint8_t data[HOLD_REQUEST_MAX + 1];
	struct hold_job job;
	uid_t whose;
	ssize_t n;
	int r = -EBADMSG;

	job.call = call;
	job.who = aph_call_credentials(call);
	whose = job.who->euid;
	if (!aph_close_has_room(whose)) {
		/* What came with it stays the library's, which closes it. */
		hold_deny(call, -EAGAIN);
		return;
	}
	/* Whatever they are, they are not closed by somebody who would wait for that. */
	n = aph_call_take_fds(call, job.fds, APH_HOLD_FDS_MAX + 1);
	job.n_fds = n > 0 ? (uint32_t)n : 0;
	n = -1;
	/* A request of ours comes in one piece. */
	if (aph_call_body_complete(call))
		n = aph_call_read(call, data, sizeof(data));
	if (n >= 0)
		r = hold_request_decode(data, (size_t)n, &job.request, job.name);
	if (r == 0) {
		job.owner = job.request.flags & APH_HOLD_OWNER ? job.request.owner : job.who->euid;
		r = perform(keeper, &job);
	}
	if (r < 0)
		hold_deny(call, r);
	aph_close_lingering(whose, job.fds, job.n_fds);
}

static void take_end(struct hold_keeper *keeper, const struct aph_event *event)
{
	struct hold_work *work = aph_call_data(event->call);

	if (work)
		work->ended(keeper, work, event->result.outcome);
	aph_call_free(event->call);
}

static void take_event(struct hold_keeper *keeper, const struct aph_event *event)
{
	switch (event->type) {
	case APH_EVENT_REQUEST:
		take_request(keeper, event->call);
		break;
	case APH_EVENT_END:
		take_end(keeper, event);
		break;
	case APH_EVENT_SIGNAL:
		hold_signalled(keeper, event->call, event->result.code);
		break;
	case APH_EVENT_TERMINATE:
		keeper->stopping = true;
		break;
	default:
		break;
	}
}

/* -- serving ----------------------------------------------------------------------------------- */

static int open_once(struct hold_keeper *keeper, uint32_t flags)
{
	struct aph_service_options options = {
		.size = sizeof(options),
		/* Strangers get an answer, and it is no. */
		.flags = APH_ALLOW_WORLD | APH_SERVICE_RECEIPTS_NOW | APH_SERVICE_GIVE | flags,
		.channels_max = CHANNELS_MAX,
	};
	int r = aph_endpoint_new(&keeper->ep, NULL);

	if (r < 0)
		return hold_complain_aph(r);
	awake = keeper->ep;
	r = aph_service_open(&keeper->service, keeper->ep, keeper->address, &options);
	if (r == 0)
		return 0;
	(void)hold_complain_aph(r);
	awake = NULL;
	keeper->ep = aph_endpoint_free(keeper->ep);
	return r;
}

static void pause_ms(long ms)
{
	const struct timespec span = { .tv_sec = 0, .tv_nsec = ms * 1000000 };

	(void)nanosleep(&span, NULL);
}

/*
 * Somebody depends on a twin that takes over: it does not give up at the first trouble, nor tries
 * for ever.
 */
static int open_service(struct hold_keeper *keeper, uint32_t flags)
{
	int r = open_once(keeper, flags);

	for (int i = 0; r < 0 && keeper->is_open && i < OPEN_TRIES && !stop_signal; i++) {
		hold_log(keeper, "cannot serve yet: %s", aph_hold_error());
		pause_ms(i < OPEN_QUICK_TRIES ? RETRY_MS : OPEN_PAUSE_MS);
		r = open_once(keeper, flags);
	}
	return r;
}

/* Calls end with the endpoint, and what they were about is as before them. */
static int calm(const struct hold_entry *entry, void *arg)
{
	struct hold_entry *own = (struct hold_entry *)entry;

	own->offer = NULL;
	own->leaving = false;
	hold_table_resume(arg, own);
	return 0;
}

static void close_service(struct hold_keeper *keeper)
{
	struct hold_work *work;

	awake = NULL;
	while ((work = keeper->works)) {
		keeper->works = work->next;
		free(work);
	}
	keeper->ep = aph_endpoint_free(keeper->ep);
	keeper->service = NULL;
	keeper->unsaved = false;
	(void)hold_table_each(&keeper->table, calm, &keeper->table);
}

/* What is not an answer to somebody: in the order in which one may need the other. */
static void look_after(struct hold_keeper *keeper)
{
	if (child_signal) {
		child_signal = 0;
		if (hold_twin_reap(keeper))
			hold_log(keeper, "the twin has died");
	}
	hold_transfer_resume(keeper);
	if (keeper->newcomer < 0)
		hold_expire(keeper);
	else
		hold_upgrade_watch(keeper);
}

/*
 * A new twin must not have an endpoint: everybody has to come again, which clients do by
 * themselves.
 */
static bool must_begin_again(const struct hold_keeper *keeper)
{
	return hold_twin_is_missing(keeper) && keeper->newcomer < 0;
}

static uint64_t next_deadline(const struct hold_keeper *keeper)
{
	uint64_t expiry = hold_table_next_expiry(&keeper->table);

	if (keeper->newcomer >= 0 || keeper->unsaved)
		return aph_deadline_ms(RETRY_MS);
	/* What is overdue could not be saved just now. */
	if (expiry != APH_FOREVER && expiry <= aph_time_ns())
		return aph_deadline_ms(RETRY_MS);
	return expiry;
}

/* Takes one event, or none if a signal came. False at `end`. */
static bool take_next(struct hold_keeper *keeper, uint64_t end)
{
	struct aph_event event;
	int r = aph_endpoint_next(keeper->ep, &event, end);

	if (r == 0)
		take_event(keeper, &event);
	else if (r == -EINTR || r == -ECANCELED)
		return aph_time_ns() < end;
	else if (r != -ETIMEDOUT)
		pause_ms(RETRY_MS);
	return r == 0;
}

static void linger(struct hold_keeper *keeper)
{
	uint64_t end = aph_deadline_ms(keeper->newcomer >= 0 ? LEAVE_MS : LINGER_MS);

	hold_transfer_suspend(keeper);
	while (take_next(keeper, end))
		continue;
}

/* Waits for those who are just taking something to say that they have it. */
static void settle(struct hold_keeper *keeper)
{
	uint64_t end = aph_deadline_ms(LINGER_MS);

	hold_transfer_suspend(keeper);
	while (hold_is_taken_from(keeper) && take_next(keeper, end))
		continue;
}

/* HOLD_KEEPER: it has to begin again, with another twin. */
static enum hold_role serve(struct hold_keeper *keeper)
{
	while (!keeper->stopping && !stop_signal) {
		look_after(keeper);
		if (must_begin_again(keeper)) {
			settle(keeper);
			close_service(keeper);
			return HOLD_KEEPER;
		}
		(void)take_next(keeper, next_deadline(keeper));
	}
	hold_manager_say(keeper, "STOPPING=1");
	linger(keeper);
	/*
	 * Whoever has ended us may want what we kept at once, an address to listen at: it is closed
	 * by the time we are not to be found any more. A newcomer has it all.
	 */
	if (keeper->newcomer < 0) {
		hold_twin_end(keeper);
		hold_table_deinit(&keeper->table);
	}
	close_service(keeper);
	return HOLD_ENDS;
}

/* -- the whole of it --------------------------------------------------------------------------- */

/* First somebody who survives us, then the name. */
static enum hold_role keep(struct hold_keeper *keeper, uint32_t flags, int *old, int *result)
{
	char text[64];

	while (hold_twin_is_missing(keeper)) {
		int r = hold_twin_make(keeper);

		if (r == HOLD_TWIN)
			return HOLD_TWIN;
		if (r < 0 && !keeper->is_open)
			*result = hold_complain(r, "cannot make a twin: %s", strerror(-r));
		if (stop_signal || *result < 0)
			return HOLD_ENDS;
		if (r < 0) {
			hold_log(keeper, "no twin yet: %s", strerror(-r));
			pause_ms(OPEN_PAUSE_MS);
		}
	}
	*result = open_service(keeper, flags);
	if (*result < 0)
		return HOLD_ENDS;
	keeper->is_open = true;
	hold_upgrade_done(old);
	(void)snprintf(text, sizeof(text), "READY=1\nMAINPID=%d", (int)getpid());
	hold_manager_say(keeper, text);
	hold_log(keeper, "serving %s, process %d", keeper->address, (int)getpid());
	return serve(keeper);
}

static int run(struct hold_keeper *keeper, bool replace)
{
	uint32_t flags = replace ? APH_SERVICE_TAKE : APH_SERVICE_EXCLUSIVE;
	enum hold_role role = HOLD_KEEPER;
	int result = 0, old = -1;

	if (replace)
		result = hold_upgrade_fetch(keeper, &old);
	while (result == 0 && role != HOLD_ENDS) {
		if (role == HOLD_KEEPER) {
			role = keep(keeper, flags, &old, &result);
		} else {
			/* These are the keeper's. */
			old = -1;
			child_signal = 0;
			keeper->is_open = true;
			role = hold_twin_sleep(keeper, &stop_signal);
			if (role == HOLD_KEEPER)
				hold_log(keeper, "the keeper has died: process %d takes over",
					 (int)getpid());
		}
		/* Whoever serves the name now, what we have must be found. */
		flags = 0;
	}
	if (old >= 0)
		(void)close(old);
	hold_twin_end(keeper);
	return result;
}

/* Room for what is kept: as many descriptors as we can get. */
static uint32_t raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 512;
	if (limit.rlim_cur < limit.rlim_max && limit.rlim_cur < NOFILE_MAX) {
		limit.rlim_cur = limit.rlim_max < NOFILE_MAX ? limit.rlim_max : NOFILE_MAX;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
		(void)getrlimit(RLIMIT_NOFILE, &limit);
	}
	if (limit.rlim_cur > NOFILE_MAX)
		limit.rlim_cur = NOFILE_MAX;
	return (uint32_t)(limit.rlim_cur - limit.rlim_cur / NOFILE_OF_CHANNELS);
}

static int read_options(struct hold_keeper *keeper, const struct aph_hold_keeper_options *options)
{
	keeper->rules = calloc(options->n_rules + 1, sizeof(*keeper->rules));
	keeper->limits = calloc(options->n_limits + 1, sizeof(*keeper->limits));
	if (!keeper->rules || !keeper->limits)
		return -ENOMEM;
	for (; keeper->n_rules < options->n_rules; keeper->n_rules++) {
		if (hold_rule_parse(&keeper->rules[keeper->n_rules],
				    options->rules[keeper->n_rules]) < 0)
			return -EINVAL;
	}
	for (; keeper->n_limits < options->n_limits; keeper->n_limits++) {
		if (hold_limit_parse(&keeper->limits[keeper->n_limits],
				     options->limits[keeper->n_limits]) < 0)
			return -EINVAL;
	}
	keeper->survival = options->survival;
	if (keeper->survival == APH_HOLD_SURVIVE_AUTO)
		keeper->survival = getenv("NOTIFY_SOCKET") ? APH_HOLD_SURVIVE_SYSTEMD
							   : APH_HOLD_SURVIVE_TWIN;
	if (keeper->survival < APH_HOLD_SURVIVE_TWIN || keeper->survival > APH_HOLD_SURVIVE_NOT)
		return hold_complain(-EINVAL, "there is no such way to survive");
	return 0;
}

int aph_hold_keep(const struct aph_hold_keeper_options *options)
{
	static const struct aph_hold_keeper_options none = { .size = sizeof(none) };
	struct sigaction before[sizeof(signals) / sizeof(signals[0])];
	struct hold_keeper keeper = {
		.uid = geteuid(),
		.self = -1,
		.manager = -1,
		.newcomer = -1,
		.names_max = UINT32_MAX,
	};
	int r;

	if (!options)
		options = &none;
	if (options->size != sizeof(*options))
		return hold_complain(-EINVAL,
				     "the size of the options is not that of this version");
	keeper.address = options->address ? options->address : APH_HOLD_ADDRESS;
	keeper.log = options->log;
	keeper.fds_max = raise_limit();
	r = hold_table_init(&keeper.table);
	if (r == 0)
		r = read_options(&keeper, options);
	if (r == 0)
		r = hold_manager_open(&keeper);
	if (r == 0)
		r = hold_twin_prepare(&keeper);
	if (r == 0)
		r = hold_inherit(&keeper);
	if (r == 0) {
		catch_signals(before);
		r = run(&keeper, options->replace);
		release_signals(before);
	}
	if (r == -ENOMEM)
		(void)hold_complain(r, "out of memory");
	hold_table_deinit(&keeper.table);
	if (keeper.manager >= 0)
		(void)close(keeper.manager);
	free(keeper.rules);
	free(keeper.limits);
	free(keeper.own);
	return r;
}

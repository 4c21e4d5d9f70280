/* SPDX-License-Identifier: MIT */
/*
 * `antiphon serve` with one process per call.
 *
 * A call is a job. It waits unread until a process may be started for it; then its request flows
 * into the process's standard input and the standard output flows back, both directly between the
 * pipe and the memory that is shared with the caller, so that a slow reader anywhere holds up
 * exactly its own writer.
 *
 * The job ends in one of three ways: the process has ended well and closed its output (the call is
 * answered), it has ended badly (the call is aborted with its exit status), or the caller has gone
 * (the process group is ended). A job whose caller has gone lives on until its process is dead.
 */
#include "serve.h"

#include "cli.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

/* What one job may move before the next has its turn. */
#define TURN_BYTES ((size_t)1 << 20)

enum job_state {
	JOB_WAITING, /* no process yet, nothing read */
	JOB_RUNNING,
	JOB_ENDING, /* its call is over, its process is being ended */
};

struct job {
	TAILQ_ENTRY(job) link;
	struct serve *serve;
	enum job_state state;
	uintptr_t arrived;     /* in state.sequence */
	struct aph_call *call; /* NULL once it is over */
	struct child child;
	struct loop_source in_source;
	struct loop_source out_source;
	bool request_ready; /* the call may have more of the request */
	bool reply_ready;   /* the call may have room for the reply */
	bool in_ready;	    /* the pipe may have room */
	bool out_ready;	    /* the pipe may hold something */
	bool exited;
	int code;
	size_t uncommitted; /* of the reply, see serve_move_reply() */
	uint64_t kill_at_ns;
	struct serve_record record;
};

TAILQ_HEAD(job_list, job);

struct state {
	struct job_list waiting;
	struct job_list active;
	size_t n_active;
	uintptr_t sequence; /* counts arrivals and starts */
};

/* -- jobs -------------------------------------------------------------------------------------- */

static void close_in(struct job *job)
{
	if (job->child.in < 0)
		return;
	loop_remove(&job->serve->loop, &job->in_source);
	close(job->child.in);
	job->child.in = -1;
}

static void close_out(struct job *job)
{
	if (job->child.out < 0)
		return;
	loop_remove(&job->serve->loop, &job->out_source);
	close(job->child.out);
	job->child.out = -1;
}

/* The call is no longer ours: nobody may touch it through the job. */
static void forget_call(struct job *job)
{
	job->call = NULL;
	job->request_ready = false;
	job->reply_ready = false;
}

static void job_free(struct job *job)
{
	struct state *state = job->serve->mode_state;

	if (job->state == JOB_WAITING) {
		TAILQ_REMOVE(&state->waiting, job, link);
	} else {
		TAILQ_REMOVE(&state->active, job, link);
		state->n_active--;
		close_in(job);
		close_out(job);
		child_reap(&job->child);
	}
	free(job);
}

static void job_refuse(struct job *job, enum aph_reason reason)
{
	serve_record_finish(job->serve, &job->record, "refused", 0);
	aph_call_refuse(job->call, reason);
	forget_call(job);
	job_free(job);
}

/* Ends what the process group still does. The job goes away once its leader is dead. */
static void job_kill(struct job *job)
{
	close_in(job);
	close_out(job);
	job->state = JOB_ENDING;
	job->kill_at_ns = aph_time_ns() + job->serve->options.kill_after_ns;
	child_signal(&job->child, SIGTERM);
}

static void job_abandon(struct job *job)
{
	serve_record_finish(job->serve, &job->record, "gone", job->exited ? job->code : 0);
	aph_call_free(job->call);
	forget_call(job);
	if (job->state == JOB_WAITING)
		job_free(job);
	else
		job_kill(job);
}

static void job_answer(struct job *job)
{
	int r;

	r = aph_call_reply(job->call, NULL, 0);
	if (r < 0 && r != -ECANCELED)
		aph_call_abort(job->call, CLI_FAILED);
	serve_record_finish(job->serve, &job->record, r == -ECANCELED ? "gone" : "answered", 0);
	forget_call(job);
}

static void job_abort(struct job *job)
{
	int r;

	r = aph_call_abort(job->call, job->code);
	serve_record_finish(job->serve, &job->record, r < 0 ? "gone" : "aborted", job->code);
	forget_call(job);
}

/* The process ended well, but its reply cannot be finished: only that it may have run is sure. */
static void job_lose(struct job *job)
{
	child_signal(&job->child, SIGKILL);
	serve_record_finish(job->serve, &job->record, "lost", 0);
	aph_call_free(job->call);
	forget_call(job);
}

/* -- moving bytes ------------------------------------------------------------------------------ */

static void move_request(struct job *job)
{
	size_t moved = 0;

	while (job->child.in >= 0 && job->in_ready && job->request_ready && moved < TURN_BYTES) {
		ssize_t n = serve_move_request(job->call, job->child.in);

		if (n > 0) {
			moved += (size_t)n;
			job->record.request_bytes += (uint64_t)n;
		} else if (n == SERVE_CALL_WAITS) {
			job->request_ready = false;
		} else if (n == SERVE_FD_WAITS) {
			/* A pipe that was widened has room again, but will not say so. */
			job->in_ready = child_widen(&job->child, job->child.in);
		} else {
			/* The end, or a command that wants no more: it may still answer. */
			close_in(job);
		}
	}
}

static void move_reply(struct job *job)
{
	size_t moved = 0;

	while (job->child.out >= 0 && job->out_ready && job->reply_ready && moved < TURN_BYTES) {
		ssize_t n =
			serve_move_reply(job->call, job->child.out, SIZE_MAX, &job->uncommitted);

		if (n > 0) {
			/* That much at once: the writer fills the pipe faster than we are woken. */
			if (n == SERVE_PIECE_MAX && moved == 0)
				child_widen(&job->child, job->child.out);
			moved += (size_t)n;
			job->record.reply_bytes += (uint64_t)n;
		} else if (n == SERVE_CALL_WAITS) {
			job->reply_ready = false;
		} else if (n == SERVE_FD_WAITS) {
			job->out_ready = false;
		} else {
			close_out(job);
		}
	}
}

/* True when the next turn has something to do without waiting for an event first. */
static bool is_hot(const struct job *job)
{
	return job->call != NULL && ((job->child.in >= 0 && job->in_ready && job->request_ready) ||
				     (job->child.out >= 0 && job->out_ready && job->reply_ready));
}

/* Lets the job go as far as it can. Returns when it wants another turn, or 0 when it is over. */
static uint64_t job_turn(struct job *job, uint64_t now_ns)
{
	if (!job->exited && now_ns >= job->kill_at_ns) {
		child_signal(&job->child, SIGKILL);
		job->kill_at_ns = UINT64_MAX;
	}
	if (job->state == JOB_ENDING && job->exited) {
		/* The leader had its time to end its own children; none of them outlives it. */
		child_signal(&job->child, SIGKILL);
		return 0;
	}
	if (job->state == JOB_ENDING)
		return job->kill_at_ns;
	if (job->exited && job->code != 0) {
		job_abort(job);
		return 0;
	}
	move_request(job);
	move_reply(job);
	if (job->exited && job->child.out < 0) {
		job_answer(job);
		return 0;
	}
	/* The service stops, and others hold the output or the caller does not read. */
	if (job->exited && now_ns >= job->kill_at_ns) {
		job_lose(job);
		return 0;
	}
	return is_hot(job) ? now_ns : job->kill_at_ns;
}

static void in_ready(struct loop_source *source, uint32_t events)
{
	struct job *job = source->data;

	(void)events;
	job->in_ready = true;
}

static void out_ready(struct loop_source *source, uint32_t events)
{
	struct job *job = source->data;

	(void)events;
	job->out_ready = true;
}

/* -- starting ---------------------------------------------------------------------------------- */

#define ENVIRONMENT_MAX 9

struct environment {
	char *entries[ENVIRONMENT_MAX];
	size_t n;
};

static int environment_add(struct environment *env, const char *name, const char *value)
{
	if (asprintf(&env->entries[env->n], "%s=%s", name, value) < 0) {
		env->entries[env->n] = NULL;
		return -ENOMEM;
	}
	env->n++;
	return 0;
}

static int environment_add_number(struct environment *env, const char *name, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	return environment_add(env, name, text);
}

static void environment_deinit(struct environment *env)
{
	for (size_t i = 0; i < env->n; i++)
		free(env->entries[i]);
}

/* A caller on another machine is no process that we could name. */
static int environment_add_caller(struct environment *env, const struct aph_credentials *who)
{
	int r = environment_add_number(env, "ANTIPHON_CALLER_PID", (uint64_t)who->pid);

	if (r == 0)
		r = environment_add_number(env, "ANTIPHON_CALLER_UID", who->uid);
	if (r == 0)
		r = environment_add_number(env, "ANTIPHON_CALLER_EUID", who->euid);
	if (r == 0)
		r = environment_add_number(env, "ANTIPHON_CALLER_GID", who->gid);
	if (r == 0)
		r = environment_add_number(env, "ANTIPHON_CALLER_EGID", who->egid);
	return r;
}

static int environment_fill(struct environment *env, const struct serve *serve,
			    const struct aph_call *call)
{
	const struct aph_credentials *who = aph_call_credentials(call);
	uint64_t deadline_ns = aph_call_deadline(call);
	uint64_t now_ns = aph_time_ns();
	int r;

	r = environment_add(env, "ANTIPHON_NAME", serve->name);
	if (r == 0 && who->pid)
		r = environment_add_caller(env, who);
	if (r == 0 && who->label[0] != '\0')
		r = environment_add(env, "ANTIPHON_CALLER_LABEL", who->label);
	if (r == 0 && deadline_ns != APH_FOREVER)
		r = environment_add_number(env, "ANTIPHON_TIMEOUT_MS",
					   deadline_ns > now_ns ? (deadline_ns - now_ns) / 1000000
								: 0);
	return r;
}

static int start_child(struct job *job)
{
	struct environment env = { .n = 0 };
	int fds[APH_CALL_FDS_MAX];
	struct child_spec spec = { .argv = job->serve->options.argv,
				   .env = env.entries,
				   .fds = fds };
	ssize_t n_fds;
	int r;

	r = environment_fill(&env, job->serve, job->call);
	if (r == 0) {
		n_fds = aph_call_take_fds(job->call, fds, APH_CALL_FDS_MAX);
		spec.n_fds = n_fds > 0 ? (size_t)n_fds : 0;
		r = child_start(&job->child, &spec);
		for (size_t i = 0; i < spec.n_fds; i++)
			close(fds[i]);
	}
	environment_deinit(&env);
	return r;
}

static int watch_child(struct job *job)
{
	int r;

	job->in_source =
		(struct loop_source){ .fd = job->child.in, .ready = in_ready, .data = job };
	job->out_source =
		(struct loop_source){ .fd = job->child.out, .ready = out_ready, .data = job };
	/*
	 * Edge-triggered: what is ready is remembered in the job until a read or a write says
	 * otherwise.
	 */
	r = loop_add(&job->serve->loop, &job->in_source, EPOLLOUT | EPOLLET);
	if (r == 0)
		r = loop_add(&job->serve->loop, &job->out_source, EPOLLIN | EPOLLET);
	return r;
}

static void job_start(struct job *job)
{
	struct state *state = job->serve->mode_state;
	int r;

	r = start_child(job);
	if (r < 0) {
		cli_error("cannot start a process for a call: %s; the call is refused",
			  strerror(-r));
		job_refuse(job, APH_REASON_RESOURCES);
		return;
	}
	TAILQ_REMOVE(&state->waiting, job, link);
	TAILQ_INSERT_TAIL(&state->active, job, link);
	state->n_active++;
	job->state = JOB_RUNNING;
	aph_channel_set_data(aph_call_channel(job->call), (void *)++state->sequence);
	job->request_ready = true;
	job->reply_ready = true;
	job->in_ready = true;
	job->out_ready = true;
	r = watch_child(job);
	if (r < 0) {
		cli_error("cannot watch a process: %s; its call is aborted", strerror(-r));
		child_signal(&job->child, SIGKILL);
	}
}

/* When a call may be said to have begun to wait: not before its client last had its turn. */
static uintptr_t waits_since(const struct job *job)
{
	/* Kept in the channel's data pointer: it needs no memory and goes away with the channel. */
	uintptr_t last_start = (uintptr_t)aph_channel_data(aph_call_channel(job->call));

	return last_start > job->arrived ? last_start : job->arrived;
}

/* The clients take turns: one that sends many calls at once gets no more processes than others. */
static struct job *next_waiting(const struct state *state)
{
	struct job *best = NULL;
	struct job *job;

	TAILQ_FOREACH(job, &state->waiting, link) {
		if (best == NULL || waits_since(job) < waits_since(best))
			best = job;
	}
	return best;
}

/* -- the mode ---------------------------------------------------------------------------------- */

static int process_begin(struct serve *serve)
{
	struct state *state = calloc(1, sizeof(*state));

	if (state == NULL) {
		cli_error("out of memory");
		return -ENOMEM;
	}
	TAILQ_INIT(&state->waiting);
	TAILQ_INIT(&state->active);
	serve->mode_state = state;
	return 0;
}

static void process_request(struct serve *serve, struct aph_call *call)
{
	struct state *state = serve->mode_state;
	struct job *job;

	if (serve->stopping) {
		aph_call_refuse(call, APH_REASON_CLOSED);
		return;
	}
	job = calloc(1, sizeof(*job));
	if (job == NULL) {
		aph_call_refuse(call, APH_REASON_RESOURCES);
		return;
	}
	job->serve = serve;
	job->call = call;
	job->arrived = ++state->sequence;
	job->child.in = -1;
	job->child.out = -1;
	job->kill_at_ns = UINT64_MAX;
	serve_record_begin(&job->record, call);
	aph_call_set_data(call, job);
	TAILQ_INSERT_TAIL(&state->waiting, job, link);
}

static void process_event(struct serve *serve, const struct aph_event *event)
{
	struct job *job;

	if (event->type == APH_EVENT_REQUEST) {
		process_request(serve, event->call);
		return;
	}
	job = aph_call_data(event->call);
	if (job == NULL)
		return;
	if (event->type == APH_EVENT_READABLE)
		job->request_ready = true;
	else if (event->type == APH_EVENT_WRITABLE)
		job->reply_ready = true;
	else if (event->type == APH_EVENT_END)
		job_abandon(job);
}

static void process_child_ended(struct serve *serve)
{
	struct state *state = serve->mode_state;
	struct job *job;

	TAILQ_FOREACH(job, &state->active, link) {
		if (!job->exited)
			job->exited = child_has_ended(&job->child, &job->code);
	}
}

static uint64_t process_turn(struct serve *serve, uint64_t now_ns)
{
	struct state *state = serve->mode_state;
	uint64_t next_ns = APH_FOREVER;
	struct job *job, *following;

	for (job = TAILQ_FIRST(&state->active); job != NULL; job = following) {
		uint64_t wanted_ns = job_turn(job, now_ns);

		following = TAILQ_NEXT(job, link);
		if (wanted_ns == 0)
			job_free(job);
		else if (wanted_ns < next_ns)
			next_ns = wanted_ns;
	}
	while (state->n_active < serve->options.processes_max && !TAILQ_EMPTY(&state->waiting)) {
		job_start(next_waiting(state));
		next_ns = APH_NOW;
	}
	return next_ns;
}

static void process_stop(struct serve *serve, bool hard)
{
	struct state *state = serve->mode_state;
	struct job *job, *following;

	for (job = TAILQ_FIRST(&state->waiting); job != NULL; job = following) {
		following = TAILQ_NEXT(job, link);
		job_refuse(job, APH_REASON_CLOSED);
	}
	/* The calls go on for as long as their processes do, and end as those end. */
	process_child_ended(serve);
	TAILQ_FOREACH(job, &state->active, link) {
		/* Of one that has ended well the reply is left, which a signal might cut short. */
		if (!job->exited)
			child_signal(&job->child, hard ? SIGKILL : SIGTERM);
		job->kill_at_ns = aph_time_ns() + (hard ? 0 : serve->options.kill_after_ns);
	}
}

static bool process_is_idle(const struct serve *serve)
{
	const struct state *state = serve->mode_state;

	return TAILQ_EMPTY(&state->active) && TAILQ_EMPTY(&state->waiting);
}

/* Also one whose caller has gone, until its process has. */
static bool process_has_calls(const struct serve *serve)
{
	return !process_is_idle(serve);
}

static void process_end(struct serve *serve)
{
	free(serve->mode_state);
	serve->mode_state = NULL;
}

const struct serve_mode serve_process_mode = {
	.begin = process_begin,
	.event = process_event,
	.child_ended = process_child_ended,
	.turn = process_turn,
	.has_calls = process_has_calls,
	.stop = process_stop,
	.is_idle = process_is_idle,
	.end = process_end,
};

/* SPDX-License-Identifier: MIT */
/*
 * `antiphon serve --persistent`: one process that stays and is talked to in frames, four bytes of
 * length (most significant first) and a body, a request on its standard input and a reply on its
 * standard output, one at a time. The reply is not collected: it flows through as it comes.
 *
 * When the process ends, the call whose request it had begun to get is aborted with its exit
 * status, or lost if that was 0: the request may have run. Those that wait have not begun and go to
 * the next process, which is started after a pause that doubles with each death without an answer
 * in between.
 */
#include "serve_collect.h"

#include "cli.h"
#include "format.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAUSE_MIN_NS UINT64_C(100000000)
#define PAUSE_MAX_NS UINT64_C(10000000000)
/* Steps in one turn of the loop: between turns callers that go away are noticed. */
#define TURN_STEPS 64

struct state {
	struct serve *serve;
	struct collector collector;

	struct child child; /* pid 0: none now */
	struct loop_source in_source;
	struct loop_source out_source;
	bool in_ready;
	bool out_ready;
	bool exited;
	bool killed; /* its time was up */
	int code;
	uint64_t kill_at_ns;
	uint64_t start_at_ns;
	uint64_t pause_ns;

	struct request *current;
	size_t sent; /* of the current frame */
	bool reply_ready;
	unsigned char header[FRAME_HEADER_LEN];
	size_t header_len;
	uint64_t reply_left;
	size_t uncommitted; /* of the reply, see serve_move_reply() */
};

/* -- one call after the other ------------------------------------------------------------------ */

static void finish_current(struct state *state)
{
	collector_free(&state->collector, state->current);
	state->current = NULL;
	state->header_len = 0;
	state->reply_left = 0;
	state->uncommitted = 0;
	state->sent = 0;
}

static void answer_current(struct state *state)
{
	struct request *request = state->current;
	int r;

	state->pause_ns = PAUSE_MIN_NS;
	if (request->call != NULL) {
		r = aph_call_reply(request->call, NULL, 0);
		if (r < 0 && r != -ECANCELED)
			aph_call_abort(request->call, CLI_FAILED);
		serve_record_finish(state->serve, &request->record,
				    r == -ECANCELED ? "gone" : "answered", 0);
	}
	finish_current(state);
}

/* The process has ended with the current call in its hands. */
static void fail_current(struct state *state, int code)
{
	struct request *request = state->current;

	if (request->call != NULL) {
		serve_record_finish(state->serve, &request->record, code != 0 ? "aborted" : "lost",
				    code);
		if (code != 0)
			aph_call_abort(request->call, code);
		else
			aph_call_free(
				request->call); /* without an answer: the caller is told LOST */
	}
	finish_current(state);
}

/* The caller has gone. A frame that was begun has to be finished all the same. */
static void abandon_current(struct state *state)
{
	struct request *request = state->current;

	serve_record_finish(state->serve, &request->record, "gone", 0);
	aph_call_free(request->call);
	request->call = NULL;
	/* What was read for it but not sent is dropped with it. */
	state->reply_left -= state->uncommitted;
	state->uncommitted = 0;
	state->reply_ready = true;
	if (state->sent == 0)
		finish_current(state);
}

static void kill_child(struct state *state)
{
	child_signal(&state->child, SIGTERM);
	state->kill_at_ns = aph_time_ns() + state->serve->options.kill_after_ns;
}

/* The output ended, or holds what nobody asked for: this process is of no use any more. */
static void close_out(struct state *state)
{
	loop_remove(&state->serve->loop, &state->out_source);
	close(state->child.out);
	state->child.out = -1;
	if (!state->exited && state->kill_at_ns == UINT64_MAX)
		kill_child(state);
}

static void send_current(struct state *state)
{
	struct request *request = state->current;

	while (state->in_ready && state->sent < request->len) {
		ssize_t n = write(state->child.in, request->frame + state->sent,
				  request->len - state->sent);

		if (n >= 0)
			state->sent += (size_t)n;
		else if (errno != EINTR)
			state->in_ready =
				false; /* full, or it reads no more and its end will tell */
	}
}

static void read_header(struct state *state)
{
	ssize_t n = read(state->child.out, state->header + state->header_len,
			 FRAME_HEADER_LEN - state->header_len);

	if (n < 0 && errno == EAGAIN) {
		state->out_ready = false;
	} else if (n > 0 && state->current == NULL) {
		cli_error("%s wrote before it was asked; it is started anew",
			  state->serve->options.argv[0]);
		close_out(state);
	} else if (n > 0) {
		state->header_len += (size_t)n;
		if (state->header_len == FRAME_HEADER_LEN) {
			for (size_t i = 0; i < FRAME_HEADER_LEN; i++)
				state->reply_left = state->reply_left << 8 | state->header[i];
		}
	} else if (n == 0 || errno != EINTR) {
		close_out(state);
	}
}

/*
 * The reply of a caller that has gone is read and dropped, so that the next frame begins where it
 * must.
 */
static ssize_t drop_reply(const struct state *state)
{
	char scratch[16384];
	size_t max = state->reply_left < sizeof(scratch) ? (size_t)state->reply_left
							 : sizeof(scratch);
	ssize_t n;

	do {
		n = read(state->child.out, scratch, max);
	} while (n < 0 && errno == EINTR);
	if (n > 0)
		return n;
	return n < 0 && errno == EAGAIN ? SERVE_FD_WAITS : SERVE_FD_ENDS;
}

static void read_reply(struct state *state)
{
	struct request *request = state->current;
	ssize_t n;

	assert(request != NULL);
	if (request->call == NULL)
		n = drop_reply(state);
	else
		n = serve_move_reply(request->call, state->child.out, (size_t)state->reply_left,
				     &state->uncommitted);

	if (n > 0) {
		state->reply_left -= (uint64_t)n;
		request->record.reply_bytes += (uint64_t)n;
	} else if (n == SERVE_CALL_WAITS) {
		state->reply_ready = false;
	} else if (n == SERVE_FD_WAITS) {
		state->out_ready = false;
	} else {
		close_out(state);
	}
}

static bool reply_is_whole(const struct state *state)
{
	return state->current != NULL && state->header_len == FRAME_HEADER_LEN &&
	       state->reply_left == 0;
}

/* One step on the current call. Returns whether another may follow at once. */
static bool step(struct state *state)
{
	if (state->current == NULL && !state->exited && state->child.out >= 0) {
		state->current = collector_take(&state->collector);
		state->reply_ready = true;
	}
	if (state->current != NULL)
		send_current(state);
	/* The reply may be whole before the process has read all of the request. */
	if (reply_is_whole(state) && state->sent == state->current->len) {
		answer_current(state);
		return true;
	}
	if (reply_is_whole(state) || state->child.out < 0 || !state->out_ready)
		return false;
	if (state->header_len < FRAME_HEADER_LEN)
		read_header(state);
	else if (state->reply_ready)
		read_reply(state);
	else
		return false;
	return true;
}

/* -- the process ------------------------------------------------------------------------------- */

static void in_ready(struct loop_source *source, uint32_t events)
{
	struct state *state = source->data;

	(void)events;
	state->in_ready = true;
}

static void out_ready(struct loop_source *source, uint32_t events)
{
	struct state *state = source->data;

	(void)events;
	state->out_ready = true;
}

static int start_child(struct state *state)
{
	struct serve *serve = state->serve;
	char name[sizeof("ANTIPHON_NAME=") + APH_ADDRESS_MAX];
	char *env[] = { name, NULL };
	struct child_spec spec = { .argv = serve->options.argv, .env = env };
	int r;

	snprintf(name, sizeof(name), "ANTIPHON_NAME=%s", serve->name);
	r = child_start(&state->child, &spec);
	if (r < 0)
		return r;
	state->in_ready = true;
	state->out_ready = true;
	state->exited = false;
	state->killed = false;
	state->kill_at_ns = UINT64_MAX;
	state->in_source =
		(struct loop_source){ .fd = state->child.in, .ready = in_ready, .data = state };
	state->out_source =
		(struct loop_source){ .fd = state->child.out, .ready = out_ready, .data = state };
	r = loop_add(&serve->loop, &state->in_source, EPOLLOUT | EPOLLET);
	if (r == 0)
		r = loop_add(&serve->loop, &state->out_source, EPOLLIN | EPOLLET);
	if (r < 0)
		child_signal(&state->child, SIGKILL);
	return r;
}

static void plan_start(struct state *state, uint64_t now_ns)
{
	state->start_at_ns = now_ns + state->pause_ns;
	state->pause_ns = state->pause_ns * 2 < PAUSE_MAX_NS ? state->pause_ns * 2 : PAUSE_MAX_NS;
}

/* The process is dead and all that it wrote was read. */
static void bury_child(struct state *state, uint64_t now_ns)
{
	struct serve *serve = state->serve;
	struct text text;

	if (reply_is_whole(state)) {
		answer_current(state);
	} else if (state->current != NULL && state->sent == 0) {
		/* It got nothing of this one: the next process may have it. */
		collector_put_back(&state->collector, state->current);
		state->current = NULL;
	} else if (state->current != NULL) {
		fail_current(state, state->code);
	}
	child_signal(&state->child, SIGKILL);
	if (state->child.out >= 0)
		loop_remove(&serve->loop, &state->out_source);
	loop_remove(&serve->loop, &state->in_source);
	child_reap(&state->child);
	state->header_len = 0;
	state->reply_left = 0;
	if (serve->stopping) {
		collector_refuse_all(&state->collector, APH_REASON_CLOSED);
		return;
	}
	cli_error("%s ended with status %d; it is started again in %s", serve->options.argv[0],
		  state->code, format_duration(&text, (double)state->pause_ns));
	plan_start(state, now_ns);
}

/* True while the pipe may still hold some of the reply, and its caller has to make room first. */
static bool is_held_up(const struct state *state)
{
	return state->child.out >= 0 && state->out_ready && state->current != NULL &&
	       !reply_is_whole(state) && !state->reply_ready && !state->killed;
}

static void kill_child_now(struct state *state)
{
	child_signal(&state->child, SIGKILL);
	state->killed = true;
	state->kill_at_ns = UINT64_MAX;
}

/* -- the mode ---------------------------------------------------------------------------------- */

static int persistent_begin(struct serve *serve)
{
	struct state *state = calloc(1, sizeof(*state));
	int r;

	if (state == NULL) {
		cli_error("out of memory");
		return -ENOMEM;
	}
	collector_init(&state->collector, serve);
	state->serve = serve;
	state->child.in = -1;
	state->child.out = -1;
	state->pause_ns = PAUSE_MIN_NS;
	state->start_at_ns = UINT64_MAX;
	r = start_child(state);
	if (r < 0) {
		cli_error("cannot start %s: %s", serve->options.argv[0], strerror(-r));
		if (state->child.pid != 0)
			child_reap(&state->child);
		free(state);
		return r;
	}
	serve->mode_state = state;
	return 0;
}

static void persistent_event(struct serve *serve, const struct aph_event *event)
{
	struct state *state = serve->mode_state;
	struct request *request;

	if (event->type == APH_EVENT_REQUEST) {
		if (serve->stopping)
			aph_call_refuse(event->call, APH_REASON_CLOSED);
		else
			collector_add(&state->collector, event->call);
		return;
	}
	request = aph_call_data(event->call);
	if (request == NULL)
		return;
	if (event->type == APH_EVENT_READABLE)
		collector_advance(&state->collector, request);
	else if (event->type == APH_EVENT_WRITABLE)
		state->reply_ready = true;
	else if (event->type == APH_EVENT_END && request == state->current)
		abandon_current(state);
	else if (event->type == APH_EVENT_END)
		collector_abandon(&state->collector, request);
}

static void persistent_child_ended(struct serve *serve)
{
	struct state *state = serve->mode_state;

	if (state->child.pid == 0 || state->exited)
		return;
	state->exited = child_has_ended(&state->child, &state->code);
	/* Whatever it wrote last is in the pipe now: look there before it is buried. */
	if (state->exited)
		state->out_ready = true;
}

static uint64_t persistent_turn(struct serve *serve, uint64_t now_ns)
{
	struct state *state = serve->mode_state;
	unsigned steps = 0;
	int r;

	while (state->child.pid != 0 && steps < TURN_STEPS && step(state))
		steps++;
	if (steps == TURN_STEPS)
		return APH_NOW;
	if (state->child.pid != 0 && now_ns >= state->kill_at_ns)
		kill_child_now(state);
	if (state->child.pid != 0 && state->exited && !is_held_up(state))
		bury_child(state, now_ns);
	if (state->child.pid != 0)
		return state->kill_at_ns;
	if (now_ns < state->start_at_ns)
		return state->start_at_ns;

	state->start_at_ns = UINT64_MAX;
	r = start_child(state);
	if (r < 0) {
		cli_error("cannot start %s: %s", serve->options.argv[0], strerror(-r));
		plan_start(state, now_ns);
	}
	return APH_NOW;
}

static bool persistent_has_calls(const struct serve *serve)
{
	const struct state *state = serve->mode_state;

	return state->current != NULL || !collector_is_empty(&state->collector);
}

static void persistent_stop(struct serve *serve, bool hard)
{
	struct state *state = serve->mode_state;

	collector_refuse_all(&state->collector, APH_REASON_CLOSED);
	state->start_at_ns = UINT64_MAX;
	if (state->child.pid == 0)
		return;
	if (hard)
		kill_child_now(state);
	else
		kill_child(state);
}

static bool persistent_is_idle(const struct serve *serve)
{
	const struct state *state = serve->mode_state;

	return state->child.pid == 0;
}

static void persistent_end(struct serve *serve)
{
	free(serve->mode_state);
	serve->mode_state = NULL;
}

const struct serve_mode serve_persistent_mode = {
	.begin = persistent_begin,
	.event = persistent_event,
	.child_ended = persistent_child_ended,
	.turn = persistent_turn,
	.has_calls = persistent_has_calls,
	.stop = persistent_stop,
	.is_idle = persistent_is_idle,
	.end = persistent_end,
};

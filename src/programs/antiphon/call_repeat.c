/* SPDX-License-Identifier: MIT */
/*
 * Many calls with one request, some of them at once, and what they took.
 */
#include "call.h"

#include "cli.h"
#include "format.h"
#include "histogram.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define N_OUTCOMES 4

/* A call under way, or room for one. */
struct slot {
	struct slot *next_idle;
	struct aph_call *call;
	uint64_t began_ns;
	size_t sent;
	bool sent_fds;
	bool sent_all;
};

struct run {
	struct aph_endpoint *ep;
	struct aph_channel *channel;
	const struct call_options *options;
	char *request;
	size_t request_len;
	struct slot *slots;
	struct slot *idle;
	/* The most that were under way: the service may take fewer than we want. */
	uint64_t n_at_once;
	uint64_t n_begun;
	uint64_t n_ended;
	uint64_t n_outcomes[N_OUTCOMES];
	struct aph_result first_bad; /* what the exit status tells */
	uint64_t reply_bytes;
	bool closed; /* the channel is of no use any more */
	bool failed; /* something else is, and was said */
	struct histogram histogram;
	struct progress progress;
};

/* -- the request ------------------------------------------------------------------------------- */

static int read_whole(struct run *run, int fd)
{
	size_t size = 0;

	for (;;) {
		ssize_t n;

		if (run->request_len == size) {
			char *larger;

			size = size == 0 ? 65536 : size * 2;
			larger = realloc(run->request, size);
			if (larger == NULL)
				return -ENOMEM;
			run->request = larger;
		}
		n = read(fd, run->request + run->request_len, size - run->request_len);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			return 0;
		if (n > 0)
			run->request_len += (size_t)n;
	}
}

static int load_request(struct run *run, int in_fd)
{
	const char *text = run->options->text == NULL ? "" : run->options->text;
	int r;

	if (in_fd >= 0) {
		r = read_whole(run, in_fd);
	} else {
		run->request = strdup(text);
		run->request_len = strlen(text);
		r = run->request == NULL ? -ENOMEM : 0;
	}
	if (r < 0)
		cli_error("cannot read the request: %s", strerror(-r));
	return r;
}

/* -- calls ------------------------------------------------------------------------------------- */

static void count_result(struct run *run, const struct aph_result *result, uint64_t took_ns)
{
	run->n_ended++;
	if (result->outcome < N_OUTCOMES)
		run->n_outcomes[result->outcome]++;
	if (result->outcome == APH_ANSWERED)
		histogram_add(&run->histogram, took_ns);
	else if (run->first_bad.outcome == APH_ANSWERED)
		run->first_bad = *result;
}

/* They go first: not a byte of a request without them. True once they are gone. */
static bool send_descriptors(struct run *run, struct slot *slot)
{
	const struct call_options *options = run->options;
	ssize_t r;

	if (slot->sent_fds)
		return true;
	r = aph_call_send_fds(slot->call, NULL, 0, options->fds, options->n_fds, APH_MORE);
	slot->sent_fds = r >= 0;
	/* No event will follow. */
	if (r < 0 && r != -EAGAIN && r != -EPIPE && r != -ENOTCONN && !run->failed) {
		cli_error("cannot send the descriptors: %s", aph_error());
		run->failed = true;
	}
	return slot->sent_fds;
}

static void send_more(struct run *run, struct slot *slot)
{
	if (!send_descriptors(run, slot))
		return;
	while (!slot->sent_all) {
		ssize_t n = aph_call_send(slot->call, run->request + slot->sent,
					  run->request_len - slot->sent, 0);

		/* WRITABLE or END follows. */
		if (n < 0)
			return;
		slot->sent += (size_t)n;
		slot->sent_all = slot->sent == run->request_len;
	}
}

static void drop_reply(struct run *run, const struct slot *slot)
{
	const void *data;
	size_t len;

	while (aph_call_borrow(slot->call, &data, &len) == 0) {
		run->reply_bytes += len;
		aph_call_release(slot->call, len);
	}
}

static int begin_call(struct run *run, struct slot *slot)
{
	int r = aph_call_new(&slot->call, run->channel, aph_deadline_ms(run->options->timeout_ms),
			     slot);

	if (r < 0) {
		slot->call = NULL;
		return r;
	}
	run->n_begun++;
	if (run->n_begun - run->n_ended > run->n_at_once)
		run->n_at_once = run->n_begun - run->n_ended;
	slot->began_ns = aph_time_ns();
	slot->sent = 0;
	slot->sent_fds = run->options->n_fds == 0;
	slot->sent_all = false;
	send_more(run, slot);
	return 0;
}

static void rest(struct run *run, struct slot *slot)
{
	slot->next_idle = run->idle;
	run->idle = slot;
}

/* Begins as many calls as there is room for. */
static void begin_calls(struct run *run)
{
	while (run->idle != NULL && run->n_begun < run->options->repeat && !run->closed &&
	       !run->failed) {
		struct slot *slot = run->idle;
		int r = begin_call(run, slot);

		/* The channel has as many as its service takes: the next that ends makes room. */
		if (r == -EAGAIN && run->n_ended < run->n_begun)
			return;
		if (r < 0)
			run->closed = true;
		else
			run->idle = slot->next_idle;
	}
}

static void end_call(struct run *run, struct slot *slot, const struct aph_result *result)
{
	if (result->outcome == APH_ANSWERED)
		drop_reply(run, slot);
	count_result(run, result, aph_time_ns() - slot->began_ns);
	slot->call = aph_call_free(slot->call);
	rest(run, slot);
	begin_calls(run);
}

static void handle(struct run *run, const struct aph_event *event)
{
	struct slot *slot;

	if (event->type == APH_EVENT_CLOSED) {
		run->closed = true;
		return;
	}
	if (event->call == NULL)
		return;
	slot = aph_call_data(event->call);
	if (event->type == APH_EVENT_END)
		end_call(run, slot, &event->result);
	else if (event->type == APH_EVENT_WRITABLE)
		send_more(run, slot);
	else
		drop_reply(run, slot);
}

/* One call after the other in the simplest way, which is the fastest too. */
static void run_serial(struct run *run)
{
	while (run->n_begun < run->options->repeat && !run->closed) {
		uint64_t took_ns, began_ns = aph_time_ns();
		struct aph_result result = { .outcome = APH_ANSWERED };
		int r = aph_call(run->channel, run->request, run->request_len, NULL, NULL,
				 aph_deadline_ms(run->options->timeout_ms));

		if (r < 0) {
			run->closed = true;
			return;
		}
		run->n_begun++;
		run->n_at_once = 1;
		if (r > 0)
			result = aph_channel_result(run->channel);
		took_ns = aph_time_ns() - began_ns;
		count_result(run, &result, took_ns);
		/* The bar looks at the clock too, which is much beside the fastest calls. */
		if ((run->n_ended & 63) == 0 || took_ns > 1000000)
			progress_update(&run->progress, run->n_ended, 0);
	}
}

static void run_parallel(struct run *run)
{
	struct aph_event event;

	for (uint64_t i = run->options->parallel; i > 0; i--)
		rest(run, &run->slots[i - 1]);
	begin_calls(run);
	while (run->n_ended < run->n_begun && !run->failed) {
		int r = aph_endpoint_next(run->ep, &event, progress_next(&run->progress));

		if (r == 0)
			handle(run, &event);
		else if (run->closed)
			return;
		if ((run->n_ended & 63) == 0 || r != 0)
			progress_update(&run->progress, run->n_ended, 0);
	}
}

/* -- the summary ------------------------------------------------------------------------------- */

static void print_json(const struct run *run, double seconds)
{
	static const char *const keys[N_OUTCOMES] = { "answered", "refused", "aborted", "lost" };
	struct json json;

	json_init(&json, stdout);
	json_begin_object(&json, NULL);
	json_uint(&json, "calls", run->n_ended);
	json_uint(&json, "parallel", run->options->parallel);
	json_uint(&json, "at_once", run->n_at_once);
	json_double(&json, "seconds", seconds);
	json_double(&json, "calls_per_s", (double)run->n_outcomes[APH_ANSWERED] / seconds);
	json_begin_object(&json, "outcomes");
	for (size_t i = 0; i < N_OUTCOMES; i++)
		json_uint(&json, keys[i], run->n_outcomes[i]);
	json_end(&json);
	json_uint(&json, "request_bytes", run->request_len);
	histogram_json(&run->histogram, &json, "latency_us");
	json_end(&json);
}

static void print_text(const struct run *run, double seconds)
{
	struct text rate, took;

	printf("%" PRIu64 " calls, %" PRIu64 " at once, in %s: %s calls/s\n", run->n_ended,
	       run->n_at_once, format_duration(&took, seconds * 1e9),
	       format_rate(&rate, (double)run->n_outcomes[APH_ANSWERED] / seconds));
	if (run->histogram.n > 0) {
		printf("latency  ");
		histogram_print(&run->histogram, stdout);
	}
	if (run->n_outcomes[APH_ANSWERED] == run->n_ended)
		return;
	for (int i = 0; i < N_OUTCOMES; i++) {
		if (run->n_outcomes[i] > 0)
			printf("%s %" PRIu64 "\n", aph_outcome_name((enum aph_outcome)i),
			       run->n_outcomes[i]);
	}
}

/*
 * What the exit status is to tell: the first call that was not answered, or that there was no way
 * on.
 */
static int conclude(const struct run *run)
{
	const struct aph_result *bad = &run->first_bad;

	if (bad->outcome == APH_ABORTED)
		cli_error("ABORTED by the service with code %d", (int)bad->code);
	else if (bad->outcome != APH_ANSWERED)
		cli_error("%s: %s", aph_outcome_name(bad->outcome), aph_reason_name(bad->reason));
	if (run->n_ended < run->options->repeat)
		cli_error("the channel closed after %" PRIu64 " of %" PRIu64 " calls", run->n_ended,
			  run->options->repeat);
	if (bad->outcome != APH_ANSWERED)
		return cli_outcome_status(bad->outcome);
	return run->n_ended < run->options->repeat ? CLI_REFUSED : CLI_OK;
}

int call_repeat(struct aph_endpoint *ep, struct aph_channel *channel,
		const struct call_options *options, int in_fd)
{
	/* The histogram is too large for a stack that may be small. */
	static struct run run;
	uint64_t began_ns;
	double seconds;
	int status = CLI_FAILED;

	run = (struct run){ .ep = ep, .channel = channel, .options = options };
	run.slots = calloc((size_t)options->parallel, sizeof(*run.slots));
	if (run.slots == NULL)
		cli_error("out of memory");
	if (run.slots == NULL || load_request(&run, in_fd) < 0)
		goto out;
	progress_init(&run.progress, PROGRESS_CALLS, options->repeat, options->progress,
		      options->quiet);

	began_ns = aph_time_ns();
	if (options->parallel == 1 && options->n_fds == 0)
		run_serial(&run);
	else
		run_parallel(&run);
	seconds = (double)(aph_time_ns() - began_ns) / 1e9;
	progress_finish(&run.progress);
	if (run.failed)
		goto out;

	if (options->json)
		print_json(&run, seconds);
	else
		print_text(&run, seconds);
	status = cli_finish(conclude(&run));
out:
	for (uint64_t i = 0; run.slots != NULL && i < options->parallel; i++)
		aph_call_free(run.slots[i].call);
	free(run.slots);
	free(run.request);
	return status;
}

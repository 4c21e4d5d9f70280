/* SPDX-License-Identifier: MIT */
/*
 * What the test service does for one request; see service.h for the list. A work lives as long as
 * the service owns the call: until the reply, or until END where the service asked for receipts.
 */
#include "work.h"

#include "check.h"
#include "pattern.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK 16384

struct work {
	struct service *service;
	struct aph_call *call;
	struct work *prev, *next;
	char op;
	bool started, held, done;
	size_t n_args;
	union {
		unsigned char args[32];
		struct service_get get;
	};
	uint64_t sent;
	size_t reserved; /* bytes that are filled in and not handed over */
	struct service_sum sum;
	int fds[APH_CALL_FDS_MAX];
	size_t n_fds;
	size_t have, used; /* bytes of `chunk` that were read, and those of them that were sent */
	unsigned char chunk[CHUNK];
};

static bool keeps_calls(const struct work *work)
{
	return work->service->config.options.flags &
	       (APH_SERVICE_RECEIPTS | APH_SERVICE_RECEIPTS_NOW);
}

static void close_fds(struct work *work)
{
	while (work->n_fds > 0)
		close(work->fds[--work->n_fds]);
}

static void forget(struct work *work)
{
	struct service *service = work->service;

	if (work->prev)
		work->prev->next = work->next;
	else
		service->works = work->next;
	if (work->next)
		work->next->prev = work->prev;
	if (work->held)
		service->seen->held--;
	service->seen->works--;
	close_fds(work);
	free(work);
}

static void hold(struct work *work, bool held)
{
	if (work->held == held)
		return;
	work->held = held;
	if (held)
		work->service->seen->held++;
	else
		work->service->seen->held--;
}

/*
 * The library has taken the call's end: what `r` was is its business, but only these are possible.
 */
static void over(struct work *work, int r)
{
	CHECK(r == 0 || r == -ECANCELED);
	work->done = true;
	hold(work, false);
	if (!keeps_calls(work))
		forget(work);
}

static void reply(struct work *work, const void *data, size_t len)
{
	over(work, aph_call_reply(work->call, data, len));
}

/* A send that must not fail but for a client that has gone; the number that was taken. */
static size_t sent(ssize_t n)
{
	CHECK(n >= 0 || n == -EAGAIN || n == -EPIPE || n == -ENOTCONN);
	return n < 0 ? 0 : (size_t)n;
}

static void step_echo(struct work *work)
{
	const void *data;
	size_t len, n;
	ssize_t r;

	for (;;) {
		if (work->used < work->have) {
			len = work->have - work->used;
			n = sent(
				aph_call_send(work->call, work->chunk + work->used, len, APH_MORE));
			work->used += n;
			if (n < len)
				return;
			continue;
		}
		if (work->op == 'b') {
			r = aph_call_borrow(work->call, &data, &len);
			if (r == 0) {
				CHECK(len > 0);
				len = len < CHUNK ? len : CHUNK;
				memcpy(work->chunk, data, len);
				CHECK_OK(aph_call_release(work->call, len));
				r = (ssize_t)len;
			} else if (r == -ENODATA) {
				r = 0;
			}
		} else {
			r = aph_call_read(work->call, work->chunk, CHUNK);
		}
		if (r == 0) {
			reply(work, NULL, 0);
			return;
		}
		if (r < 0) {
			CHECK(r == -EAGAIN || r == -EPIPE);
			return;
		}
		work->have = (size_t)r;
		work->used = 0;
	}
}

static void step_drain(struct work *work)
{
	size_t right;
	ssize_t n;

	while ((n = aph_call_read(work->call, work->chunk, CHUNK)) > 0) {
		if (work->op == 'D' && work->sum.wrong_at == UINT64_MAX) {
			right = pattern_check(work->chunk, (size_t)n, work->sum.len,
					      work->get.seed);
			if (right < (size_t)n)
				work->sum.wrong_at = work->sum.len + right;
		}
		work->sum.len += (size_t)n;
		work->sum.sum = pattern_sum(work->sum.sum, work->chunk, (size_t)n);
	}
	if (n == 0)
		reply(work, &work->sum, sizeof(work->sum));
	else
		CHECK(n == -EAGAIN || n == -EPIPE);
}

static void step_get(struct work *work)
{
	int pipe_end = STDERR_FILENO;
	uint64_t left;
	size_t len, n;

	while ((left = work->get.len - work->sent) > 0) {
		len = left < CHUNK ? (size_t)left : CHUNK;
		pattern_fill(work->chunk, len, work->sent, work->get.seed);
		if (work->get.fd && work->sent == 0)
			n = sent(aph_call_send_fds(work->call, work->chunk, len, &pipe_end, 1,
						   APH_MORE));
		else
			n = sent(aph_call_send(work->call, work->chunk, len, APH_MORE));
		work->sent += n;
		if (n < len)
			return;
	}
	reply(work, NULL, 0);
}

static void step_get_in_place(struct work *work)
{
	uint64_t left;
	void *data;
	size_t len;
	int r;

	while ((left = work->get.len - work->sent) > 0) {
		if (!work->reserved) {
			len = left < CHUNK ? (size_t)left : CHUNK;
			r = aph_call_reserve(work->call, &data, &len);
			CHECK(r == 0 || r == -EAGAIN || r == -EPIPE || r == -ENOTCONN);
			if (r < 0)
				return;
			CHECK(len > 0);
			pattern_fill(data, len, work->sent, work->get.seed);
			work->reserved = len;
		}
		r = aph_call_commit(work->call, work->reserved, APH_MORE);
		CHECK(r == 0 || r == -EPIPE || r == -ENOTCONN || r == -EAGAIN);
		if (r < 0)
			return; /* with -EAGAIN the piece waits for a record's room */
		work->sent += work->reserved;
		work->reserved = 0;
	}
	reply(work, NULL, 0);
}

static void step_get_at_once(struct work *work)
{
	unsigned char *data = malloc((size_t)work->get.len);

	CHECK(data);
	pattern_fill(data, (size_t)work->get.len, 0, work->get.seed);
	reply(work, data, (size_t)work->get.len);
	free(data);
}

static void give_back_fds(struct work *work)
{
	ssize_t n;

	/* The whole request first: descriptors may come with any piece of it. */
	while ((n = aph_call_read(work->call, work->chunk, CHUNK)) > 0)
		;
	if (n < 0)
		return;
	n = (ssize_t)CHECK_OK(aph_call_take_fds(work->call, work->fds + work->n_fds,
						APH_CALL_FDS_MAX - work->n_fds));
	work->n_fds += (size_t)n;
	n = aph_call_send_fds(work->call, "f", 1, work->fds, work->n_fds, APH_MORE);
	if (n == -EAGAIN)
		return; /* as many are under way as may be: later */
	CHECK(n == 1 || n == -EPIPE || n == -ENOTCONN);
	close_fds(work);
	reply(work, NULL, 0);
}

static void tell_caller(struct work *work)
{
	const struct aph_credentials *cred = aph_call_credentials(work->call);
	struct service_caller caller = { 0 };

	CHECK(cred);
	caller.pid = cred->pid;
	caller.uid = cred->uid;
	caller.euid = cred->euid;
	caller.gid = cred->gid;
	caller.egid = cred->egid;
	caller.n_groups = (uint32_t)cred->n_groups;
	for (size_t i = 0; i < cred->n_groups && i < 64; i++)
		caller.groups[i] = cred->groups[i];
	snprintf(caller.label, sizeof(caller.label), "%s", cred->label);
	reply(work, &caller, sizeof(caller));
}

static void end_held(struct service *service, bool answer)
{
	struct work *next;

	for (struct work *work = service->works; work; work = next) {
		next = work->next;
		if (!work->held)
			continue;
		if (answer)
			reply(work, "woken", 5);
		else
			over(work, aph_call_abort(work->call, 77));
	}
}

/* Closes the channel: its calls get no events any more, and are the service's to free. */
static void throw_out(struct work *work)
{
	struct service *service = work->service;
	struct aph_channel *channel = aph_call_channel(work->call);
	struct work *next;

	service->seen->thrown_out++;
	aph_channel_close(channel);
	for (struct work *other = service->works; other; other = next) {
		next = other->next;
		if (aph_call_channel(other->call) != channel || other == work)
			continue;
		aph_call_free(other->call);
		forget(other);
	}
	CHECK(aph_call_reply(work->call, NULL, 0) == -ECANCELED);
	if (keeps_calls(work))
		aph_call_free(work->call);
	forget(work);
}

static size_t args_wanted(char op)
{
	switch (op) {
	case 'D':
	case 'g':
	case 'G':
	case 'z':
		return sizeof(struct service_get);
	case 'a':
		return sizeof(int32_t);
	case 'n':
		return sizeof(int64_t);
	case 'r':
		return 1;
	default:
		return 0;
	}
}

static bool is_harmful(const struct work *work)
{
	switch (work->op) {
	case 'x':
	case 'X':
		return true;
	case 'g':
	case 'G':
	case 'z':
		return work->get.len > 1u << 20;
	default:
		return false;
	}
}

/* What is done once, when the operation and its arguments are here. */
static void start(struct work *work)
{
	uint64_t deadline;
	int64_t number;
	int32_t code;
	ssize_t n;

	if (work->service->config.harmless && is_harmful(work)) {
		over(work, aph_call_abort(work->call, -1));
		return;
	}
	switch (work->op) {
	case 'a':
		memcpy(&code, work->args, sizeof(code));
		over(work, aph_call_abort(work->call, code));
		break;
	case 'r':
		/*
		 * An attacker may ask for any; those that there are not are the caller's mistake.
		 */
		over(work,
		     aph_call_refuse(work->call, (enum aph_reason)(work->args[0] %
								   (APH_REASON_RESOURCES + 1))));
		break;
	case 'l':
		CHECK(aph_call_free(work->call) == NULL);
		forget(work);
		break;
	case 'h':
		hold(work, true);
		break;
	case 'w':
	case 'P':
		end_held(work->service, work->op == 'w');
		reply(work, NULL, 0);
		break;
	case 'p':
		(void)sent(aph_call_send(work->call, "part", 4, APH_MORE));
		hold(work, true);
		break;
	case 't':
		deadline = aph_call_deadline(work->call);
		reply(work, &deadline, sizeof(deadline));
		break;
	case 'c':
		tell_caller(work);
		break;
	case 'x':
		_exit(0);
	case 'X':
		(void)sent(aph_call_send(work->call, "part", 4, APH_MORE));
		_exit(0);
	case 'o':
		throw_out(work);
		break;
	case 'n':
		memcpy(&number, work->args, sizeof(number));
		CHECK_OK(aph_service_set_generation(work->service->handle, number));
		reply(work, NULL, 0);
		break;
	case 'G':
		step_get_at_once(work);
		break;
	case 'e':
	case 'b':
		work->chunk[0] = (unsigned char)work->op;
		work->have = 1;
		/* As much as there is in one piece: a short one needs no room in the arena. */
		n = work->op == 'e' ? aph_call_read(work->call, work->chunk + 1, CHUNK - 1) : 0;
		work->have += n > 0 ? (size_t)n : 0;
		step_echo(work);
		break;
	case 'd':
		work->sum = (struct service_sum){ .len = 1,
						  .sum = pattern_sum(0, "d", 1),
						  .wrong_at = UINT64_MAX };
		step_drain(work);
		break;
	case 'D':
		work->sum.wrong_at = UINT64_MAX;
		step_drain(work);
		break;
	case 'g':
		step_get(work);
		break;
	case 'z':
		step_get_in_place(work);
		break;
	case 'f':
		give_back_fds(work);
		break;
	default:
		over(work, aph_call_abort(work->call, -1));
	}
}

/* Reads the operation and its arguments; true when they are there. */
static bool read_head(struct work *work)
{
	size_t want;
	ssize_t n;

	if (!work->op) {
		n = aph_call_read(work->call, &work->op, 1);
		if (n == 0) {
			reply(work, NULL, 0);
			return false;
		}
		if (n < 0)
			return false;
	}
	want = args_wanted(work->op);
	while (work->n_args < want) {
		n = aph_call_read(work->call, work->args + work->n_args, want - work->n_args);
		if (n == 0) {
			over(work, aph_call_abort(work->call, -1));
			return false;
		}
		if (n < 0)
			return false;
		work->n_args += (size_t)n;
	}
	return true;
}

void work_step(struct work *work)
{
	if (!work || work->done || work->held)
		return;
	if (!work->started) {
		if (read_head(work)) {
			work->started = true;
			start(work);
		}
		return;
	}
	switch (work->op) {
	case 'e':
	case 'b':
		step_echo(work);
		break;
	case 'd':
	case 'D':
		step_drain(work);
		break;
	case 'g':
		step_get(work);
		break;
	case 'z':
		step_get_in_place(work);
		break;
	case 'f':
		give_back_fds(work);
		break;
	default:
		break;
	}
}

void work_begin(struct service *service, struct aph_call *call)
{
	struct work *work = calloc(1, sizeof(*work));

	CHECK(work);
	CHECK(aph_call_service(call) == service->handle);
	CHECK(aph_call_data(call) == NULL);
	work->service = service;
	work->call = call;
	work->next = service->works;
	if (work->next)
		work->next->prev = work;
	service->works = work;
	service->seen->works++;
	aph_call_set_data(call, work);
	work_step(work);
}

void work_end(struct work *work)
{
	struct aph_result result;

	CHECK(work);
	CHECK(aph_call_result(work->call, &result) == 1);
	aph_call_free(work->call);
	forget(work);
}

void work_free_all(struct service *service)
{
	while (service->works) {
		aph_call_free(service->works->call);
		forget(service->works);
	}
}

/* SPDX-License-Identifier: MIT */
/*
 * Calls to the keeper that are answered at once.
 *
 * When the keeper dies, its successor serves the same name soon after: the connection is made anew
 * and the call repeated. What is repeated though it may have run:
 *
 *   store     its token tells the keeper that it has it already
 *   retrieve  has changed nothing; with TAKE nothing is forgotten before the reply was taken
 *   list      has changed nothing
 *   delete    a name that is gone the second time was deleted the first time
 */
#include "client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define GRACE_MS    1000
#define BREATHE_MAX 4 /* a busy keeper is left alone for 2 to this power milliseconds, at most */

/* -- the connection ---------------------------------------------------------------------------- */

static int connect_to(struct aph_hold *hold, uint32_t flags, uint64_t deadline_ns)
{
	struct aph_channel_options options = {
		.size = sizeof(options),
		.flags = flags,
		.deadline_ns = deadline_ns,
	};
	int r;

	do {
		r = aph_channel_open(&hold->channel, hold->ep, hold->address, &options);
	} while (r == -EINTR);
	if (r < 0)
		return hold_complain_aph(r);
	hold->n_opened++;
	return 0;
}

/* Where there is no keeper there may just have died one: its twin needs a moment. */
static int connect_first(struct aph_hold *hold, uint64_t deadline_ns)
{
	uint64_t grace = aph_deadline_ms(GRACE_MS);
	int r = connect_to(hold, 0, deadline_ns);

	if (r != -ENOENT)
		return r;
	r = connect_to(hold, APH_CHANNEL_WAIT, deadline_ns < grace ? deadline_ns : grace);
	return r == -ETIMEDOUT ? hold_complain(-ENOENT, "there is no keeper at %s", hold->address)
			       : r;
}

int aph_hold_open(struct aph_hold **out, const char *address, uint64_t deadline_ns)
{
	struct aph_hold *hold;
	int r;

	if (!address)
		address = APH_HOLD_ADDRESS;
	if (strlen(address) > APH_ADDRESS_MAX)
		return hold_complain(-EINVAL, "the address is too long");
	hold = calloc(1, sizeof(*hold));
	if (!hold)
		return hold_complain(-ENOMEM, "out of memory");
	memcpy(hold->address, address, strlen(address));
	if (getrandom(&hold->random, sizeof(hold->random), GRND_NONBLOCK) !=
	    (ssize_t)sizeof(hold->random))
		hold->random = aph_time_ns() ^ ((uint64_t)getpid() << 40);
	r = aph_endpoint_new(&hold->ep, NULL);
	if (r < 0)
		(void)hold_complain_aph(r);
	else
		r = connect_first(hold, deadline_ns);
	if (r < 0) {
		aph_hold_close(hold);
		return r;
	}
	*out = hold;
	return 0;
}

struct aph_hold *aph_hold_close(struct aph_hold *hold)
{
	if (!hold)
		return NULL;
	hold_transfers_free(hold);
	aph_endpoint_free(hold->ep);
	free(hold);
	return NULL;
}

int aph_hold_fd(struct aph_hold *hold)
{
	int fd = aph_endpoint_fd(hold->ep);

	return fd < 0 ? hold_complain_aph(fd) : fd;
}

int hold_recover(struct aph_hold *hold, unsigned *n_tries, uint64_t deadline_ns)
{
	if (hold->channel && !aph_channel_is_open(hold->channel))
		hold->channel = aph_channel_close(hold->channel);
	if (!hold->channel)
		return connect_to(hold, APH_CHANNEL_WAIT, deadline_ns);
	if (deadline_ns != APH_FOREVER && aph_time_ns() >= deadline_ns)
		return hold_complain(-ETIMEDOUT, "the keeper was busy until the deadline");
	/* Meanwhile the channel may turn out to have closed. */
	(void)aph_endpoint_serve(
		hold->ep, aph_deadline_ms(1u << (*n_tries < BREATHE_MAX ? *n_tries : BREATHE_MAX)));
	++*n_tries;
	return 0;
}

/* -- exchanges --------------------------------------------------------------------------------- */

int hold_exchange_init(struct hold_exchange *exchange, enum hold_verb verb, const char *name,
		       const struct aph_hold_options *options, uint32_t allowed)
{
	if (!options)
		options = &hold_no_options;
	*exchange = (struct hold_exchange){
		.request = {
			.version = HOLD_VERSION,
			.verb = (uint8_t)verb,
			.flags = (uint16_t)options->flags,
			.owner = options->owner,
		},
		.name = name,
	};
	if (options->size != sizeof(*options) || (options->flags & ~allowed))
		return hold_complain(-EINVAL, "options that do not belong here");
	if (name && !hold_is_name(name, strnlen(name, APH_HOLD_NAME_MAX + 1)))
		return hold_complain(
			-EINVAL,
			"no name: it has 1 to %d letters, digits, _ . - + and @, and begins with one of the first three",
			APH_HOLD_NAME_MAX);
	return 0;
}

/* What a call has met, the channel may not have noticed yet. */
static int disconnect(struct aph_hold *hold)
{
	hold->channel = aph_channel_close(hold->channel);
	return -EAGAIN;
}

int hold_begin(struct aph_hold *hold, struct hold_exchange *exchange, uint64_t deadline_ns)
{
	uint8_t data[HOLD_REQUEST_MAX];
	size_t len = sizeof(exchange->request);
	struct aph_call *call;
	ssize_t n;
	int r;

	memcpy(data, &exchange->request, len);
	if (exchange->name) {
		memcpy(data + len, exchange->name, strlen(exchange->name));
		len += strlen(exchange->name);
	}
	if (!hold->channel)
		return -EAGAIN;
	r = aph_call_new(&call, hold->channel, deadline_ns, NULL);
	if (r == -ENOTCONN)
		return disconnect(hold);
	if (r < 0)
		return hold_complain_aph(r);
	for (;;) {
		if (exchange->n_fds)
			n = aph_call_send_fds(call, data, len, exchange->fds, exchange->n_fds, 0);
		else
			n = aph_call_send(call, data, len, 0);
		if (n != -EAGAIN)
			break;
		/* No room now: descriptors of earlier calls are under way. */
		if (aph_call_wait(call, deadline_ns) == -ETIMEDOUT)
			break;
	}
	if (n == (ssize_t)len) {
		exchange->call = call;
		return 0;
	}
	r = n < 0 ? hold_complain_aph((int)n) : -EAGAIN;
	aph_call_free(call);
	if (r == -ENOTCONN)
		return disconnect(hold);
	return r;
}

static const char *explain(int code)
{
	switch (code) {
	case EACCES:
		return "its rules do not allow that";
	case EBUSY:
		return "the name is being taken, or is offered to somebody";
	case EDQUOT:
		return "that is more than its limit for a user";
	case EEXIST:
		return "there is something under the name: delete or replace it";
	case ENFILE:
		return "it is full";
	case ENOENT:
		return "there is nothing under the name";
	case EPERM:
		return "sockets of antiphon's own cannot be kept";
	default:
		return strerror(code);
	}
}

int hold_judge(const struct aph_result *result, bool retry_lost)
{
	switch (result->outcome) {
	case APH_ANSWERED:
		return 0;
	case APH_ABORTED:
		if (result->code == EAGAIN)
			return -EAGAIN;
		if (result->code <= 0 || result->code == EBADMSG)
			return hold_complain(-EPROTO, "the other side is no keeper");
		return hold_complain(-result->code, "the keeper says: %s", explain(result->code));
	default:
		break;
	}
	if (result->reason == APH_REASON_DEADLINE)
		return hold_complain(-ETIMEDOUT, "no answer before the deadline");
	if (result->reason == APH_REASON_RESOURCES)
		return hold_complain(-EMFILE,
				     "out of descriptors or memory, here or at the keeper");
	if (result->reason == APH_REASON_NOT_PERMITTED)
		return hold_complain(-EACCES, "the keeper does not let us in");
	if (result->outcome == APH_REFUSED || retry_lost)
		return -EAGAIN;
	return hold_complain(-ECONNRESET, "the keeper died in the middle");
}

static int exchange_once(struct aph_hold *hold, struct hold_exchange *exchange, bool retry_lost,
			 uint64_t deadline_ns, bool *lost)
{
	struct aph_result result;
	int r;

	r = hold_begin(hold, exchange, deadline_ns);
	if (r < 0)
		return r;
	/* The deadline is the call's own. */
	while (!aph_call_result(exchange->call, &result)) {
		/* A long list goes on only while it is read. */
		if (exchange->request.verb == HOLD_LIST && aph_call_available(exchange->call))
			return 0;
		(void)aph_call_wait(exchange->call, APH_FOREVER);
	}
	r = hold_judge(&result, retry_lost);
	*lost |= result.outcome == APH_LOST;
	if (r < 0)
		exchange->call = aph_call_free(exchange->call);
	return r;
}

int hold_exchange(struct aph_hold *hold, struct hold_exchange *exchange, bool retry_lost,
		  uint64_t deadline_ns)
{
	unsigned n_tries = 0;
	bool lost = false;
	int r;

	while ((r = exchange_once(hold, exchange, retry_lost, deadline_ns, &lost)) == -EAGAIN) {
		r = hold_recover(hold, &n_tries, deadline_ns);
		if (r < 0)
			return r;
	}
	if (r == -ENOENT && lost && exchange->request.verb == HOLD_DELETE)
		return 0;
	return r;
}

static int exchange_plain(struct aph_hold *hold, struct hold_exchange *exchange, bool retry_lost,
			  uint64_t deadline_ns)
{
	int r = hold_exchange(hold, exchange, retry_lost, deadline_ns);

	aph_call_free(exchange->call);
	return r;
}

/* -- storing and deleting ---------------------------------------------------------------------- */

/* Not 0, and nobody else's by any chance that matters. */
uint64_t hold_new_token(struct aph_hold *hold)
{
	uint64_t z = (hold->random += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	z ^= z >> 31;
	return z ? z : 1;
}

int aph_hold_store(struct aph_hold *hold, const char *name, const int *fds, size_t n_fds,
		   const struct aph_hold_options *options, uint64_t deadline_ns)
{
	struct hold_exchange exchange;
	int r = hold_exchange_init(&exchange, HOLD_STORE, name, options,
				   APH_HOLD_REPLACE | APH_HOLD_OWNER);

	if (r < 0)
		return r;
	if (n_fds < 1 || n_fds > APH_HOLD_FDS_MAX)
		return hold_complain(-EINVAL, "1 to %d descriptors can be kept under a name",
				     APH_HOLD_FDS_MAX);
	exchange.request.arg = options ? options->expiry_ms : 0;
	exchange.request.token = hold_new_token(hold);
	exchange.fds = fds;
	exchange.n_fds = n_fds;
	return exchange_plain(hold, &exchange, true, deadline_ns);
}

int aph_hold_delete(struct aph_hold *hold, const char *name, const struct aph_hold_options *options,
		    uint64_t deadline_ns)
{
	struct hold_exchange exchange;
	int r = hold_exchange_init(&exchange, HOLD_DELETE, name, options, APH_HOLD_OWNER);

	return r < 0 ? r : exchange_plain(hold, &exchange, true, deadline_ns);
}

int aph_hold_stop(struct aph_hold *hold, uint64_t deadline_ns)
{
	struct hold_exchange exchange;
	int r = hold_exchange_init(&exchange, HOLD_STOP, NULL, NULL, 0);

	if (r == 0)
		r = exchange_plain(hold, &exchange, false, deadline_ns);
	/* It has the name for a moment yet, and nobody is to find it there any more. */
	while (r == 0 && aph_channel_is_open(hold->channel) && aph_time_ns() < deadline_ns)
		(void)aph_endpoint_serve(hold->ep, aph_deadline_ms(1));
	return r;
}

/* -- retrieving -------------------------------------------------------------------------------- */

int hold_take_given(struct aph_call *call, struct hold_given *given, int *fds, size_t *n_fds)
{
	ssize_t n = aph_call_take_fds(call, fds, *n_fds);
	size_t n_taken = n > 0 ? (size_t)n : 0;

	/* The descriptors first: with the last byte we say that we have it all. */
	n = aph_call_read(call, given, sizeof(*given));
	if (n == (ssize_t)sizeof(*given) && given->n_fds == n_taken) {
		*n_fds = n_taken;
		return 0;
	}
	while (n_taken)
		(void)close(fds[--n_taken]);
	if (n != (ssize_t)sizeof(*given))
		return hold_complain(-EPROTO, "the other side is no keeper");
	return hold_complain(-EMFILE, "not all descriptors arrived");
}

int aph_hold_retrieve(struct aph_hold *hold, const char *name, int *fds, size_t *n_fds,
		      const struct aph_hold_options *options, uint64_t deadline_ns)
{
	struct hold_exchange exchange;
	struct hold_given given;
	int r = hold_exchange_init(&exchange, HOLD_RETRIEVE, name, options,
				   APH_HOLD_TAKE | APH_HOLD_OWNER);

	if (r < 0)
		return r;
	exchange.request.arg = *n_fds;
	r = hold_exchange(hold, &exchange, true, deadline_ns);
	if (r == 0)
		r = hold_take_given(exchange.call, &given, fds, n_fds);
	aph_call_free(exchange.call);
	return r;
}

/* -- listing ----------------------------------------------------------------------------------- */

/* What became of a call whose reply has broken off. */
static int broken_off(const struct aph_call *call)
{
	struct aph_result result;
	int r = aph_call_result(call, &result) ? hold_judge(&result, true) : 0;

	return r < 0 ? r : hold_complain(-EPROTO, "the other side is no keeper");
}

/* All there is, in one block. 0; -EAGAIN: it broke off, once more; or an error. */
static int read_all(struct aph_call *call, char **data, size_t *len)
{
	size_t max = 0;

	*data = NULL;
	*len = 0;
	for (;;) {
		ssize_t n;

		if (*len == max) {
			char *longer;

			max = max ? 2 * max : 64 * sizeof(struct aph_hold_info);
			longer = realloc(*data, max);
			if (!longer)
				return hold_complain(-ENOMEM, "out of memory");
			*data = longer;
		}
		n = aph_call_read(call, *data + *len, max - *len);
		if (n == 0)
			return 0;
		if (n > 0)
			*len += (size_t)n;
		else if (n == -EAGAIN)
			(void)aph_call_wait(call, APH_FOREVER);
		else
			return broken_off(call);
	}
}

static int read_list(struct aph_call *call, struct aph_hold_info **list, size_t *n)
{
	char *data;
	size_t len;
	int r = read_all(call, &data, &len);

	if (r == 0 && len % sizeof(**list))
		r = hold_complain(-EPROTO, "the other side is no keeper");
	if (r < 0) {
		free(data);
		return r;
	}
	*list = (struct aph_hold_info *)data;
	*n = len / sizeof(**list);
	for (size_t i = 0; i < *n; i++)
		(*list)[i].name[APH_HOLD_NAME_MAX] = '\0';
	return 0;
}

int aph_hold_list(struct aph_hold *hold, const char *prefix, struct aph_hold_info **list, size_t *n,
		  const struct aph_hold_options *options, uint64_t deadline_ns)
{
	struct hold_exchange exchange;
	int r = hold_exchange_init(&exchange, HOLD_LIST, prefix && prefix[0] ? prefix : NULL,
				   options, APH_HOLD_OWNER | APH_HOLD_ALL);

	if (r < 0)
		return r;
	do {
		r = hold_exchange(hold, &exchange, true, deadline_ns);
		if (r == 0)
			r = read_list(exchange.call, list, n);
		exchange.call = aph_call_free(exchange.call);
	} while (r == -EAGAIN);
	return r;
}

/* SPDX-License-Identifier: MIT */
/*
 * Offers and acceptances: calls that stay open.
 *
 * An offer is a call whose reply means "let go". When its keeper dies or is replaced it is made
 * anew with the successor, which knows by its token if that was transferred; so does a name that is
 * gone then tell.
 */
#include "client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATIENCE_MS 1000 /* with a keeper that has died, whatever the deadline */

struct aph_hold_offer {
	struct aph_hold_offer *next;
	struct aph_hold *hold;
	struct hold_exchange exchange; /* its call is the offer, while it stands */
	bool may_have_run;	       /* an earlier keeper had it and died */
	int result;		       /* 1: none yet */
	char name[APH_HOLD_NAME_MAX + 1];
};

struct aph_hold_acceptance {
	struct aph_hold_acceptance *next;
	struct aph_hold *hold;
	struct aph_call *call;
	uint64_t serial;
	char name[APH_HOLD_NAME_MAX + 1];
};

/* -- offers ------------------------------------------------------------------------------------ */

/* Begins the call where there is none. 0, -EAGAIN, or what speaks against it. */
static int put_offer(struct aph_hold_offer *offer)
{
	return offer->exchange.call ? 0 : hold_begin(offer->hold, &offer->exchange, APH_FOREVER);
}

int aph_hold_offer(struct aph_hold_offer **out, struct aph_hold *hold, const char *name, uid_t to,
		   const struct aph_hold_options *options)
{
	struct aph_hold_offer *offer;
	struct hold_exchange exchange;
	int r = hold_exchange_init(&exchange, HOLD_OFFER, name, options, APH_HOLD_OWNER);

	if (r < 0)
		return r;
	offer = calloc(1, sizeof(*offer));
	if (!offer)
		return hold_complain(-ENOMEM, "out of memory");
	offer->hold = hold;
	offer->exchange = exchange;
	offer->exchange.request.token = hold_new_token(hold);
	offer->exchange.request.arg = to;
	(void)snprintf(offer->name, sizeof(offer->name), "%s", name);
	offer->exchange.name = offer->name;
	offer->result = 1;
	r = put_offer(offer);
	if (r < 0 && r != -EAGAIN) {
		free(offer);
		return r;
	}
	offer->next = hold->offers;
	hold->offers = offer;
	*out = offer;
	return 0;
}

/* What has come of the call; -EAGAIN: it has to be made anew. 1: nothing yet. */
static int look_at_offer(struct aph_hold_offer *offer)
{
	struct aph_result result;
	int r;

	if (!offer->exchange.call)
		return -EAGAIN;
	if (!aph_call_result(offer->exchange.call, &result))
		return 1;
	offer->exchange.call = aph_call_free(offer->exchange.call);
	if (result.outcome == APH_LOST)
		offer->may_have_run = true;
	r = hold_judge(&result, true);
	if (r == -ENOENT && offer->may_have_run)
		r = 0;
	return r;
}

int aph_hold_offer_wait(struct aph_hold_offer *offer, uint64_t deadline_ns)
{
	struct aph_hold *hold = offer->hold;
	uint64_t patience = aph_deadline_ms(PATIENCE_MS);
	struct aph_event event;
	unsigned n_tries = 0;

	if (deadline_ns > patience)
		patience = deadline_ns;
	while (offer->result == 1) {
		int r;

		/* Also when nobody waits in here, the endpoint has to be looked after. */
		while (aph_endpoint_next(hold->ep, &event, APH_NOW) == 0)
			continue;
		r = look_at_offer(offer);
		if (r == -EAGAIN) {
			r = hold_recover(hold, &n_tries, patience);
			if (r == 0)
				r = put_offer(offer);
			if (r == -EAGAIN)
				continue;
			if (r == -ETIMEDOUT)
				return r;
			if (r == 0)
				r = 1;
		}
		if (r <= 0) {
			offer->result = r;
			break;
		}
		if (deadline_ns == APH_NOW || aph_time_ns() >= deadline_ns)
			return hold_complain(-ETIMEDOUT, "nobody has accepted it yet");
		(void)aph_call_wait(offer->exchange.call, deadline_ns);
	}
	return offer->result;
}

struct aph_hold_offer *aph_hold_offer_free(struct aph_hold_offer *offer)
{
	struct aph_hold_offer **link;

	if (!offer)
		return NULL;
	link = &offer->hold->offers;
	while (*link != offer)
		link = &(*link)->next;
	*link = offer->next;
	aph_call_free(offer->exchange.call);
	free(offer);
	return NULL;
}

/* -- acceptances ------------------------------------------------------------------------------- */

/* Until the descriptors are here. 0; -EAGAIN: once more; or an error. */
static int await_given(struct aph_call *call, uint64_t deadline_ns)
{
	struct aph_result result;

	while (aph_call_available(call) < sizeof(struct hold_given)) {
		uint8_t byte;

		if (aph_call_result(call, &result)) {
			int r = hold_judge(&result, true);

			return r < 0 ? r : hold_complain(-EPROTO, "the other side is no keeper");
		}
		/* To look is to ask for word when there is more. */
		(void)aph_call_peek(call, &byte, 1);
		if (aph_call_wait(call, deadline_ns) == -ETIMEDOUT)
			return hold_complain(-ETIMEDOUT, "nobody has offered it yet");
	}
	return 0;
}

static int accept_once(struct aph_hold *hold, struct hold_exchange *exchange, uint64_t deadline_ns)
{
	/* The call goes on after that, until it is confirmed. */
	int r = hold_begin(hold, exchange, APH_FOREVER);

	if (r < 0)
		return r;
	r = await_given(exchange->call, deadline_ns);
	if (r < 0)
		exchange->call = aph_call_free(exchange->call);
	return r;
}

static struct aph_hold_acceptance *new_acceptance(struct aph_hold *hold, const char *name)
{
	struct aph_hold_acceptance *acceptance = calloc(1, sizeof(*acceptance));

	if (!acceptance)
		return NULL;
	acceptance->hold = hold;
	(void)snprintf(acceptance->name, sizeof(acceptance->name), "%s", name);
	acceptance->next = hold->acceptances;
	hold->acceptances = acceptance;
	return acceptance;
}

int aph_hold_accept(struct aph_hold_acceptance **out, struct aph_hold *hold, const char *name,
		    int *fds, size_t *n_fds, const struct aph_hold_options *options,
		    uint64_t deadline_ns)
{
	struct aph_hold_acceptance *acceptance;
	struct hold_exchange exchange;
	struct hold_given given = { 0 };
	unsigned n_tries = 0;
	int r = hold_exchange_init(&exchange, HOLD_ACCEPT, name, options, APH_HOLD_OWNER);

	if (r < 0)
		return r;
	acceptance = new_acceptance(hold, name);
	if (!acceptance)
		return hold_complain(-ENOMEM, "out of memory");
	exchange.request.arg = *n_fds;
	while ((r = accept_once(hold, &exchange, deadline_ns)) == -EAGAIN) {
		r = hold_recover(hold, &n_tries, deadline_ns);
		if (r < 0)
			break;
	}
	acceptance->call = exchange.call;
	if (r == 0)
		r = hold_take_given(acceptance->call, &given, fds, n_fds);
	if (r < 0) {
		aph_hold_decline(acceptance);
		return r;
	}
	acceptance->serial = given.serial;
	*out = acceptance;
	return 0;
}

/* The keeper died on our confirmation: does its successor know us as the owner? */
static int ask_successor(struct aph_hold *hold, const char *name, uint64_t serial,
			 uint64_t deadline_ns)
{
	struct aph_hold_info *list;
	size_t n, i;
	int r = aph_hold_list(hold, name, &list, &n, NULL, deadline_ns);

	if (r < 0)
		return r;
	for (i = 0; i < n && strcmp(list[i].name, name) != 0; i++)
		continue;
	r = i < n && list[i].serial != serial ? 0 : -ECANCELED;
	free(list);
	return r < 0 ? hold_complain(r, "the keeper died before the transfer") : 0;
}

int aph_hold_confirm(struct aph_hold_acceptance *acceptance, uint64_t deadline_ns)
{
	struct aph_hold *hold = acceptance->hold;
	uint64_t serial = acceptance->serial;
	char name[APH_HOLD_NAME_MAX + 1];
	struct aph_result result;
	int r = aph_call_signal(acceptance->call, HOLD_CONFIRM);

	memcpy(name, acceptance->name, sizeof(name));
	/* Where it cannot be said any more, the result tells why. */
	while (!aph_call_result(acceptance->call, &result)) {
		uint8_t byte;

		if (r == -EAGAIN)
			r = aph_call_signal(acceptance->call, HOLD_CONFIRM);
		(void)aph_call_peek(acceptance->call, &byte, 1);
		if (aph_call_wait(acceptance->call, deadline_ns) == -ETIMEDOUT) {
			aph_hold_decline(acceptance);
			return hold_complain(-ETIMEDOUT, "no answer before the deadline");
		}
	}
	aph_hold_decline(acceptance);
	r = hold_judge(&result, false);
	if (r == -EAGAIN)
		return hold_complain(-ECANCELED, "the offer has ended");
	if (r == -ECONNRESET)
		return ask_successor(hold, name, serial, deadline_ns);
	return r;
}

struct aph_hold_acceptance *aph_hold_decline(struct aph_hold_acceptance *acceptance)
{
	struct aph_hold_acceptance **link;

	if (!acceptance)
		return NULL;
	link = &acceptance->hold->acceptances;
	while (*link != acceptance)
		link = &(*link)->next;
	*link = acceptance->next;
	aph_call_free(acceptance->call);
	free(acceptance);
	return NULL;
}

void hold_transfers_free(struct aph_hold *hold)
{
	struct aph_hold_acceptance *acceptance = hold->acceptances, *next_acceptance;
	struct aph_hold_offer *offer = hold->offers, *next;

	for (; offer; offer = next) {
		next = offer->next;
		aph_call_free(offer->exchange.call);
		free(offer);
	}
	for (; acceptance; acceptance = next_acceptance) {
		next_acceptance = acceptance->next;
		aph_call_free(acceptance->call);
		free(acceptance);
	}
}

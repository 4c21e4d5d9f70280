/* SPDX-License-Identifier: MIT */
/*
 * The client of the keeper, as its files see it: client.c makes calls that are answered at once,
 * transfer_client.c those that stay.
 */
#ifndef ANTIPHON_HOLD_CLIENT_H
#define ANTIPHON_HOLD_CLIENT_H

#include "error.h"
#include "wire.h"

#include <antiphon/antiphon.h>

struct aph_hold {
	struct aph_endpoint *ep;
	struct aph_channel *channel; /* NULL while there is no keeper */
	uint64_t n_opened;	     /* which connection this is */
	uint64_t random;	     /* state of the tokens */
	struct aph_hold_offer *offers;
	struct aph_hold_acceptance *acceptances;
	char address[APH_ADDRESS_MAX + 1];
};

/* One exchange. What does not apply is 0 or NULL. */
struct hold_exchange {
	struct hold_request request;
	const char *name;
	const int *fds; /* to be sent */
	size_t n_fds;
	struct aph_call *call; /* the call, when it has been answered: to be freed */
};

static const struct aph_hold_options hold_no_options = { .size = sizeof(hold_no_options) };

/* Fills in the exchange from the options. 0, or -EINVAL. */
int hold_exchange_init(struct hold_exchange *exchange, enum hold_verb verb, const char *name,
		       const struct aph_hold_options *options, uint32_t allowed);

/*
 * Begins the call on the connection there is. 0; -EAGAIN: there is none, or no more; or what went
 * wrong. In these cases there is no call.
 */
int hold_begin(struct aph_hold *hold, struct hold_exchange *exchange, uint64_t deadline_ns);

/*
 * How a call that ended has to be understood: 0 (answered), the error to return, or -EAGAIN: it had
 * no effect or none that matters, once more. `retry_lost` says whether it may be repeated when it
 * may have run.
 */
int hold_judge(const struct aph_result *result, bool retry_lost);

/* For a request that may be repeated. Not 0. */
uint64_t hold_new_token(struct aph_hold *hold);

/* Connects again where it must, or lets a busy keeper breathe. 0, or -ETIMEDOUT and others. */
int hold_recover(struct aph_hold *hold, unsigned *n_tries, uint64_t deadline_ns);

/* Makes the exchange as often as it takes. 0, and the answered call; or an error, and none. */
int hold_exchange(struct aph_hold *hold, struct hold_exchange *exchange, bool retry_lost,
		  uint64_t deadline_ns);

/*
 * Takes what a reply gives: to `fds`, as many as `*n_fds` says, which becomes how many there were.
 */
int hold_take_given(struct aph_call *call, struct hold_given *given, int *fds, size_t *n_fds);

/* transfer_client.c: frees what is left at the end. */
void hold_transfers_free(struct aph_hold *hold);

#endif

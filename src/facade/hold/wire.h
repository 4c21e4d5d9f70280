/* SPDX-License-Identifier: MIT */
/*
 * What a client and the keeper say to each other, inside of calls.
 *
 * A request is struct hold_request and the name behind it; descriptors come with it. What cannot be
 * done ends the call with an errno number as the abort code. What has not been done and may be
 * repeated is refused as busy. The replies:
 *
 *   STORE, DELETE, STOP, UPGRADE   empty
 *   RETRIEVE                       struct hold_given, with the descriptors
 *   LIST                           struct aph_hold_info, as many as there are
 *   OFFER                          empty, when the new owner has confirmed: let go
 *   ACCEPT                         struct hold_given with the descriptors, and more follows: the
 *                                  client signals HOLD_CONFIRM, and the end of the reply says that
 *                                  it counts
 */
#ifndef ANTIPHON_HOLD_WIRE_H
#define ANTIPHON_HOLD_WIRE_H

#include <antiphon/hold.h>

#include <stdbool.h>

#define HOLD_VERSION 1
#define HOLD_CONFIRM 1

enum hold_verb {
	HOLD_STORE = 1,
	HOLD_RETRIEVE = 2,
	HOLD_DELETE = 3,
	HOLD_LIST = 4,
	HOLD_OFFER = 5,
	HOLD_ACCEPT = 6,
	HOLD_STOP = 7,
	HOLD_UPGRADE = 8,
};

/* 24 bytes: with a name of up to 16 it rides in the record, without a piece of the arena. */
struct hold_request {
	uint8_t version;
	uint8_t verb;
	uint16_t flags; /* APH_HOLD_* */
	uint32_t owner; /* with APH_HOLD_OWNER */
	uint64_t token; /* STORE, OFFER: the same again is a repetition */
	/*
	 * STORE: milliseconds until it expires, or 0; RETRIEVE, ACCEPT: room for descriptors;
	 * OFFER: the new owner.
	 */
	uint64_t arg;
};

#define HOLD_REQUEST_MAX (sizeof(struct hold_request) + APH_HOLD_NAME_MAX)

struct hold_given {
	uint64_t serial; /* of this keeping of the name */
	uint64_t n_fds;
};

/* Whether these bytes are a name. */
bool hold_is_name(const char *name, size_t len);

/*
 * Takes a request apart. `name` gets APH_HOLD_NAME_MAX + 1 bytes, "" where there is none. 0, or
 * -EBADMSG: no client of ours would send that; -EINVAL: a name that cannot be.
 */
int hold_request_decode(const void *data, size_t len, struct hold_request *request, char *name);

#endif

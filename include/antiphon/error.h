/* SPDX-License-Identifier: MIT */
/*
 * How things end: outcomes of calls, reasons for them, and the text of the last failure.
 *
 * Two kinds of trouble are kept apart. A function that could not do what it was asked returns
 * -errno and has changed nothing. A call that was made ends with an outcome, which is data, not an
 * error: it tells the caller the one thing it must know to go on, whether the request may have run.
 */
#ifndef ANTIPHON_ERROR_H
#define ANTIPHON_ERROR_H

#include <antiphon/api.h>

APH_BEGIN_DECLS

/*
 * How a call ended. The first four are told to the client, the last two to the service; one with
 * APH_SERVICE_RECEIPTS is told of the others too, where it has brought them about.
 */
enum aph_outcome {
	APH_ANSWERED = 0, /* the whole reply is there: the request ran once */
	APH_REFUSED = 1,  /* it did not run and never will: safe to repeat */
	APH_ABORTED = 2,  /* the service ended it with a code of its own, see aph_result.code */
	APH_LOST = 3,	  /* it may have run: nobody can tell any more */
	APH_DISPOSED = 4, /* the client has taken the whole reply: its buffers may go */
	APH_GONE = 5,	  /* the client will not take the reply: stop working for it */
};

/* Why a call ended like that, or why a channel closed. */
enum aph_reason {
	APH_REASON_NONE = 0,
	APH_REASON_NO_SERVICE = 1,    /* nobody serves the name */
	APH_REASON_NOT_PERMITTED = 2, /* the service does not let this client in */
	APH_REASON_BUSY = 3,	      /* the service has as much as it takes on */
	APH_REASON_POLICY = 4,	      /* the service's own rules say no */
	APH_REASON_CLOSED = 5,	      /* the other side closed the channel or died */
	APH_REASON_DEADLINE = 6,      /* the call's deadline passed */
	APH_REASON_CANCELLED = 7,     /* the client cancelled */
	APH_REASON_PROTOCOL = 8,      /* the other side broke the protocol; its channel was ended */
	APH_REASON_RESOURCES = 9,     /* one of the two ran out of descriptors or memory */
};

/* One terminal result of a call. `code` is the service's own number and is 0 unless APH_ABORTED. */
struct aph_result {
	enum aph_outcome outcome;
	enum aph_reason reason;
	int32_t code;
};

/* The name of an outcome ("ANSWERED") or of a reason ("deadline"); never NULL. Static strings. */
APH_API const char *aph_outcome_name(enum aph_outcome outcome);
APH_API const char *aph_reason_name(enum aph_reason reason);

/*
 * A sentence about the last failure of a function of this library in this thread: what was tried,
 * what went wrong, what to do about it. Meaningful right after a negative return value, but for
 * -EAGAIN and -ENODATA of the functions for bodies, which are no failures, and for
 * aph_endpoint_wake(); never NULL. The text belongs to the thread and changes with its next
 * failure.
 */
APH_API const char *aph_error(void);

/* The version of the library, as "MAJOR.MINOR.PATCH". */
APH_API const char *aph_version(void);

APH_END_DECLS

#endif

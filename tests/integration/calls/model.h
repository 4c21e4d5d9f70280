/* SPDX-License-Identifier: MIT */
/*
 * What is known of calls at both of their ends, and what may happen to them: the contract, written
 * as checks. Everything runs in one thread of one process, so that the two ends can be compared at
 * any moment.
 */
#ifndef TESTS_INTEGRATION_CALLS_MODEL_H
#define TESTS_INTEGRATION_CALLS_MODEL_H

#include "suite.h"

#define PLACES	   3
#define POSTS_MAX  6
#define LINKS_MAX  10
#define JOBS_MAX   1024
#define GUESTS_MAX JOBS_MAX
#define ID_LEN	   4

/* An endpoint. */
struct place {
	struct aph_endpoint *ep;
};

/* A service. */
struct post {
	struct aph_service *service; /* NULL: none */
	struct place *place;
	bool receipts, events;
};

/* A client's channel. */
struct link {
	struct aph_channel *channel; /* NULL: none */
	struct place *place;
	bool open, closed; /* so it was told */
};

/* A channel that a service was told of by CONNECT. */
struct visitor {
	struct aph_channel *channel;
	struct place *place;
	bool left; /* it closes it with DISCONNECT, or threw it out */
};

/* One end of a call: two bodies, with their descriptors. */
struct end {
	struct aph_call *call; /* NULL: this end has let go of it */
	struct place *place;
	uint64_t sent, got; /* bytes */
	uint32_t fds_sent, fds_got;
	bool sent_all, got_all;
	size_t reserved;      /* bytes written in place */
	bool is_reserved;     /* they were not handed over yet */
	bool more_after_them; /* with APH_MORE */
	bool blocked;	      /* a send was short: WRITABLE follows */
	bool starving;	      /* a read found nothing: READABLE follows */
	bool mute;	      /* its channel or service was closed here: no events any more */
	bool ended;	      /* END was delivered */
	struct aph_result result;
};

/* A call as its client knows it. */
struct job {
	struct end end;
	struct link *link;
	struct guest *guest; /* the other end, once it has shown itself */
	bool given_up;	     /* by its client, or it may be by its deadline */
	bool withdrawn;
	int32_t signalled; /* the last code */
};

/* How a service has ended a call. */
enum deed {
	NOTHING,
	REPLIED,
	ABORTED,
	REFUSED,
	DROPPED, /* let go of without a word */
};

/* A call as its service knows it. */
struct guest {
	struct end end;
	struct post *post;
	struct job *job; /* NULL until its number was read */
	uint8_t id[ID_LEN];
	enum deed deed;
	int32_t code;	   /* or reason */
	int32_t signalled; /* the last code that came */
	bool receipts;
};

struct world {
	struct rng rng;
	bool remote;
	char addresses[PLACES][64];
	struct place places[PLACES];
	struct post posts[POSTS_MAX];
	struct link links[LINKS_MAX];
	struct visitor visitors[POSTS_MAX * LINKS_MAX * 4];
	struct job jobs[JOBS_MAX];
	struct guest guests[GUESTS_MAX];
	unsigned n_visitors, n_jobs, n_guests;
	unsigned n_outcomes[APH_GONE + 1], n_receipts[APH_GONE + 1];
};

extern struct world world;

/* Of either end, by its call; NULL. */
struct job *model_job(const struct aph_call *call);
struct guest *model_guest(const struct aph_call *call);

/* The number of the job in front of a request; replies have none. */
uint32_t model_id(const struct job *job);

/* Bytes `at` and on of a body: what the sender says, and whether that has arrived. */
void model_fill(const struct job *job, bool request, void *buf, size_t len, uint64_t at);
void model_check(const struct job *job, bool request, const void *buf, size_t len, uint64_t at);

/* A descriptor that says whose it is, and whether it is the `n`th of that body; closes it. */
int model_fd(const struct job *job, bool request, uint32_t n);
void model_check_fd(const struct job *job, bool request, uint32_t n, int fd);

/* All of a body was read. */
void model_got_all(struct job *job, bool request);

/* Something was delivered at the place. */
void model_event(struct place *place, const struct aph_event *ev);

/* A service reads whose call it is; false: too little of it has come. */
bool model_meets(struct guest *guest);

/* The user has let go of an end. */
void model_frees_job(struct job *job);
void model_frees_guest(struct guest *guest);

/* What is about to be closed. */
void model_closes_post(struct post *post);
void model_closes_link(struct link *link);
void model_closes_visitor(struct visitor *visitor);
void model_frees_place(const struct place *place);

/* Every call that has come to an end at its client has done what that end says. */
void model_check_all(void);

#endif

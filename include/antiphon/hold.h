/* SPDX-License-Identifier: MIT */
/*
 * The keeper: a service that holds descriptors for others, by name, while they are away.
 *
 * What is kept under a name is one to APH_HOLD_FDS_MAX descriptors. A name belongs to a user, the
 * owner: two users may keep different things under one name. A store that was confirmed survives
 * the death of the keeper; see antiphon-hold(1) for how.
 *
 * Threads: a struct aph_hold, with its offers and acceptances, may be used by one thread at a time.
 *
 * When the keeper dies under a call, these functions connect to its successor and repeat what is
 * safe to repeat, until the deadline.
 *
 * All of them return 0 or a negative error. Those that any may return: -ENOENT (no such name, or
 * nobody keeps anything here), -EACCES (not permitted), -EINVAL, -ETIMEDOUT, -EMFILE, -ENOMEM,
 * -EPROTO (the other side is no keeper), -ECONNRESET (the keeper died in the middle of what cannot
 * be repeated), -EINTR never.
 */
#ifndef ANTIPHON_HOLD_H
#define ANTIPHON_HOLD_H

#include <antiphon/name.h>

APH_BEGIN_DECLS

#define APH_HOLD_ADDRESS "caps:hold"
/* bytes: letters, digits, `_`, `.`, `-`, `+` and `@`; the first a letter, digit or `_`. */
#define APH_HOLD_NAME_MAX 63
#define APH_HOLD_FDS_MAX  64 /* descriptors under one name */

#define APH_HOLD_REPLACE 0x1u /* store: in place of what is there */
#define APH_HOLD_TAKE	 0x2u /* retrieve: the keeper forgets it once it has arrived */
#define APH_HOLD_OWNER	 0x4u /* `owner` says whose name it is; else the caller's */
#define APH_HOLD_ALL	 0x8u /* list: everybody's, as far as the caller may */

struct aph_hold;
struct aph_hold_offer;
struct aph_hold_acceptance;

/* May be NULL wherever it is taken: all zero. */
struct aph_hold_options {
	size_t size;	    /* sizeof(struct aph_hold_options) */
	uint32_t flags;	    /* APH_HOLD_* */
	uid_t owner;	    /* with APH_HOLD_OWNER */
	uint64_t expiry_ms; /* store: the keeper closes it after that time; 0: never */
};

struct aph_hold_info {
	char name[APH_HOLD_NAME_MAX + 1];
	uid_t owner;
	uint32_t n_fds;
	uint64_t serial; /* of this keeping: another after each store and each transfer */
	uint64_t age_ms;
	uint64_t expiry_ms; /* how long it will still be kept; 0: for ever */
	int offered;	    /* somebody waits for it to be accepted by */
	uid_t offered_to;
};

/* -- a client of the keeper -------------------------------------------------------------------- */

/* Connects; APH_HOLD_ADDRESS if `address` is NULL. */
APH_API int aph_hold_open(struct aph_hold **out, const char *address, uint64_t deadline_ns);

/* Withdraws and frees what offers and acceptances are left. Accepts NULL. Returns NULL. */
APH_API struct aph_hold *aph_hold_close(struct aph_hold *hold);

/*
 * Readable when an offer may have been accepted: call aph_hold_offer_wait() with APH_NOW then.
 * Borrowed: do not read or close it. -errno.
 */
APH_API int aph_hold_fd(struct aph_hold *hold);

/*
 * Keeps duplicates of the descriptors; the caller's stay its own. 0: it is safe now. -EEXIST
 * (without REPLACE), -EBUSY (it is being taken, or is offered), -EDQUOT (the owner's share is used
 * up), -ENFILE (the keeper is full), -EBADF, -EPERM (a socket of antiphon itself, which cannot be
 * kept).
 */
APH_API int aph_hold_store(struct aph_hold *hold, const char *name, const int *fds, size_t n_fds,
			   const struct aph_hold_options *options, uint64_t deadline_ns);

/*
 * Duplicates of what is kept, close-on-exec, the caller's. `*n_fds` goes in as the room and comes
 * out as the number. -EMSGSIZE (there are more), -EBUSY.
 */
APH_API int aph_hold_retrieve(struct aph_hold *hold, const char *name, int *fds, size_t *n_fds,
			      const struct aph_hold_options *options, uint64_t deadline_ns);

/* Closes what is kept. An offer of it ends with -ENOENT. -EBUSY. */
APH_API int aph_hold_delete(struct aph_hold *hold, const char *name,
			    const struct aph_hold_options *options, uint64_t deadline_ns);

/*
 * The names that begin with `prefix` (NULL: all), sorted by owner and name. `*list` is the
 * caller's, to be freed with free(3).
 */
APH_API int aph_hold_list(struct aph_hold *hold, const char *prefix, struct aph_hold_info **list,
			  size_t *n, const struct aph_hold_options *options, uint64_t deadline_ns);

/*
 * Ends the keeper, which closes all it keeps; its name is free then. For its own user and root:
 * -EACCES.
 */
APH_API int aph_hold_stop(struct aph_hold *hold, uint64_t deadline_ns);

/* -- transfer ---------------------------------------------------------------------------------- */

/*
 * Offers what is kept to the user `to`, which may be the owner: then it is for a successor. Nothing
 * changes before that one has confirmed. Does not wait. -EBUSY (it is offered already).
 */
APH_API int aph_hold_offer(struct aph_hold_offer **out, struct aph_hold *hold, const char *name,
			   uid_t to, const struct aph_hold_options *options);

/*
 * 0: the new owner has it and has confirmed; let go of it. -ETIMEDOUT: not yet, and the offer
 * stands. Else it has ended: -ENOENT (the name is gone), -EDQUOT (too many calls of this user wait
 * already), or what may be returned for any name. When the keeper has died it may take a second
 * longer than the deadline says, to find the successor.
 */
APH_API int aph_hold_offer_wait(struct aph_hold_offer *offer, uint64_t deadline_ns);

/* Withdraws the offer unless it was accepted. Accepts NULL. Returns NULL. */
APH_API struct aph_hold_offer *aph_hold_offer_free(struct aph_hold_offer *offer);

/*
 * Waits for an offer of this name to the caller by `owner` (without APH_HOLD_OWNER: by the caller's
 * own user), and receives the descriptors. They are the caller's now, but the name is not before
 * aph_hold_confirm(). -ENOENT (the keeper keeps nothing of that name, and is not waited for),
 * -EDQUOT, -EEXIST (the caller has something of that name), -EMSGSIZE.
 */
APH_API int aph_hold_accept(struct aph_hold_acceptance **out, struct aph_hold *hold,
			    const char *name, int *fds, size_t *n_fds,
			    const struct aph_hold_options *options, uint64_t deadline_ns);

/*
 * Says that the caller is ready: the name becomes its own, and then whoever offered it is told to
 * let go. Frees the acceptance in any case. -ECANCELED (the offer was withdrawn), -EEXIST, -EDQUOT
 * (name or room were used up meanwhile): nothing has changed.
 */
APH_API int aph_hold_confirm(struct aph_hold_acceptance *acceptance, uint64_t deadline_ns);

/* Gives the acceptance back; the offer stands. Accepts NULL. Returns NULL. */
APH_API struct aph_hold_acceptance *aph_hold_decline(struct aph_hold_acceptance *acceptance);

/* -- the keeper -------------------------------------------------------------------------------- */

enum aph_hold_survival {
	APH_HOLD_SURVIVE_AUTO = 0,    /* SYSTEMD if NOTIFY_SOCKET is set, else TWIN */
	APH_HOLD_SURVIVE_TWIN = 1,    /* a second process has it all too */
	APH_HOLD_SURVIVE_SYSTEMD = 2, /* the service manager's descriptor store has it too */
	APH_HOLD_SURVIVE_NOT = 3,
};

struct aph_hold_keeper_options {
	size_t size;	     /* sizeof(struct aph_hold_keeper_options) */
	const char *address; /* NULL: APH_HOLD_ADDRESS */
	const char *const *
		/* Who else may do what, as --allow of antiphon-hold(1); else its user and root. */
		rules;
	size_t n_rules;
	const char *const *limits; /* descriptors of a user, as --limit: "N" or "USER=N" */
	size_t n_limits;
	int replace; /* take over from the keeper of the same user that is there */
	enum aph_hold_survival survival;
	void (*log)(const char *text); /* one sentence without a newline; may be NULL */
};

/*
 * Is a keeper, until it is told to stop by aph_hold_stop(), SIGTERM or SIGINT, or has been
 * replaced: then 0. For a program of one thread that does nothing else: it makes a child without
 * the handlers of pthread_atfork(3), handles SIGTERM, SIGINT and SIGCHLD, takes over what
 * LISTEN_FDS announces, raises its limit of descriptors, and may return in another process than it
 * was called in; descriptors opened meanwhile, by `log` for instance, are closed at a take-over.
 * -EEXIST (there is a keeper), -EINVAL (an option; see aph_hold_error()), and as
 * aph_service_open().
 */
APH_API int aph_hold_keep(const struct aph_hold_keeper_options *options);

/* What was wrong with the last call of this library in this thread: a sentence, never NULL. */
APH_API const char *aph_hold_error(void);

APH_END_DECLS

#endif

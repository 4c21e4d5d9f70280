/* SPDX-License-Identifier: MIT */
/*
 * The keeper, as its files see it.
 *
 *   keeper.c    the loop, the two roles, what a request is checked for
 *   verbs.c     store, retrieve, delete, list
 *   transfer.c  offers and acceptances
 *   twin.c      a second process that has it all, and takes over
 *   image.c     what the twin knows of it
 *   manager.c   changes told to the service manager, and what it gave back at the start
 *   upgrade.c   a newcomer gets it all, and takes over
 *
 * Every change is told to whoever has to survive us (hold_save_*) before it is made and before
 * anybody is answered. When that does not work now, nothing is changed, and the client is refused
 * as busy: it repeats.
 *
 * A process has one of two roles. The keeper serves. Its twin is a child that shares the table of
 * descriptors, and memory that says which of them are kept under which names (image.c). It sleeps
 * until the keeper is dead; then it makes a twin of its own and takes the name.
 */
#ifndef ANTIPHON_HOLD_KEEPER_H
#define ANTIPHON_HOLD_KEEPER_H

#include "error.h"
#include "image.h"
#include "record.h"
#include "rules.h"
#include "table.h"

#include <antiphon/antiphon.h>

#define HOLD_FIRST_FD 3 /* of LISTEN_FDS */

enum hold_role {
	HOLD_ENDS = 0,
	HOLD_KEEPER = 1,
	HOLD_TWIN = 2,
};

struct hold_keeper {
	struct hold_table table;
	struct hold_rule *rules;
	size_t n_rules;
	struct hold_limit *limits;
	size_t n_limits;
	uint32_t fds_max;   /* all together */
	uint32_t names_max; /* of the service manager's store */
	const char *address;
	enum aph_hold_survival survival;
	void (*log)(const char *text);
	uid_t uid;

	struct aph_endpoint *ep;
	struct aph_service *service;
	struct hold_work *works; /* calls that are not just answered */
	bool is_open; /* it has served before: a name that is taken is no reason to give up */
	bool stopping;

	/* twin.c */
	struct hold_image *image; /* NULL: there was no twin yet */
	pid_t twin;		  /* 0: none */
	int self;		  /* the keeper, as a descriptor; -1 */
	int *own;		  /* what was open before anything was kept or served */
	size_t n_own;

	bool unsaved; /* transfer.c: something was confirmed and could not be saved yet */

	int manager; /* manager.c: the socket; -1 */

	int newcomer; /* upgrade.c: nothing changes while it is there; -1 */
};

/* A call that stays for a while, or whose end matters. */
struct hold_work {
	struct hold_work *next;
	struct aph_call *call; /* NULL once it has ended */
	/*
	 * The call has ended; it is freed by the caller. Frees the work unless it is still needed.
	 */
	void (*ended)(struct hold_keeper *keeper, struct hold_work *work, enum aph_outcome outcome);
	enum hold_verb verb;
	uid_t uid; /* of whoever called */
};

/* What came with a call. The descriptors are the handler's until it sets `n_fds` to 0. */
struct hold_job {
	struct aph_call *call;
	const struct aph_credentials *who;
	struct hold_request request;
	char name[APH_HOLD_NAME_MAX + 1];
	uid_t owner;
	int fds[APH_HOLD_FDS_MAX + 1];
	uint32_t n_fds;
};

/* keeper.c */

void hold_log(const struct hold_keeper *keeper, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* Our own user and root: whoever could end the process anyway. */
bool hold_is_master(const struct hold_keeper *keeper, const struct aph_credentials *who);
bool hold_may(const struct hold_keeper *keeper, const struct aph_credentials *who, unsigned can,
	      uid_t owner, const char *name);
/* How many more descriptors this user may have. */
uint32_t hold_room(const struct hold_keeper *keeper, uid_t uid);
/* Ends a call that cannot be done: `error` is negative; -EAGAIN refuses it as busy. */
void hold_deny(struct aph_call *call, int error);
uint64_t hold_new_serial(struct hold_keeper *keeper);
/* True when the user has as many calls that stay as it may have. */
bool hold_is_waiting_enough(const struct hold_keeper *keeper, uid_t uid);
/* Remembers what the call is about. */
void hold_work_add(struct hold_keeper *keeper, struct hold_work *work, struct hold_job *job);
/* Forgets and frees it. */
void hold_work_free(struct hold_keeper *keeper, struct hold_work *work);
/* Takes it out of the table, closes and frees it; who is to survive us has been told. */
void hold_drop(struct hold_keeper *keeper, struct hold_entry *entry);

/* verbs.c: 0 when the call is taken care of, or a negative error to end it with. */

int hold_store(struct hold_keeper *keeper, struct hold_job *job);
int hold_retrieve(struct hold_keeper *keeper, struct hold_job *job);
int hold_delete(struct hold_keeper *keeper, struct hold_job *job);
int hold_list(struct hold_keeper *keeper, struct hold_job *job);
/* True while somebody is taking something and has not said yet that it arrived. */
bool hold_is_taken_from(const struct hold_keeper *keeper);
/* Closes what has expired. */
void hold_expire(struct hold_keeper *keeper);

/* transfer.c */

int hold_offer(struct hold_keeper *keeper, struct hold_job *job);
int hold_accept(struct hold_keeper *keeper, struct hold_job *job);
void hold_signalled(struct hold_keeper *keeper, struct aph_call *call, int32_t code);
/* Goes on with what was confirmed and could not be saved. */
void hold_transfer_resume(struct hold_keeper *keeper);
/* True when somebody has the entry in hand: it cannot be changed. */
bool hold_is_given(const struct hold_entry *entry);
/* Ends an offer that nobody has accepted, because the name goes away. */
void hold_offer_end(struct hold_keeper *keeper, struct hold_entry *entry, int error);
bool hold_is_offered(const struct hold_entry *entry, uid_t *to);
/* Sends everybody who waits away; they come again. */
void hold_transfer_suspend(struct hold_keeper *keeper);

/* True when a child has died that nobody has looked after yet; in a twin, when its keeper has. */
bool hold_child_has_died(void);

/* twin.c */

/*
 * Before anything is kept: what is open now, and not inherited to be kept, a twin leaves open. 0,
 * -ENOMEM.
 */
int hold_twin_prepare(struct hold_keeper *keeper);
bool hold_twin_is_missing(const struct hold_keeper *keeper);
/*
 * Makes a twin; there must be no endpoint. HOLD_KEEPER in the keeper, HOLD_TWIN in the twin, or
 * what went wrong.
 */
int hold_twin_make(struct hold_keeper *keeper);
/* The keeper: true when the twin has died just now. */
bool hold_twin_reap(struct hold_keeper *keeper);
/* The keeper: ends the twin, and forgets the image. */
void hold_twin_end(struct hold_keeper *keeper);
/* The twin: sleeps until it has to take over (HOLD_KEEPER) or to end. */
enum hold_role hold_twin_sleep(struct hold_keeper *keeper, volatile const int *stop);

/* 0, or -EAGAIN: not now. `entry` is as it will be, and is in place of `old`, which may be NULL. */
int hold_save_put(struct hold_keeper *keeper, struct hold_entry *entry, struct hold_entry *old);
int hold_save_drop(struct hold_keeper *keeper, struct hold_entry *entry);
/* To `new_owner`, with `serial`, and with the offer's token. */
int hold_save_move(struct hold_keeper *keeper, const struct hold_entry *entry, uid_t new_owner,
		   uint64_t serial, uint64_t token);

/* manager.c */

/* Finds the socket of the service manager. 0 or -errno. */
int hold_manager_open(struct hold_keeper *keeper);
int hold_manager_put(struct hold_keeper *keeper, const struct hold_record *record, const int *fds);
int hold_manager_remove(struct hold_keeper *keeper, uint64_t serial);
/* READY=1 and the like. */
void hold_manager_say(const struct hold_keeper *keeper, const char *text);
/* How many descriptors LISTEN_FDS announces, from HOLD_FIRST_FD on. */
int hold_n_inherited(const struct hold_keeper *keeper);
/* Takes them, so that they are kept or closed. 0 or -ENOMEM. */
int hold_inherit(struct hold_keeper *keeper);

/* upgrade.c */

/* The newcomer's side: gets everything from the keeper that is there. 0 or an error. */
int hold_upgrade_fetch(struct hold_keeper *keeper, int *old);
/* The same one's last word, when it serves. */
void hold_upgrade_done(int *old);
int hold_upgrade(struct hold_keeper *keeper, struct hold_job *job);
/* The old keeper's side: looks whether the newcomer serves now, or has died. */
void hold_upgrade_watch(struct hold_keeper *keeper);

#endif

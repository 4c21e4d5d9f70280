/* SPDX-License-Identifier: MIT */
/*
 * A name goes from one owner to the next in steps, so that at no point nobody has it:
 *
 *   old owner        keeper                          new owner
 *     OFFER  ---->     the call stays open
 *                                           <----    ACCEPT
 *                      descriptors          ---->      looks at them, gets ready
 *                                           <----    HOLD_CONFIRM, a signal on the call
 *                      saved: this is the moment
 *                      the end of the reply ---->      it is the owner
 *            <----     the reply: let go
 *
 * Until the confirmation either may die, give up or be stopped: nothing has changed, and the offer
 * stands as long as its call does. After it, neither can: the keeper completes it also for those
 * who are gone.
 */
#include "keeper.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct acceptor;

struct hold_offer {
	struct hold_work work;
	struct hold_entry *entry; /* NULL when the offer is over */
	uid_t to;
	uint64_t token;
	struct acceptor *acceptor; /* who has the descriptors in hand */
};

struct acceptor {
	struct hold_work work;
	uid_t uid, from;
	uint64_t room;
	struct hold_offer *offer; /* whose descriptors were sent; NULL: it waits, or is over */
	bool is_over;
	bool confirmed;
	char name[APH_HOLD_NAME_MAX + 1];
};

bool hold_is_given(const struct hold_entry *entry)
{
	return entry->offer && entry->offer->acceptor;
}

bool hold_is_offered(const struct hold_entry *entry, uid_t *to)
{
	if (!entry->offer)
		return false;
	*to = entry->offer->to;
	return true;
}

/* -- ends -------------------------------------------------------------------------------------- */

/* Frees what has lost its call; else its END will. */
static void release(struct hold_keeper *keeper, struct hold_work *work)
{
	if (!work->call)
		hold_work_free(keeper, work);
}

/* The acceptance is over without effect. */
static void dismiss(struct hold_keeper *keeper, struct acceptor *acceptor, int error)
{
	acceptor->is_over = true;
	if (acceptor->offer)
		acceptor->offer->acceptor = NULL;
	acceptor->offer = NULL;
	if (acceptor->work.call)
		(void)aph_call_abort(acceptor->work.call, -error);
	release(keeper, &acceptor->work);
}

static void detach(struct hold_keeper *keeper, struct hold_offer *offer)
{
	struct hold_entry *entry = offer->entry;

	offer->entry = NULL;
	if (!entry)
		return;
	entry->offer = NULL;
	hold_table_resume(&keeper->table, entry);
}

void hold_offer_end(struct hold_keeper *keeper, struct hold_entry *entry, int error)
{
	struct hold_offer *offer = entry->offer;

	if (!offer)
		return;
	detach(keeper, offer);
	if (offer->acceptor)
		dismiss(keeper, offer->acceptor, -ECANCELED);
	if (offer->work.call)
		(void)aph_call_abort(offer->work.call, -error);
	release(keeper, &offer->work);
}

static void offer_ended(struct hold_keeper *keeper, struct hold_work *work,
			enum aph_outcome outcome)
{
	struct hold_offer *offer = (struct hold_offer *)work;

	(void)outcome;
	work->call = NULL;
	/* What was confirmed is completed without it. */
	if (offer->acceptor && offer->acceptor->confirmed)
		return;
	if (offer->entry)
		hold_offer_end(keeper, offer->entry, -ECANCELED);
	else
		hold_work_free(keeper, work);
}

/* -- giving ------------------------------------------------------------------------------------ */

static int check_give(const struct hold_keeper *keeper, const struct acceptor *acceptor,
		      const struct hold_entry *entry)
{
	if (acceptor->room < entry->n_fds)
		return -EMSGSIZE;
	if (acceptor->uid == entry->owner)
		return 0;
	if (hold_table_find(&keeper->table, acceptor->uid, entry->name))
		return -EEXIST;
	return hold_room(keeper, acceptor->uid) < entry->n_fds ? -EDQUOT : 0;
}

/* 0: the new owner has been sent the descriptors, or is gone, which its END will tell. */
static int give(struct hold_keeper *keeper, struct acceptor *acceptor, struct hold_offer *offer)
{
	struct hold_entry *entry = offer->entry;
	struct hold_given given = { .serial = entry->serial, .n_fds = entry->n_fds };
	int r = check_give(keeper, acceptor, entry);
	ssize_t n;

	if (r < 0)
		return r;
	n = aph_call_send_fds(acceptor->work.call, &given, sizeof(given), entry->fds, entry->n_fds,
			      APH_MORE);
	if (n == -EPIPE || n == -ENOTCONN)
		return 0;
	if (n < 0)
		return n == -EAGAIN ? -EAGAIN : -EIO;
	acceptor->offer = offer;
	offer->acceptor = acceptor;
	/* It cannot expire in somebody's hands. */
	hold_table_suspend(&keeper->table, entry);
	return 0;
}

static void find_acceptor(struct hold_keeper *keeper, struct hold_offer *offer)
{
	for (struct hold_work *work = keeper->works; work; work = work->next) {
		struct acceptor *acceptor = (struct acceptor *)work;
		int r;

		if (work->verb != HOLD_ACCEPT || acceptor->is_over || acceptor->offer ||
		    acceptor->uid != offer->to || acceptor->from != offer->entry->owner ||
		    strcmp(acceptor->name, offer->entry->name) != 0)
			continue;
		r = give(keeper, acceptor, offer);
		if (offer->acceptor)
			return;
		if (r == 0)
			continue;
		acceptor->is_over = true;
		hold_deny(work->call, r);
	}
}

/*
 * Whoever had the descriptors in hand has not become the owner: the offer stands, for whoever else
 * waits.
 */
static void stand(struct hold_keeper *keeper, struct hold_offer *offer)
{
	offer->acceptor = NULL;
	hold_table_resume(&keeper->table, offer->entry);
	find_acceptor(keeper, offer);
}

static void acceptor_ended(struct hold_keeper *keeper, struct hold_work *work,
			   enum aph_outcome outcome)
{
	struct acceptor *acceptor = (struct acceptor *)work;
	struct hold_offer *offer = acceptor->offer;

	(void)outcome;
	work->call = NULL;
	if (acceptor->confirmed && offer)
		return;
	hold_work_free(keeper, work);
	if (offer)
		stand(keeper, offer);
}

/* -- the moment -------------------------------------------------------------------------------- */

/* 0, or -EAGAIN: later. */
static int move(struct hold_keeper *keeper, struct hold_entry *entry, uid_t to, uint64_t token)
{
	uint64_t serial = hold_new_serial(keeper);
	int r = hold_table_prepare(&keeper->table, to);

	if (r == 0)
		r = hold_save_move(keeper, entry, to, serial, token);
	if (r < 0)
		return -EAGAIN;
	hold_table_remove(&keeper->table, entry);
	entry->owner = to;
	entry->serial = serial;
	entry->token = token;
	hold_table_add(&keeper->table, entry);
	return 0;
}

/* Whoever has confirmed cannot become the owner after all. */
static void turn_down(struct hold_keeper *keeper, struct acceptor *acceptor, int error)
{
	struct hold_offer *offer = acceptor->offer;

	dismiss(keeper, acceptor, error);
	if (offer->work.call)
		stand(keeper, offer);
	else
		hold_offer_end(keeper, offer->entry, -ECANCELED);
}

static void commit(struct hold_keeper *keeper, struct acceptor *acceptor)
{
	struct hold_offer *offer = acceptor->offer;
	/* Name and room must be free now as they were when the descriptors were sent. */
	int r = check_give(keeper, acceptor, offer->entry);

	if (r < 0) {
		turn_down(keeper, acceptor, r);
		return;
	}
	if (move(keeper, offer->entry, acceptor->uid, offer->token) < 0) {
		keeper->unsaved = true;
		return;
	}
	detach(keeper, offer);
	offer->acceptor = NULL;
	acceptor->offer = NULL;
	acceptor->is_over = true;
	if (acceptor->work.call)
		(void)aph_call_reply(acceptor->work.call, NULL, 0);
	if (offer->work.call)
		(void)aph_call_reply(offer->work.call, NULL, 0);
	release(keeper, &acceptor->work);
	release(keeper, &offer->work);
}

void hold_signalled(struct hold_keeper *keeper, struct aph_call *call, int32_t code)
{
	struct acceptor *acceptor = aph_call_data(call);

	if (!acceptor || acceptor->work.verb != HOLD_ACCEPT || code != HOLD_CONFIRM ||
	    !acceptor->offer || acceptor->confirmed)
		return;
	acceptor->confirmed = true;
	commit(keeper, acceptor);
}

void hold_transfer_resume(struct hold_keeper *keeper)
{
	struct hold_work *work = keeper->works;

	if (!keeper->unsaved)
		return;
	keeper->unsaved = false;
	/* What does not work for one does not for the next either. */
	while (work && !keeper->unsaved) {
		struct acceptor *acceptor = (struct acceptor *)work;

		if (work->verb == HOLD_ACCEPT && acceptor->confirmed && acceptor->offer) {
			commit(keeper, acceptor);
			/* It may have taken itself and its offer away: from the front again. */
			work = keeper->works;
		} else {
			work = work->next;
		}
	}
}

void hold_transfer_suspend(struct hold_keeper *keeper)
{
	for (struct hold_work *work = keeper->works; work;) {
		struct hold_offer *offer = (struct hold_offer *)work;
		struct acceptor *acceptor = (struct acceptor *)work;

		if (work->verb == HOLD_OFFER && offer->entry) {
			hold_offer_end(keeper, offer->entry, -EAGAIN);
			work = keeper->works;
		} else if (work->verb == HOLD_ACCEPT && !acceptor->is_over) {
			dismiss(keeper, acceptor, -EAGAIN);
			work = keeper->works;
		} else {
			work = work->next;
		}
	}
}

/* -- offers and acceptances -------------------------------------------------------------------- */

int hold_offer(struct hold_keeper *keeper, struct hold_job *job)
{
	struct hold_entry *entry;
	struct hold_offer *offer;

	if (!hold_may(keeper, job->who, HOLD_CAN_TRANSFER, job->owner, job->name))
		return -EACCES;
	if (job->request.arg >= UINT32_MAX)
		return -EINVAL;
	entry = hold_table_find(&keeper->table, job->owner, job->name);
	if (!entry)
		return -ENOENT;
	/* It has been accepted, by the same user, and the keeper died before it could say so. */
	if (job->request.token && entry->token == job->request.token)
		return aph_call_reply(job->call, NULL, 0) == -ENOMEM ? -ENOMEM : 0;
	if (entry->leaving || entry->offer)
		return -EBUSY;
	if (hold_is_waiting_enough(keeper, job->who->euid))
		return -EDQUOT;
	offer = calloc(1, sizeof(*offer));
	if (!offer)
		return -ENOMEM;
	offer->work.ended = offer_ended;
	offer->work.verb = HOLD_OFFER;
	offer->entry = entry;
	offer->to = (uid_t)job->request.arg;
	offer->token = job->request.token;
	entry->offer = offer;
	hold_work_add(keeper, &offer->work, job);
	find_acceptor(keeper, offer);
	return 0;
}

int hold_accept(struct hold_keeper *keeper, struct hold_job *job)
{
	uid_t uid = job->who->euid;
	struct hold_entry *entry;
	struct acceptor *acceptor;
	int r;

	/* It will be a name of the caller's own. */
	if (!hold_may(keeper, job->who, HOLD_CAN_TRANSFER, uid, job->name))
		return -EACCES;
	entry = hold_table_find(&keeper->table, job->owner, job->name);
	/* Of others it is not even told what they have. */
	if (!entry && job->owner == uid)
		return -ENOENT;
	if (hold_is_waiting_enough(keeper, uid))
		return -EDQUOT;
	acceptor = calloc(1, sizeof(*acceptor));
	if (!acceptor)
		return -ENOMEM;
	acceptor->work.ended = acceptor_ended;
	acceptor->work.verb = HOLD_ACCEPT;
	acceptor->uid = uid;
	acceptor->from = job->owner;
	acceptor->room = job->request.arg;
	memcpy(acceptor->name, job->name, sizeof(acceptor->name));
	hold_work_add(keeper, &acceptor->work, job);
	if (!entry || !entry->offer || entry->offer->to != uid || entry->offer->acceptor)
		return 0;
	r = give(keeper, acceptor, entry->offer);
	if (r < 0)
		acceptor->is_over = true;
	return r;
}

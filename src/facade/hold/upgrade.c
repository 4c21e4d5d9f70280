/* SPDX-License-Identifier: MIT */
/*
 * A newcomer, a newer version of the program perhaps, takes over from a keeper that lives.
 *
 *   newcomer                              keeper
 *     UPGRADE, with one end of a pair ---->  from here on it changes nothing, and refuses all
 *                                             as busy
 *                                     <----  everything, as records, and GO
 *     makes a twin, takes the service over: the clients' channels move, and notice nothing
 *     one byte                        ---->  ends
 *
 * If the newcomer dies before its byte, the keeper goes on.
 */
#include "keeper.h"

#include "../../base/close.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FETCH_MS    10000
#define ASK_TRIES   100
#define ASK_EACH_MS 20

/* -- the newcomer ------------------------------------------------------------------------------ */

static int ask_once(struct aph_channel *channel, int sock)
{
	const struct hold_request request = { .version = HOLD_VERSION, .verb = HOLD_UPGRADE };
	struct aph_result result;
	struct aph_call *call;
	int r = aph_call_new(&call, channel, aph_deadline_ms(FETCH_MS), NULL);
	ssize_t n;

	if (r < 0)
		return hold_complain_aph(r);
	n = aph_call_send_fds(call, &request, sizeof(request), &sock, 1, 0);
	while (n >= 0 && !aph_call_result(call, &result))
		(void)aph_call_wait(call, APH_FOREVER);
	if (n < 0)
		r = hold_complain_aph((int)n);
	else if (result.outcome == APH_ABORTED)
		r = hold_complain(-result.code, "the keeper does not let itself be replaced: %s",
				  strerror(result.code));
	else if (result.outcome == APH_REFUSED && result.reason == APH_REASON_BUSY)
		r = hold_complain(-EAGAIN, "the keeper is about to do something else");
	else if (result.outcome != APH_ANSWERED)
		r = hold_complain(-EBUSY, "the keeper does not let itself be replaced (%s, %s)",
				  aph_outcome_name(result.outcome), aph_reason_name(result.reason));
	aph_call_free(call);
	return r;
}

static int ask(struct aph_channel *channel, int sock)
{
	int r = ask_once(channel, sock);

	for (int i = 0; r == -EAGAIN && i < ASK_TRIES; i++) {
		(void)poll(NULL, 0, ASK_EACH_MS);
		r = ask_once(channel, sock);
	}
	return r;
}

static int receive_all(struct hold_keeper *keeper, int sock)
{
	struct hold_record record;
	int fds[APH_HOLD_FDS_MAX] = { 0 };
	int r;

	for (;;) {
		r = hold_record_recv(sock, &record, fds, 0);
		if (r == -EINTR)
			continue;
		if (r > 0 && record.what == HOLD_GO)
			return 0;
		if (r > 0) {
			r = hold_record_apply(&keeper->table, &record, fds, NULL);
			if (r < 0)
				aph_close_lingering(record.owner, fds, record.n_fds);
		} else if (r == 0) {
			r = -ECONNRESET;
		}
		if (r < 0)
			return hold_complain(r, "what the keeper has did not come over: %s",
					     strerror(-r));
	}
}

int hold_upgrade_fetch(struct hold_keeper *keeper, int *old)
{
	struct aph_endpoint *ep = NULL;
	struct aph_channel *channel;
	int ends[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return hold_complain(-errno, "cannot make a socket: %s", strerror(errno));
	r = aph_endpoint_new(&ep, NULL);
	if (r == 0)
		r = aph_channel_open(&channel, ep, keeper->address, NULL);
	/* Nobody there to take over from: it just begins. */
	if (r == 0)
		r = ask(channel, ends[1]);
	else if (r != -ENOENT)
		r = hold_complain_aph(r);
	(void)close(ends[1]);
	if (r == 0)
		r = receive_all(keeper, ends[0]);
	aph_endpoint_free(ep);
	if (r == 0) {
		*old = ends[0];
		return 0;
	}
	(void)close(ends[0]);
	return r == -ENOENT ? 0 : r;
}

void hold_upgrade_done(int *old)
{
	if (*old < 0)
		return;
	(void)send(*old, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
	(void)close(*old);
	*old = -1;
}

/* -- the keeper -------------------------------------------------------------------------------- */

static int send_entry(const struct hold_entry *entry, void *arg)
{
	const struct hold_keeper *keeper = arg;
	struct hold_record record;

	hold_record_of(&record, entry);
	return hold_record_send(keeper->newcomer, &record, entry->fds);
}

static void resume(struct hold_keeper *keeper)
{
	hold_log(keeper, "the newcomer has not made it: going on");
	(void)close(keeper->newcomer);
	keeper->newcomer = -1;
}

int hold_upgrade(struct hold_keeper *keeper, struct hold_job *job)
{
	const struct hold_record record = { .what = HOLD_GO };
	int r;

	if (!hold_is_master(keeper, job->who))
		return -EACCES;
	if (job->n_fds != 1)
		return -EINVAL;
	/* That is settled in a moment. */
	if (hold_is_taken_from(keeper))
		return -EAGAIN;
	hold_transfer_suspend(keeper);
	keeper->newcomer = job->fds[0];
	job->n_fds = 0;
	hold_log(keeper, "a newcomer, process %d, takes over", (int)job->who->pid);
	if (aph_call_reply(job->call, NULL, 0) < 0) {
		resume(keeper);
		return 0;
	}
	r = hold_table_each(&keeper->table, send_entry, keeper);
	if (r == 0)
		r = hold_record_send(keeper->newcomer, &record, NULL);
	if (r < 0)
		resume(keeper);
	return 0;
}

void hold_upgrade_watch(struct hold_keeper *keeper)
{
	char byte;
	ssize_t n = recv(keeper->newcomer, &byte, 1, MSG_DONTWAIT);

	if (n == 1)
		keeper->stopping = true;
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		resume(keeper);
}

/* SPDX-License-Identifier: MIT */
/*
 * Aborting a message. The original answered NOTIMPL to everything; this is what its header
 * describes. The message always comes back by caps_sys_get() or caps_sys_wait(), whatever the
 * answer is.
 */
#include "port.h"

#include <errno.h>

/* The service has it: it is told, and may go on; or it is taken away from it. */
static int abort_at_server(struct aph_caps_message *m, bool hard)
{
	int r = hard ? aph_call_cancel(m->call) : aph_call_signal(m->call, 0);

	/* A word that finds no room is lost: it was no more than a word. */
	return r == -EALREADY || r == -EPIPE ? CAPS_ABORT_RETURNED : CAPS_ABORT_ATSERVER;
}

static int abort_message(struct aph_caps_port *port, off_t msgid, int flags)
{
	struct aph_caps_message *m;
	int r;

	/* What has arrived decides: a reply that is here cannot be called back. */
	if (port->receiver == APH_CAPS_NOBODY)
		aph_caps_receive_all(port);
	if (!aph_caps_is_open(port))
		return -EINVAL;
	m = aph_caps_message_find(port, msgid);
	if (!m)
		return -EINVAL;
	if (m->stage == APH_CAPS_READY)
		return CAPS_ABORT_RETURNED;
	if (!m->call) {
		aph_caps_client_come_back(port, m, 0);
		return CAPS_ABORT_BEFORESERVER;
	}
	r = aph_call_withdraw(m->call);
	if (r == -EBUSY)
		return abort_at_server(m, flags & CAPF_ABORT_HARD);
	if (r == -EALREADY)
		return CAPS_ABORT_RETURNED;
	return r < 0 ? r : CAPS_ABORT_BEFORESERVER;
}

APH_API int caps_sys_abort(int number, off_t msgid, int flags)
{
	struct aph_caps_port *port = aph_caps_port_lock_type(number, CAPT_CLIENT);
	int r;

	if (!port)
		return -1;
	r = abort_message(port, msgid, flags);
	aph_caps_leave(port);
	aph_caps_port_unlock(port);
	return r < 0 ? aph_caps_fail(r) : r;
}

/* SPDX-License-Identifier: MIT */
/* Names of outcomes, reasons and events. */
#include <antiphon/event.h>

static const char *name_of(const char *const *names, size_t n, unsigned value)
{
	return value < n ? names[value] : "unknown";
}

const char *aph_outcome_name(enum aph_outcome outcome)
{
	static const char *const names[] = {
		[APH_ANSWERED] = "ANSWERED", [APH_REFUSED] = "REFUSED",	  [APH_ABORTED] = "ABORTED",
		[APH_LOST] = "LOST",	     [APH_DISPOSED] = "DISPOSED", [APH_GONE] = "GONE",
	};

	return name_of(names, sizeof(names) / sizeof(names[0]), (unsigned)outcome);
}

const char *aph_reason_name(enum aph_reason reason)
{
	static const char *const names[] = {
		[APH_REASON_NONE] = "none",
		[APH_REASON_NO_SERVICE] = "no such service",
		[APH_REASON_NOT_PERMITTED] = "not permitted",
		[APH_REASON_BUSY] = "busy",
		[APH_REASON_POLICY] = "policy",
		[APH_REASON_CLOSED] = "closed",
		[APH_REASON_DEADLINE] = "deadline",
		[APH_REASON_CANCELLED] = "cancelled",
		[APH_REASON_PROTOCOL] = "protocol broken",
		[APH_REASON_RESOURCES] = "out of resources",
	};

	return name_of(names, sizeof(names) / sizeof(names[0]), (unsigned)reason);
}

const char *aph_event_name(enum aph_event_type type)
{
	static const char *const names[] = {
		[APH_EVENT_NONE] = "NONE",	     [APH_EVENT_REQUEST] = "REQUEST",
		[APH_EVENT_REPLY] = "REPLY",	     [APH_EVENT_READABLE] = "READABLE",
		[APH_EVENT_WRITABLE] = "WRITABLE",   [APH_EVENT_END] = "END",
		[APH_EVENT_CONNECT] = "CONNECT",     [APH_EVENT_DISCONNECT] = "DISCONNECT",
		[APH_EVENT_OPEN] = "OPEN",	     [APH_EVENT_CLOSED] = "CLOSED",
		[APH_EVENT_TERMINATE] = "TERMINATE", [APH_EVENT_SIGNAL] = "SIGNAL",
	};

	return name_of(names, sizeof(names) / sizeof(names[0]), (unsigned)type);
}

/* SPDX-License-Identifier: MIT */
/* Errors: their names, and how they are told. */
#include "wire.h"

#include <errno.h>

APH_API const struct afdt_error_t AFDT_ERROR_T_INIT = {
	.phase = AFDT_NO_PHASE,
	.operation = AFDT_NO_OPERATION,
	.message = "",
};

static const char *const phases[] = {
	[AFDT_NO_PHASE] = "AFDT_NO_PHASE",
	[AFDT_CREATE_SERVER] = "AFDT_CREATE_SERVER",
	[AFDT_ACCEPT_CLIENT] = "AFDT_ACCEPT_CLIENT",
	[AFDT_HANDLE_REQUEST] = "AFDT_HANDLE_REQUEST",
	[AFDT_CREATE_CLIENT] = "AFDT_CREATE_CLIENT",
	[AFDT_HANDLE_RESPONSE] = "AFDT_HANDLE_RESPONSE",
};

static const char *const operations[] = {
	[AFDT_NO_OPERATION] = "AFDT_NO_OPERATION",
	[AFDT_MALLOC] = "AFDT_MALLOC",
	[AFDT_SOCKET] = "AFDT_SOCKET",
	[AFDT_PATHNAME] = "AFDT_PATHNAME",
	[AFDT_BIND] = "AFDT_BIND",
	[AFDT_LISTEN] = "AFDT_LISTEN",
	[AFDT_ACCEPT] = "AFDT_ACCEPT",
	[AFDT_CONNECT] = "AFDT_CONNECT",
	[AFDT_FORMAT] = "AFDT_FORMAT",
	[AFDT_SENDMSG] = "AFDT_SENDMSG",
	[AFDT_RECVMSG] = "AFDT_RECVMSG",
	[AFDT_EVENT_BASE_SET] = "AFDT_EVENT_BASE_SET",
	[AFDT_EVENT_ADD] = "AFDT_EVENT_ADD",
	[AFDT_POLL] = "AFDT_POLL",
	[AFDT_TIMEOUT] = "AFDT_TIMEOUT",
};

static const char *name_of(const char *const *names, size_t n, unsigned number)
{
	return number < n ? names[number] : "UNKNOWN";
}

APH_API const char *afdt_phase_str(enum afdt_phase phase)
{
	return name_of(phases, sizeof(phases) / sizeof(phases[0]), (unsigned)phase);
}

APH_API const char *afdt_operation_str(enum afdt_operation operation)
{
	return name_of(operations, sizeof(operations) / sizeof(operations[0]), (unsigned)operation);
}

int aph_afdt_fail(struct afdt_error_t *err, enum afdt_operation operation, int cause,
		  const char *message)
{
	if (err) {
		err->operation = operation;
		err->message = message;
	}
	errno = cause;
	if (cause)
		return -cause;
	switch (operation) {
	case AFDT_TIMEOUT:
		return -ETIMEDOUT;
	case AFDT_RECVMSG:
		return -ECONNRESET;
	default:
		return -EPROTO;
	}
}

/* SPDX-License-Identifier: MIT */
/*
 * libtirpc: ONC RPC over a unix stream socket, with the library's own client and server and XDR
 * routines by hand. A value is an unsigned int, a body is opaque.
 */
#include <errno.h>
#include <rpc/rpc.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "harness.h"

#define PROGRAM 0x20000b0b
#define VERSION 1
#define CALL	1

/* What goes over the wire in one direction: bytes here, and the sum of them once received. */
struct body {
	const void *data;
	size_t len;
	uint64_t sum;
	char *buffer; /* to decode into */
};

static struct bench_job *service_job;
static char *service_buffer;

/* Takes a struct body *; declared as what the library calls. */
static bool_t xdr_body(XDR *xdr, ...)
{
	struct body *body;
	uint32_t value = 0;
	va_list arguments;

	va_start(arguments, xdr);
	body = va_arg(arguments, struct body *);
	va_end(arguments);

	if (body->len > sizeof value) {
		char *bytes = xdr->x_op == XDR_ENCODE ? (char *)(uintptr_t)body->data
						      : body->buffer;

		if (!xdr_opaque(xdr, bytes, (u_int)body->len))
			return FALSE;
		if (xdr->x_op == XDR_DECODE)
			body->sum = bench_sum(bytes, body->len);
		return TRUE;
	}
	if (xdr->x_op == XDR_ENCODE)
		memcpy(&value, body->data, sizeof value);
	if (!xdr_u_int(xdr, &value))
		return FALSE;
	body->sum = value;
	return TRUE;
}

static void dispatch(struct svc_req *request, SVCXPRT *transport)
{
	struct body args = { .len = service_job->c.req_len, .buffer = service_buffer },
		    reply = { 0 };
	uint32_t small;

	if (request->rq_proc != CALL) {
		svcerr_noproc(transport);
		return;
	}
	if (!svc_getargs(transport, xdr_body, &args)) {
		svcerr_decode(transport);
		return;
	}
	reply.data = bench_answer(service_job, args.sum, &small, &reply.len);
	svc_sendreply(transport, xdr_body, &reply);
}

static int serve(struct bench_job *job)
{
	int listener = bench_listen(job->address, SOCK_STREAM);
	SVCXPRT *transport;

	if (listener < 0)
		return listener;
	service_job = job;
	service_buffer = malloc(BENCH_BODY_MAX);
	transport = svc_vc_create(listener, (u_int)job->c.rep_len + 64, (u_int)job->c.req_len + 64);
	if (transport == NULL || !svc_reg(transport, PROGRAM, VERSION, dispatch, NULL))
		return -1;
	bench_ready(job);
	svc_run();
	return -1;
}

struct client {
	const struct bench_job *job;
	CLIENT *rpc;
	char *buffer;
};

static int open_client(struct bench_job *job, void **self)
{
	struct client *client = calloc(1, sizeof *client);
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct netbuf where = { sizeof address, sizeof address, &address };
	int fd = bench_connect(job->address, SOCK_STREAM);

	if (fd < 0)
		return fd;
	memcpy(address.sun_path, job->address, strlen(job->address));
	client->job = job;
	client->buffer = malloc(BENCH_BODY_MAX);
	client->rpc = clnt_vc_create(fd, &where, PROGRAM, VERSION, (u_int)job->c.req_len + 64,
				     (u_int)job->c.rep_len + 64);
	*self = client;
	return client->rpc == NULL ? -1 : 0;
}

static int call(void *self, const void *req, size_t len, uint64_t *sum)
{
	struct client *client = self;
	struct timeval patience = { 3600, 0 };
	struct body args = { .data = req, .len = len };
	struct body reply = { .len = client->job->c.rep_len, .buffer = client->buffer };

	if (clnt_call(client->rpc, CALL, xdr_body, &args, xdr_body, &reply, patience) !=
	    RPC_SUCCESS)
		return -1;
	*sum = reply.sum;
	return 0;
}

int main(int argc, char **argv)
{
	static const struct bench_who who = {
		.name = "libtirpc", .death = true, .serve = serve, .open = open_client, .call = call
	};

	return bench_main(&who, 1, argc, argv);
}

/* SPDX-License-Identifier: MIT */
/*
 * OpenAFS's own Rx, from libafsrpc (the one for programs with threads), at its best tuning:
 * jumbograms, a receiver that hands its thread to the call (hot thread), 4 MiB of socket buffer. As
 * "openafs:stock" it is what servers are as installed: none of it.
 */
#include "harness.h"

#include <afs/param.h>
#include <afs/stds.h>
#include <rx/rx.h>
#include <rx/rx_globals.h>
#include <rx/rx_null.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK		     (256 * 1024)
#define CALLS_MAX	     16
#define CALLS_PER_CONNECTION 4

static int start(const char *who, unsigned port)
{
	if (strcmp(who, "openafs") == 0) {
		rx_SetUdpBufSize(4 << 20);
		rx_EnableHotThread();
	} else {
		rx_SetNoJumbo();
	}
	return rx_Init(htons((unsigned short)port));
}

static afs_int32 read_all(struct rx_call *call, char *buffer, size_t len)
{
	while (len) {
		int n = len < CHUNK ? (int)len : CHUNK;

		if (rx_Read(call, buffer, n) != n)
			return -1;
		len -= (size_t)n;
	}
	return 0;
}

static afs_int32 write_all(struct rx_call *call, char *buffer, size_t len)
{
	while (len) {
		int n = len < CHUNK ? (int)len : CHUNK;

		if (rx_Write(call, buffer, n) != n)
			return -1;
		len -= (size_t)n;
	}
	return 0;
}

/* -- server ------------------------------------------------------------------------------------ */

static __thread char buffer[CHUNK];

static afs_int32 serve_call(struct rx_call *call)
{
	uint32_t words[6], cookie = htonl(RXB_COOKIE);
	size_t in, out;

	if (rx_Read(call, (char *)words, 20) != 20)
		return -1;
	if (ntohl(words[1]) == RXB_RPC && rx_Read(call, (char *)&words[5], 4) != 4)
		return -1;
	in = ntohl(words[1]) == RXB_RECV ? 0 : ntohl(words[4]);
	out = ntohl(words[1]) == RXB_RECV ? ntohl(words[4]) : 0;
	if (ntohl(words[1]) == RXB_RPC)
		out = ntohl(words[5]);
	if (read_all(call, buffer, in) < 0 || write_all(call, buffer, out) < 0)
		return -1;
	return rx_Write(call, (char *)&cookie, 4) == 4 ? 0 : -1;
}

static int serve(const char *who, const char *name)
{
	static struct rx_securityClass *security[1];
	static char name_of_service[] = "rxperf";
	struct rx_service *service;
	unsigned port;

	(void)name;
	port = rxb_free_port();
	if (start(who, port) != 0)
		return -1;
	security[0] = rxnull_NewServerSecurityObject();
	service = rx_NewService(0, RXB_SERVICE, name_of_service, security, 1, serve_call);
	if (service == NULL)
		return -1;
	rx_SetMinProcs(service, 2);
	rx_SetMaxProcs(service, 2 * CALLS_MAX);
	rx_StartServer(0);
	rxb_ready(port);
	for (;;)
		pause();
}

/* -- client ------------------------------------------------------------------------------------ */

static struct rx_connection *connections[CALLS_MAX / CALLS_PER_CONNECTION];

static int open_client(const char *who, const char *name, unsigned port)
{
	struct rx_securityClass *security = rxnull_NewClientSecurityObject();

	(void)name;
	if (start(who, 0) != 0)
		return -1;
	for (size_t i = 0; i < CALLS_MAX / CALLS_PER_CONNECTION; i++) {
		connections[i] = rx_NewConnection(htonl(INADDR_LOOPBACK),
						  htons((unsigned short)port), RXB_SERVICE,
						  security, 0);
		if (connections[i] == NULL)
			return -1;
	}
	return 0;
}

static int run_call(unsigned thread, unsigned command, size_t in, size_t out)
{
	struct rx_call *call = rx_NewCall(connections[thread / CALLS_PER_CONNECTION]);
	char words[24];
	uint32_t cookie = 0;
	afs_int32 r = 0;

	size_t len = rxb_request(words, command, in, out);

	if (rx_Write(call, words, (int)len) != (int)len || write_all(call, buffer, in) < 0 ||
	    read_all(call, buffer, out) < 0 || rx_Read(call, (char *)&cookie, 4) != 4)
		r = -1;
	r = rx_EndCall(call, r);
	return r == 0 && cookie == htonl(RXB_COOKIE) ? 0 : -1;
}

static int call_once(unsigned thread)
{
	return run_call(thread, RXB_RPC, RXB_SMALL, RXB_SMALL);
}

static int bulk(bool up, size_t len)
{
	return run_call(0, up ? RXB_SEND : RXB_RECV, up ? len : 0, up ? 0 : len);
}

int main(int argc, char **argv)
{
	static const struct rxb_peer peers[] = {
		{ .name = "openafs",
		  .serve = serve,
		  .open = open_client,
		  .call = call_once,
		  .bulk = bulk },
		{ .name = "openafs:stock",
		  .serve = serve,
		  .open = open_client,
		  .call = call_once,
		  .bulk = bulk },
	};

	return rxb_main(peers, 2, argc, argv);
}

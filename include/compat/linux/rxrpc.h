/* SPDX-License-Identifier: MIT */
/*
 * AF_RXRPC: addresses, socket options and control messages, under their historical names. Values
 * and layouts are those of the interface; this header holds what its documentation names and what
 * came later. It takes the place of the system's header of this name, and has its include guard, so
 * that the two never meet. See af_rxrpc(7); the functions are in antiphon/af_rxrpc.h.
 */
#ifndef _LINUX_RXRPC_H
#define _LINUX_RXRPC_H

#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>

#ifndef AF_RXRPC
#define AF_RXRPC 33
#define PF_RXRPC AF_RXRPC
#endif
#ifndef SOL_RXRPC
#define SOL_RXRPC 272
#endif

/*
 * 36 bytes. The service is in host byte order, what is in the transport address in network byte
 * order.
 */
struct sockaddr_rxrpc {
	sa_family_t srx_family;	 /* AF_RXRPC */
	uint16_t srx_service;	 /* 0: a client's own address */
	uint16_t transport_type; /* SOCK_DGRAM */
	uint16_t transport_len;	 /* of the address below */
	union {
		sa_family_t family;
		struct sockaddr_in sin;
		struct sockaddr_in6 sin6;
	} transport;
};

/* Options, of level SOL_RXRPC. */
#define RXRPC_SECURITY_KEY	   1 /* client: description of a key of type "rxrpc" */
#define RXRPC_SECURITY_KEYRING	   2 /* server: name of a keyring with "rxrpc_s" keys */
#define RXRPC_EXCLUSIVE_CONNECTION 3 /* each call on a connection of its own; no value */
#define RXRPC_MIN_SECURITY_LEVEL   4 /* one of RXRPC_SECURITY_PLAIN, AUTH, ENCRYPT */
#define RXRPC_UPGRADEABLE_SERVICE  5 /* uint16_t[2]: from which service to which */
#define RXRPC_SUPPORTED_CMSG	   6 /* get: int, the highest control message that is known */
#define RXRPC_MANAGE_RESPONSE	   7

/* Control messages: s may be sent, r may be received; "ends": the tag is free after it. */
enum rxrpc_cmsg_type {
	RXRPC_USER_CALL_ID = 1,	     /* sr unsigned long: the tag of the call */
	RXRPC_ABORT = 2,	     /* sr uint32_t: code; ends */
	RXRPC_ACK = 3,		     /* r  service: the client has all of the reply; ends */
	RXRPC_NET_ERROR = 5,	     /* r  int: errno; ends */
	RXRPC_BUSY = 6,		     /* r  client: the server will not begin it; ends */
	RXRPC_LOCAL_ERROR = 7,	     /* r  int: errno; ends */
	RXRPC_NEW_CALL = 8,	     /* r  service: a call waits for RXRPC_ACCEPT; has no tag */
	RXRPC_ACCEPT = 9,	     /* s  service: the oldest waiting call gets this tag */
	RXRPC_EXCLUSIVE_CALL = 10,   /* s  on a connection of its own */
	RXRPC_UPGRADE_SERVICE = 11,  /* s  ask for a better service */
	RXRPC_TX_LENGTH = 12,	     /* s  int64_t: length of all data of this phase */
	RXRPC_SET_CALL_TIMEOUT = 13, /* s  uint32_t[1..3]: hard (s), idle (ms), normal (ms) */
	RXRPC_CHARGE_ACCEPT = 14,    /* s  service: a tag for one call that is to come */
	RXRPC__SUPPORTED
};

#define RXRPC_SECURITY_PLAIN	 0
#define RXRPC_SECURITY_AUTH	 1
#define RXRPC_SECURITY_ENCRYPT	 2
#define RXRPC_SECURITY_ENCRYPTED RXRPC_SECURITY_ENCRYPT /* as the documentation writes it */

#define RXRPC_SECURITY_NONE	0
#define RXRPC_SECURITY_RXKAD	2
#define RXRPC_SECURITY_RXGK	4
#define RXRPC_SECURITY_RXK5	5
#define RXRPC_SECURITY_YFS_RXGK 6

/* Codes of aborts that the protocol itself uses, as in RXRPC_ABORT. */
#define RX_CALL_DEAD	     (-1)
#define RX_INVALID_OPERATION (-2)
#define RX_CALL_TIMEOUT	     (-3)
#define RX_EOF		     (-4)
#define RX_PROTOCOL_ERROR    (-5)
#define RX_USER_ABORT	     (-6)
#define RX_RESTARTING	     (-100)

#endif

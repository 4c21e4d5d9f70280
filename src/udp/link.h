/* SPDX-License-Identifier: MIT */
/*
 * A port of several processes. The first one, the owner, is met at an abstract Unix socket that is
 * named after the port; whoever comes gets the UDP socket itself from it, so that all of them send
 * and receive for themselves. Each has a connection to the owner, for what it receives and is for
 * others, and for saying what it claims.
 *
 * All of it under the port's lock, and nothing here waits. What comes over a connection is from a
 * process that the owner has let in, of the same user unless the owner says otherwise; it is
 * checked all the same.
 */
#ifndef ANTIPHON_UDP_LINK_H
#define ANTIPHON_UDP_LINK_H

#include "udp/port.h"

#include <sys/un.h>

#define APH_UDP_LINK_VERSION 1u
#define APH_UDP_BACKLOG	     64			  /* who has come and was not looked at yet */
#define APH_UDP_PATIENCE_NS  UINT64_C(2000000000) /* with an owner that is to answer */
/* Among the port's descriptors in epoll, which are numbers of links. */
#define APH_UDP_LISTENER UINT32_MAX

enum aph_udp_frame_kind {
	APH_UDP_HELLO = 1, /* value: the version */
	/* value: facts as bits; count: packets of the receive buffer; the socket, the hint. */
	APH_UDP_WELCOME,
	APH_UDP_CLAIM,	 /* is_epoch, key */
	APH_UDP_ANSWER,	 /* the same; value: 0 or a negative errno */
	APH_UDP_RELEASE, /* is_epoch, key */
	APH_UDP_KNOWN,	 /* is_epoch, key; value: enum aph_udp_whose */
	APH_UDP_COUNT,	 /* count: of drivers at the port */
	APH_UDP_PACKET,	 /* path, segment, and what was received */
	APH_UDP_ERROR,	 /* path, value: errno, mtu, and what was quoted */
};

/* What the owner says about what others have claimed, so that whoever takes over knows of them. */
enum aph_udp_whose {
	APH_UDP_NOBODYS,
	APH_UDP_OWNERS,
	APH_UDP_ANOTHERS,
};

#define APH_UDP_FACT_SEGMENT 1
#define APH_UDP_FACT_GRO     2

/* What every message begins with. */
struct aph_udp_frame {
	uint32_t kind;
	uint32_t is_epoch;
	uint32_t key;
	int32_t value;
	uint32_t count;
	uint32_t mtu;
	uint32_t segment;
	struct aph_rx_path path;
};

/* -- link.c: connections ----------------------------------------------------------------------- */

/* Loses it where there is no room. */
void aph_udp_link_send(const struct aph_udp_link *link, const struct aph_udp_frame *frame,
		       const void *bytes, size_t len);
/* The connection to the owner, NULL: there is none. */
struct aph_udp_link *aph_udp_link_up(struct aph_udp_port *port);
/* A free place for a connection, which is taken and watched. NULL: there is none. */
struct aph_udp_link *aph_udp_link_add(struct aph_udp_port *port, int fd, bool is_up);
/* Accepts who has come, reads what is there. */
void aph_udp_link_look(struct aph_udp_port *port, uint64_t now_ns);
/* Closes everything; says nothing. */
void aph_udp_links_close(struct aph_udp_port *port);

/* -- attach.c: names, coming in, taking over --------------------------------------------------- */

/*
 * The owner's: from now on others may come. 0, -errno: without it the port is good for this process
 * alone.
 */
int aph_udp_listen(struct aph_udp_port *port);
/*
 * Another process may have the port: makes it ours as well. 0; -ECONNREFUSED: nobody of ours has
 * it; what a connection says whose other end has gone; -EACCES, -ETIMEDOUT, ...
 */
int aph_udp_attach(struct aph_udp_port *port, const struct aph_rx_address *address);
/* Says what that means; -EADDRINUSE. */
int aph_udp_attach_error(int r);
/* The owner is gone: becomes the owner, or finds the new one. */
void aph_udp_take_over(struct aph_udp_port *port);
/* Whether the other end of the connection is of a user whom we let in. */
bool aph_udp_is_let_in(const struct aph_udp_port *port, int fd);

/* -- hint.c: who receives ---------------------------------------------------------------------- */

/* The descriptor of the memory, made at the first call. */
int aph_udp_hint_share(struct aph_udp_port *port);
/* Takes the descriptor. */
void aph_udp_hint_adopt(struct aph_udp_port *port, int fd);
void aph_udp_hint_close(struct aph_udp_port *port);

#endif

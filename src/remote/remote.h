/* SPDX-License-Identifier: MIT */
/*
 * The remote transport's objects: calls of the core carried as calls of RxRPC. It adds nothing to
 * the protocol: a channel is a client of the engine, or a client of ours as the service sees it; a
 * call is a call.
 *
 * A port is a UDP socket with its engine. An endpoint has one for all its channels, and one for
 * each address that it serves at. All under the endpoint's lock, which is given back while a port
 * sleeps, and while another process that has one is asked.
 */
#ifndef ANTIPHON_REMOTE_REMOTE_H
#define ANTIPHON_REMOTE_REMOTE_H

#include "core/transport.h"

#include <antiphon/rx.h>

/*
 * Codes of ABORT packets between ends that both are antiphon; to others they are codes like any
 * other. The lowest byte is an enum aph_reason.
 */
#define APH_REMOTE_REFUSED INT32_C(0x41500100) /* the request did not run */
#define APH_REMOTE_LOST	   INT32_C(0x41500200) /* it may have run */
#define APH_REMOTE_REASON  INT32_C(0xff)

struct aph_remote;

struct aph_remote_port {
	struct aph_remote *remote;
	struct aph_list link; /* in the transport's ports */
	struct aph_rx_udp *udp;
	struct aph_rx *rx;
	struct aph_source source;
	struct aph_source queue;       /* what others at the same UDP port have received for us */
	struct aph_source others;      /* at the same UDP port, in other processes */
	struct aph_timer timer;	       /* the engine's deadline, for a sleep in epoll */
	struct aph_list incoming;      /* calls that no service has been told of */
	struct aph_list headless;      /* the same, whose requests lack their beginning */
	struct aph_rx_address address; /* where it serves, with the port that it has */
	struct aph_grave grave;
	uint64_t delivered;  /* ticks: when a service was last told of a request */
	uint64_t slow_until; /* ticks: the program took long for one, and may for the next */
	bool is_away;	     /* it has not come back from the one that it was told of */
	uint32_t n_users;
	bool serves;
	bool waits; /* a thread is in its driver, perhaps without the lock */
};

struct aph_remote {
	struct aph_transport base;
	struct aph_list ports;
	pthread_mutex_t opening; /* of who opens a service; taken before the endpoint's lock */
	_Atomic(struct aph_rx_udp *) sleeper; /* where the leader waits; read without the lock */
	_Atomic unsigned n_wakers;	      /* threads that look at it */
};

#define APH_REMOTE_BUCKETS 256

struct aph_remote_service {
	struct aph_service base;
	struct aph_grave grave;
	struct aph_remote_port *port;
	struct aph_rx_service *rx;
	struct aph_list clients[APH_REMOTE_BUCKETS]; /* channels, by their path */
	struct aph_list quiet;			     /* channels without calls, the longest first */
	uint32_t n_quiet;
};

struct aph_remote_channel {
	struct aph_channel base;
	struct aph_grave grave;
	struct aph_remote_port *port;
	struct aph_rx_client *client; /* NULL at a service */
	struct aph_rx_path path;
	struct aph_list path_link;  /* at a service: in `clients` */
	struct aph_list quiet_link; /* at a service: in `quiet` */
	uint32_t n_calls;
};

/* What the data of a call of the engine points to; NULL: nobody needs to hear of it. */
struct aph_remote_user {
	bool is_told; /* a struct aph_remote_call; else a request that waits, see incoming.c */
};

struct aph_remote_call {
	struct aph_call base;
	struct aph_remote_user user;
	struct aph_rx_call *rx;
	uint8_t *kept; /* of a reply that did not fit: sent as there is room */
	size_t kept_len, kept_off;
	size_t reserved; /* bytes of a piece that is not committed; 0: there is none */
	bool drops;	 /* at a service: it was answered before all of the request was here */
};

static inline struct aph_remote_channel *aph_remote_channel(const struct aph_channel *channel)
{
	return aph_container(channel, struct aph_remote_channel, base);
}

static inline struct aph_remote_call *aph_remote_call(const struct aph_call *call)
{
	return aph_container(call, struct aph_remote_call, base);
}

/* -- address.c */
struct aph_remote_address {
	struct aph_rx_address address; /* port 0: any */
	bool is_wildcard;
	bool is_loopback;
	uint16_t service;
};

/* An address taken apart; `host` lies in `text`. */
struct aph_remote_parts {
	char text[APH_ADDRESS_MAX + 160];
	char *host; /* as getaddrinfo(3) wants it, without brackets */
	bool is_wildcard;
	uint16_t port, service;
};

/* Takes `rx:HOST:PORT/SERVICE` apart, without asking anybody. 0, -EINVAL. */
int aph_remote_address_split(struct aph_remote_parts *out, const char *address, bool passive);
/*
 * Reads `rx:HOST:PORT/SERVICE`; may ask the resolver. `passive`: to be served. 0, -EINVAL, -ENOENT.
 */
int aph_remote_address_parse(struct aph_remote_address *out, const char *address, bool passive);

/* In network byte order. */
static inline in_port_t aph_remote_port_of(const struct aph_rx_address *address)
{
	return address->family == AF_INET6 ? address->in6.sin6_port : address->in.sin_port;
}

#define APH_REMOTE_TEXT_MAX 80

/* Writes `HOST:PORT` in numbers, an IPv6 address in brackets. */
void aph_remote_address_text(char out[APH_REMOTE_TEXT_MAX], const struct aph_rx_address *address);

/* -- port.c */
/*
 * Around the opening of a service, during which the endpoint's lock is given back while another
 * process is asked: others use the endpoint, but for those who open a service too. 0, -ENOMEM.
 */
int aph_remote_begin_opening(struct aph_endpoint *ep);
void aph_remote_end_opening(struct aph_endpoint *ep);
/*
 * The port for channels, or, for who opens a service, the one that serves at `address`. Give it
 * back with aph_remote_port_put().
 */
int aph_remote_port_get(struct aph_remote_port **out, struct aph_endpoint *ep,
			const struct aph_rx_address *address);
void aph_remote_port_put(struct aph_remote_port *port);
/* Something was written: it leaves now, or with what else the user does in this turn. */
void aph_remote_flush(struct aph_remote_port *port);
/* It leaves now, whatever else is to be done in this turn. */
void aph_remote_flush_now(struct aph_remote_port *port);
/* And what is in the socket is received, by us or by the thread that waits there. */
void aph_remote_drain(struct aph_remote_port *port);
/* Tells the core what the engine has to tell. True when there was something. */
bool aph_remote_pump(struct aph_remote_port *port);
/*
 * Something was read or given back: the engine may have to say so, or have room for what waited,
 * while others sleep.
 */
void aph_remote_changed(struct aph_remote_port *port);

/* -- incoming.c: requests that no service was told of */
/* Keeps the call of the event until the endpoint takes requests, or ends it for want of memory. */
void aph_remote_incoming_add(struct aph_remote_port *port, const struct aph_rx_event *event);
/* What the engine says of one that waits. */
void aph_remote_incoming_event(struct aph_remote_port *port, struct aph_remote_user *user,
			       const struct aph_rx_event *event);
/* Tells its service of the first one that can be taken; refuses others. False: there is none. */
bool aph_remote_incoming_deliver(struct aph_remote_port *port);
/* The service goes: those for it end. */
void aph_remote_incoming_end(const struct aph_remote_service *service);
/* The port goes, or belongs to the parent process. */
void aph_remote_incoming_free(struct aph_remote_port *port);

/* -- trace.c */
/* Shows the packets of a port as ANTIPHON_RX_TRACE says. */
void aph_remote_trace(struct aph_rx_config *config, struct aph_remote_port *port);

/* -- capture.c */
/* The same, in the file that the variable names. Says on standard error why it cannot be. */
void aph_remote_capture(struct aph_rx_config *config, struct aph_remote_port *port);

/* -- channel.c */
extern const struct aph_channel_ops aph_remote_channel_ops;
/*
 * Service: the channel of whoever is at `path`. NULL: no memory, or as many as the service takes.
 */
struct aph_remote_channel *aph_remote_channel_for(struct aph_remote_service *service,
						  const struct aph_rx_path *path);
/* Service: a call begins or has been freed. */
void aph_remote_channel_busy(struct aph_remote_channel *rc);
void aph_remote_channel_quiet(struct aph_remote_channel *rc);
/* Service: a channel that was asked for and got no call. */
void aph_remote_channel_unused(struct aph_remote_channel *rc);

/* -- call.c */
int aph_remote_call_init(struct aph_call *call);
void aph_remote_call_ended(struct aph_call *call);
void aph_remote_call_deinit(struct aph_call *call);
ssize_t aph_remote_send(struct aph_call *call, const void *data, size_t len, const int *fds,
			size_t n_fds, bool more);
int aph_remote_send_all(struct aph_call *call, const void *data, size_t len);
int aph_remote_reserve(struct aph_call *call, void **data, size_t *len);
int aph_remote_commit(struct aph_call *call, size_t len, bool more);
ssize_t aph_remote_read(struct aph_call *call, void *buf, size_t max, bool consume);
size_t aph_remote_available(const struct aph_call *call);
bool aph_remote_is_complete(const struct aph_call *call);
int aph_remote_borrow(struct aph_call *call, const void **data, size_t *len);
void aph_remote_release(struct aph_call *call, size_t len);
ssize_t aph_remote_take_fds(struct aph_call *call, int *fds, size_t max);
bool aph_remote_revoke(struct aph_call *call);
int aph_remote_signal(struct aph_call *call, int32_t code);
void aph_remote_farewell(struct aph_call *call, enum aph_farewell kind, int32_t value);
/* What the engine has to say about a call of ours. */
void aph_remote_call_event(struct aph_remote_call *rc, const struct aph_rx_event *event);
/* Tells the service of a request. APH_REASON_NONE, or why it is to be refused. */
enum aph_reason aph_remote_call_arrive(struct aph_remote_service *service, struct aph_rx_call *rx);

#endif

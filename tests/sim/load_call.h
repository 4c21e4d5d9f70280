/* SPDX-License-Identifier: MIT */
/*
 * What load.c and load_call.c share: the records of calls at their two ends, and how bodies are
 * moved.
 */
#ifndef TESTS_SIM_LOAD_CALL_H
#define TESTS_SIM_LOAD_CALL_H

#include "load.h"

/* Forged packets can make either end wait for ever: then both have a time limit. */
#define FORGED_HARD_MS 20000

#define LIVES_MAX 32

/* How far the two bodies are at one end. */
struct load_body {
	uint64_t written, read;
	bool write_over, read_over;
	uint32_t ruled_out; /* of the ids that the body which is read may have: a bit each */
};

enum fate {
	FATE_NONE,
	FATE_ABORT,
	FATE_FREE,
};

struct load_call {
	struct load *load;
	uint32_t id;
	struct load_host *at, *to;
	uint16_t service;
	bool is_upgrade;
	struct aph_rx_call *handle; /* NULL: freed */
	uint64_t request_len, reply_len;
	uint32_t epoch, cid, number;   /* number 0: not known yet */
	struct load_call *prev, *next; /* among the unnamed */

	struct load_body body;
	bool ended, gave_up, aborted, waits, slow_reader;
	struct aph_rx_end end;

	enum fate client_fate, service_fate;
	uint32_t service_percent; /* of the body that is under way */
	bool service_fate_in_reply;
	bool slow_service, service_lets_go;
	bool let_go; /* the service has: nobody there hears how it ends */
	uint64_t service_delay_ns;
	bool has_deadline;

	unsigned executed_in; /* incarnation of the server */
	unsigned n_executed;
	uint32_t reply_ids[LIVES_MAX]; /* of the replies of these incarnations */
};

struct load_work {
	struct load *load;
	struct load_host *at;
	struct load_call *call; /* NULL: nobody's, which damaged packets can make */
	struct aph_rx_call *handle;
	struct load_work *prev, *next;
	uint32_t reply_id;
	struct load_body body;
	bool ended, aborted, waits, gone;
};

enum {
	LOAD_BLOCKED, /* an event follows */
	LOAD_OVER,    /* the body is complete */
	LOAD_PAUSED,  /* as much as was asked for; go on later */
	LOAD_BROKEN,  /* the call has ended */
};

/* Writes what it can of a body of `len` bytes. */
int load_write(struct load *load, struct aph_rx_call *handle, struct load_body *body, uint32_t id,
	       uint64_t len);
/* How many pieces at a time are slow, and come to an end nevertheless. */
unsigned load_slow_pieces(const struct load *load, uint64_t len);
/*
 * Reads what is there, at most `pieces` pieces (0: all). `len` UINT64_MAX: unknown, not checked.
 * The body is one of those that `ids` name, from its beginning to its end.
 */
int load_read(struct load *load, struct aph_rx_call *handle, struct load_body *body,
	      const uint32_t *ids, unsigned n_ids, uint64_t len, unsigned pieces);

/* Learns the numbers that the engine has given the call. */
void load_name(struct load_call *call);
/* False: none could be begun now. */
bool load_call_begin(struct load *load);
/* Sees to it that calls are begun as others end. */
void load_call_keep_on(struct load *load);
void load_call_forget(struct load_call *call);
void load_client_event(struct load_call *call, const struct aph_rx_event *event);
void load_on_event(struct host *host, const struct aph_rx_event *event);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Messages on the wire (docs/spec/afdt.md): a word, up to 508 bytes, descriptors with the first
 * byte. One system call at a time, so that whoever waits, in whatever way, keeps what has come.
 */
#ifndef ANTIPHON_FACADE_AFDT_WIRE_H
#define ANTIPHON_FACADE_AFDT_WIRE_H

#include <afdt.h>
#include <antiphon/afdt.h>

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

#define APH_AFDT_HEADER ((unsigned)sizeof(uint32_t))

/* What has come of a message. The descriptors in it are its own until they are taken. */
struct aph_afdt_intake {
	unsigned n; /* bytes that are here */
	unsigned n_fds;
	unsigned len;	     /* of the body; once the header is here */
	unsigned fds_wanted; /* how many the header announced */
	bool extended;	     /* the header is one of ours */
	bool lost;	     /* descriptors came that this process may not have */
	bool excess;	     /* more came than any message may have */
	int fds[APH_AFDT_FDS_MAX];
	uint8_t bytes[AFDT_FULL_MSGLEN];
};

enum aph_afdt_intake_state {
	APH_AFDT_PART,
	APH_AFDT_WHOLE,
	APH_AFDT_WRONG,
};

/* The rest is written by whatever comes. */
static inline void aph_afdt_intake_init(struct aph_afdt_intake *in)
{
	in->n = 0;
	in->n_fds = 0;
	in->len = 0;
	in->fds_wanted = 0;
	in->extended = false;
	in->lost = false;
	in->excess = false;
}

/* Closes the descriptors that nobody has taken. Keeps errno. */
void aph_afdt_intake_deinit(struct aph_afdt_intake *in);

/*
 * One recvmsg(2) for bytes up to number `upto` of the message. How many came, 0 at the end, or
 * -errno.
 */
ssize_t aph_afdt_intake_read(struct aph_afdt_intake *in, int sock, unsigned upto);

/* Judges what is here. Fills in `err` and sets errno if it is WRONG. */
enum aph_afdt_intake_state aph_afdt_intake_state(struct aph_afdt_intake *in,
						 struct afdt_error_t *err);

/* Moves a whole message to where it is wanted. 0, or an error if it does not fit. */
int aph_afdt_intake_give(struct aph_afdt_intake *in, struct aph_afdt_room *room,
			 struct afdt_error_t *err);

static inline const uint8_t *aph_afdt_intake_body(const struct aph_afdt_intake *in)
{
	return in->bytes + APH_AFDT_HEADER;
}

/* What is still to be sent of a message; body and descriptors are borrowed. */
struct aph_afdt_outgo {
	uint32_t header;
	unsigned len;  /* of the body */
	unsigned sent; /* bytes, with the header */
	unsigned n_fds;
	const void *body;
	const int *fds;
};

/* 0, or -EMSGSIZE or -EINVAL with `err` filled in. A header of ours if it is wanted or needed. */
int aph_afdt_outgo_init(struct aph_afdt_outgo *out, const struct aph_afdt_message *message,
			bool extended, struct afdt_error_t *err);

/* One sendmsg(2). 1 when all is sent, 0 when not, or -errno. */
int aph_afdt_outgo_write(struct aph_afdt_outgo *out, int sock, int flags);

/* Sets `err` (unless NULL) and errno; gives -errno, or for a cause of 0 what fits the operation. */
int aph_afdt_fail(struct afdt_error_t *err, enum afdt_operation operation, int cause,
		  const char *message);

/* close(2) that keeps errno; -1 is not closed. */
void aph_afdt_close(int fd);

/* CLOCK_MONOTONIC in nanoseconds, and the point that lies `timeout` ahead (NULL: APH_FOREVER). */
uint64_t aph_afdt_now(void);
uint64_t aph_afdt_deadline(const struct timeval *timeout);

/*
 * A client comes back, or says what it wants, in less; a server that has to be woken answers in
 * less.
 */
#define APH_AFDT_SPIN_SERVER_NS 10000u
#define APH_AFDT_SPIN_CLIENT_NS 25000u

/*
 * Looking again for some microseconds before going to sleep, as long as that mostly pays: it does
 * when the other side is awake on another core, and else it soon stops being tried. begin() says
 * until when, or 0: do not; finish() learns.
 */
struct aph_afdt_spin {
	unsigned skip, misses;
};

uint64_t aph_afdt_spin_begin(struct aph_afdt_spin *spin, unsigned ns);
void aph_afdt_spin_finish(struct aph_afdt_spin *spin, bool paid);

/* -- addresses --------------------------------------------------------------------------------- */

struct aph_afdt_address {
	struct sockaddr_un un;
	socklen_t len;
};

/*
 * The directory part of the name under which a server of ours binds its socket ends in this. It
 * leads to the same place, and getpeername(2) shows it to whoever connects.
 */
#define APH_AFDT_MARK "/.//./"

int aph_afdt_address_set(struct aph_afdt_address *address, const char *path,
			 struct afdt_error_t *err);

/* A new stream socket, close-on-exec. */
int aph_afdt_socket(int flags, struct afdt_error_t *err);

#endif

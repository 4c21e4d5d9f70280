/* SPDX-License-Identifier: MIT */
/*
 * Whether a wait begins with looking again and again for some microseconds, rather than with sleep:
 * what earlier waits have taught. It knows nothing of sockets.
 */
#ifndef ANTIPHON_UDP_SPIN_H
#define ANTIPHON_UDP_SPIN_H

#include "base/trial.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct aph_udp_spin {
	uint64_t max_ns;       /* 0: never */
	uint64_t began_ns;     /* of the wait that goes on */
	uint64_t ended_ns;     /* of the wait before */
	unsigned n_skip;       /* waits that still go without */
	unsigned n_skip_next;  /* after the next spin in vain */
	unsigned n_short_gaps; /* the program came back quickly, so often in a row */
	unsigned n_cpus;       /* that the program may run on */
	unsigned n_others;     /* times that its threads took turns to send, in this wait */
	pthread_t last_other;  /* who sent last */
	uint8_t shorts;	       /* the last eight waits, bit 0 the latest: was it a short one? */
	uint8_t busy;	       /* the same: did the program's threads need the CPUs? */
	bool spinning;
	struct aph_trial_rule far_rule;
	struct aph_trial far; /* whether to spin for longer than `max_ns` */
};

/*
 * For up to `max_ns`; and for longer, where waits take up to `far_ns` and that has turned out to
 * pay. 0: never.
 */
void aph_udp_spin_init(struct aph_udp_spin *spin, uint64_t max_ns, uint64_t far_ns,
		       unsigned n_cpus);
/* This thread sends while another one waits. */
void aph_udp_spin_note_other(struct aph_udp_spin *spin);
/* A wait begins. Returns until when to spin; `now_ns` or less: not at all. */
uint64_t aph_udp_spin_begin(struct aph_udp_spin *spin, uint64_t now_ns);
/* The spin was in vain: the thread goes to sleep. */
void aph_udp_spin_fail(struct aph_udp_spin *spin);
/* Something has arrived; `at_once`: it was there at the first look. */
void aph_udp_spin_end(struct aph_udp_spin *spin, bool at_once, uint64_t now_ns);

/* Whether peers work while we do, as far as spinning has shown: not on our CPU. */
bool aph_udp_spin_pays(const struct aph_udp_spin *spin);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * The harness under the RxRPC benchmarks. Two processes on loopback speak the protocol of OpenAFS's
 * rxperf (service 147): a server, of one program, and a client, of the same or of another one. A
 * client measures one case and prints one JSON object; bench/run-rx drives it and computes the
 * ratios.
 *
 *	PROGRAM --list                              who there is, and what each can do
 *	PROGRAM serve WHO CASE CPU                  prints its port, serves until its input ends
 *	PROGRAM run WHO CASE MS SERVER-PROGRAM WHO  starts the server, measures, prints, ends it
 */
#ifndef BENCH_RX_HARNESS_H
#define BENCH_RX_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RXB_SERVICE 147
#define RXB_COOKIE  0x4711
#define RXB_SEND    0u
#define RXB_RECV    1u
#define RXB_RPC	    3u
#define RXB_SMALL   8 /* bytes of a small call each way, beside the words of the protocol */

#define RXB_IDLE 100000

/*
 * What a program is: a floor, a peer, or antiphon. A NULL member means that its cases are not
 * there.
 */
struct rxb_peer {
	const char *name;
	int (*serve)(const char *who, const char *name); /* calls rxb_ready(), does not return */
	int (*open)(const char *who, const char *name, unsigned port);
	int (*call)(unsigned thread); /* a small call; from 16 threads in the cases with threads */
	/*
	 * Keeps `depth` small calls in flight until `end_ns`; threads do it for who has no such
	 * thing.
	 */
	int (*flight)(unsigned depth, uint64_t end_ns, uint64_t *n_calls);
	int (*bulk)(bool up, size_t len); /* one call with a long request or reply */
	/* Makes that many idle connections to the server. */
	int (*idle)(unsigned n);
};

int rxb_main(const struct rxb_peer *peers, size_t n_peers, int argc, char **argv);

/* For servers: a port that nobody uses, and the word that they are there. */
unsigned rxb_free_port(void);
void rxb_ready(unsigned port);

/* The words that a request begins with; returns their length. `out` holds 24 bytes. */
size_t rxb_request(char *out, unsigned command, size_t in_len, size_t out_len);

uint64_t rxb_now_ns(void);

#endif

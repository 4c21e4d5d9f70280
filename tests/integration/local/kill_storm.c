/* SPDX-License-Identifier: MIT */
/*
 * Services and clients under load, of which one after the other is killed at random moments with
 * SIGKILL.
 *
 *   kill_storm [--seed N] [--kills N]
 *
 * A third of the kills hits clients alone, so that a service must live through all of them; the
 * rest hits both sides, so that a client must. Checked: a call has one outcome; ANSWERED was
 * executed once and brought the right bytes and descriptors; REFUSED was never executed, not even
 * later; nothing is executed twice; at the end no descriptor, no process and no file is left.
 */
#include "storm.h"

#include "check.h"
#include "child.h"
#include "dir.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* Kinds of end in the log, without the reason. */
#define ANSWERED (STORM_ENDED >> 4 | APH_ANSWERED)
#define REFUSED	 (STORM_ENDED >> 4 | APH_REFUSED)
#define LOST	 (STORM_ENDED >> 4 | APH_LOST)

#define CLIENTS 3 /* that are killed, beside one that never is */

static struct storm_log *the_log;
static struct rng rng;
static struct storm_process how;
static struct child service, clients[CLIENTS], veteran;
static unsigned service_kills, client_kills;

static void start_service(void)
{
	how = (struct storm_process){ the_log, rng_next(&rng) };
	child_start(&service, storm_service, &how);
	CHECK(child_hear(service.ctl, check_hang_ms(10000)) == 'r');
}

static void start_client(struct child *client)
{
	how = (struct storm_process){ the_log, rng_next(&rng) };
	child_start(client, storm_client, &how);
}

static void nap(uint32_t us)
{
	const struct timespec time = { .tv_nsec = (long)us * 1000 };

	nanosleep(&time, NULL);
}

static void kill_one(int services_too)
{
	uint32_t whom = rng_below(&rng, services_too ? CLIENTS + 3 : CLIENTS);

	if (whom < CLIENTS) {
		child_kill(&clients[whom]);
		client_kills++;
		start_client(&clients[whom]);
		return;
	}
	child_kill(&service);
	service_kills++;
	/* Sometimes the clients find nobody for a while. */
	if (rng_below(&rng, 4) == 0)
		nap(rng_below(&rng, 3000));
	start_service();
}

/* Nobody here breaks the protocol, whenever he dies. */
static void check_violations(void)
{
	struct aph_service_info *list;
	size_t n;

	CHECK_OK(aph_directory_list(&list, &n, aph_deadline_ms((uint64_t)check_ms(5000))));
	CHECK(n >= 1 && list[0].has_stats);
	for (size_t i = 0; i < n; i++)
		CHECK(list[i].violations == 0);
	free(list);
}

static void end_all(void)
{
	check_violations();
	the_log->stop = 1;
	for (int i = 0; i < CLIENTS; i++)
		CHECK(child_finish(&clients[i], check_hang_ms(10000)) == 0);
	CHECK(child_finish(&veteran, check_hang_ms(10000)) == 0);
	child_signal(&service, SIGTERM);
	CHECK(child_finish(&service, check_hang_ms(10000)) == 0);
}

/* Looks at the log once more, when nobody can write it any longer. */
static void check_log(void)
{
	uint64_t n = the_log->next_id, counts[16] = { 0 }, executed = 0, wrong = 0;

	for (uint64_t id = 0; id < n; id++) {
		unsigned end = the_log->calls[id].end, times = the_log->calls[id].executed;
		unsigned kind = end < STORM_ENDED ? end : end >> 4;
		unsigned least = kind == ANSWERED;
		unsigned most = kind != STORM_NOTHING && kind != REFUSED;

		counts[kind]++;
		executed += times;
		if (times >= least && times <= most)
			continue;
		fprintf(stderr, "call %llu ended as %s, %s and was executed %u times\n",
			(unsigned long long)id, aph_outcome_name((enum aph_outcome)(kind & 7)),
			aph_reason_name((enum aph_reason)(end & 15)), times);
		wrong++;
	}
	printf("%llu calls: %llu answered, %llu refused, %llu lost, %llu given up, %llu died with "
	       "their client; %llu executed\n",
	       (unsigned long long)n, (unsigned long long)counts[ANSWERED],
	       (unsigned long long)counts[REFUSED], (unsigned long long)counts[LOST],
	       (unsigned long long)counts[STORM_FREED], (unsigned long long)counts[STORM_BEGUN],
	       (unsigned long long)executed);
	CHECK(wrong == 0);
	/* The storm was one, and there was work in it. */
	CHECK(counts[ANSWERED] > service_kills + client_kills);
	CHECK(service_kills < 20 || counts[LOST] > 0);
	CHECK(the_log->closed > service_kills / 2);
}

/* What killed services have left goes away when the next one looks for the name. */
static void check_files(void)
{
	struct aph_channel *channel;
	struct aph_endpoint *ep;

	CHECK_OK(aph_endpoint_new(&ep, NULL));
	CHECK(aph_channel_open(&channel, ep, STORM_NAME, NULL) == -ENOENT);
	aph_endpoint_free(ep);
	dir_check_sockets(0);
	start_service();
	dir_check_sockets(1);
	child_signal(&service, SIGTERM);
	CHECK(child_finish(&service, check_hang_ms(10000)) == 0);
	dir_check_sockets(0);
}

int main(int argc, char **argv)
{
	unsigned kills = 2500;
	uint64_t seed = 0;
	uint64_t start = aph_time_ns();

	for (int i = 1; i + 1 < argc; i += 2) {
		if (strcmp(argv[i], "--seed") == 0)
			seed = strtoull(argv[i + 1], NULL, 0);
		else if (strcmp(argv[i], "--kills") == 0)
			kills = (unsigned)strtoul(argv[i + 1], NULL, 0);
	}
	if (check_long())
		kills *= 20;
	else if (check_slow())
		kills /= 2;
	rng.state = seed ? seed : check_seed();
	printf("kill_storm --seed %llu --kills %u\n", (unsigned long long)rng.state, kills);
	the_log = mmap(NULL, sizeof(*the_log), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(the_log != MAP_FAILED);
	dir_begin();
	start_service();
	for (int i = 0; i < CLIENTS; i++)
		start_client(&clients[i]);
	start_client(&veteran);
	while (client_kills + service_kills < kills) {
		nap(rng_below(&rng, 8000));
		kill_one(client_kills + service_kills > kills / 3);
	}
	end_all();
	check_log();
	check_files();
	dir_end();
	printf("%u services and %u clients killed in %.1f s\n", service_kills, client_kills,
	       (double)(aph_time_ns() - start) / 1e9);
	return 0;
}

/* SPDX-License-Identifier: MIT */
/*
 * Hostile clients in processes of their own that never stop: seeded random writes into everything
 * they share with the service, while an honest client's calls of all sizes are checked byte for
 * byte and against the clock.
 */
#include "hostile.h"

#include "pattern.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct victim victim;

struct attacker {
	uint64_t seed;
	int ms;
};

static void one_step(struct wire *wire, struct rng *rng)
{
	static const char ops[] = "edgGzbfarlhwpPtc";
	uint64_t value = rng_next(rng);
	struct aph_record record;
	int fds[70];

	switch (rng_below(rng, 16)) {
	case 0:
		atomic_store(wire_taken(wire), rng_below(rng, 3) ? wire->seen : (uint32_t)value);
		break;
	case 1:
		wire->words->client.wait = (uint32_t)value & 3;
		wire->words->client.want = (uint32_t)value >> 2 & 3;
		break;
	case 2:
		wire->words->revoked[(wire->sent + 1 + value % 3) % (2 * wire->welcome.depth)] =
			(uint8_t)(value >> 8);
		break;
	case 3:
		wire->words->reply_released[value % 8] = rng_next(rng);
		break;
	case 4:
		wire->map[rng_below(rng, (uint32_t)wire->size)] = (unsigned char)value;
		break;
	case 5:
		memset(wire_arena(wire, value & 1) + value % 60000, (int)value, 1000);
		break;
	case 6:
		for (int i = 0; i < 70; i++)
			fds[i] = STDERR_FILENO;
		wire_send(wire->sock, value & 64 ? "d" : "b", 1, fds, (size_t)(value % 70));
		break;
	case 7:
		wire_ring(wire);
		break;
	default:
		record = wire_record((enum aph_record_type)(value % 24	 ? 1 + value % 4
							    : value % 48 ? 9
									 : value),
				     APH_TAG(rng_below(rng, 40), rng_below(rng, 3)), NULL,
				     rng_below(rng, 42));
		record.data[0] = (uint8_t)ops[rng_below(rng, sizeof(ops) - 1)];
		for (int i = 1; i < 30; i++)
			record.data[i] = rng_below(rng, 2) ? 0 : (uint8_t)rng_next(rng);
		record.flags = (uint8_t)(rng_below(rng, 8) ? rng_below(rng, 2) : rng_next(rng));
		if (record.flags & APH_RECORD_ARENA) {
			record.off = rng_below(rng, 260) * 1024;
			record.len = rng_below(rng, 70000);
		}
		record.n_fds = (uint8_t)(rng_below(rng, 20) ? 0 : rng_next(rng));
		record.cpu = (uint8_t)value;
		wire_post(wire, record);
		wire->seen++;
		break;
	}
	if (rng_below(rng, 3) == 0)
		wire_ring(wire);
}

static int attack(int ctl, void *arg)
{
	const struct attacker *attacker = arg;
	struct rng rng = { .state = attacker->seed };
	uint64_t until = aph_deadline_ms((uint64_t)attacker->ms);
	unsigned steps = 0;
	struct wire wire;

	(void)ctl;
	while (aph_time_ns() < until) {
		if (!wire_open(&wire, victim.path, NULL)) {
			wire_close(&wire);
			continue;
		}
		for (steps = 0; steps < 400 && aph_time_ns() < until; steps++) {
			one_step(&wire, &rng);
			if (rng_below(&rng, 32) == 0 && wire_hung_up(wire.sock, 0))
				break;
			if (rng_below(&rng, 64) == 0)
				usleep(rng_below(&rng, 200));
		}
		wire_close(&wire);
	}
	return 0;
}

static void attackers(void **state)
{
	enum {
		N = 3
	};
	uint64_t seed = check_seed();
	int ms = check_long() ? 60000 : 4000;
	struct attacker how[N];
	struct child children[N];
	uint64_t until, rounds = 0;

	(void)state;
	for (unsigned flags = 0; flags < 2; flags++) {
		victim_start(&victim, flags ? APH_SERVICE_EVENTS | APH_SERVICE_RECEIPTS_NOW : 0);
		for (int i = 0; i < N; i++) {
			how[i] = (struct attacker){ seed + (uint64_t)i + 10 * flags, ms / 2 };
			child_start(&children[i], attack, &how[i]);
		}
		until = aph_deadline_ms((uint64_t)ms / 2);
		while (aph_time_ns() < until) {
			victim_check(&victim);
			client_put(victim.honest.ep, victim.honest.channel, rounds * 977 % 300000,
				   1);
			client_get(victim.honest.ep, victim.honest.channel, 'g',
				   rounds * 1009 % 300000, 2);
			rounds++;
		}
		for (int i = 0; i < N; i++)
			assert_int_equal(child_finish(&children[i], check_hang_ms(5000)), 0);
		assert_true(victim_violations() > 0);
		print_message("%llu rounds of honest calls, the slowest call took %llu us\n",
			      (unsigned long long)rounds,
			      (unsigned long long)victim.slowest_ns / 1000);
		victim_stop(&victim);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(attackers),
	};

	return suite_run("hostile random", tests, SUITE_LEN(tests), 40);
}

/* SPDX-License-Identifier: MIT */
#include "hostile.h"

#include <stdio.h>
#include <stdlib.h>

void victim_start(struct victim *victim, unsigned flags)
{
	struct service_config config = { .address = "victim",
					 .options.flags = flags,
					 .harmless = true };

	victim->slowest_ns = 0;
	service_start(&victim->service, SERVICE_PROCESS, &config);
	dir_only_socket(victim->path, sizeof(victim->path));
	client_open(&victim->honest, "victim");
	victim_check(victim);
}

void victim_check(struct victim *victim)
{
	struct client late;
	uint64_t took;

	for (int i = 0; i < 5; i++) {
		took = client_echo(victim->honest.channel);
		victim->slowest_ns = took > victim->slowest_ns ? took : victim->slowest_ns;
	}
	took = aph_time_ns();
	client_open(&late, "victim");
	client_echo(late.channel);
	client_close(&late);
	took = aph_time_ns() - took;
	victim->slowest_ns = took > victim->slowest_ns ? took : victim->slowest_ns;
	/* Wide, because the machine is shared; a service that is held up shows as much more. */
	CHECK(victim->slowest_ns < (uint64_t)check_hang_ms(400) * 1000000);
}

void victim_stop(struct victim *victim)
{
	victim_check(victim);
	client_quiet(victim->honest.ep, 1);
	client_close(&victim->honest);
	service_stop(&victim->service);
}

uint64_t victim_violations(void)
{
	struct aph_service_info *list;
	uint64_t violations;
	size_t n;

	CHECK_OK(aph_directory_list(&list, &n, aph_deadline_ms((uint64_t)check_ms(2000))));
	CHECK(n == 1 && list[0].has_stats);
	violations = list[0].violations;
	free(list);
	return violations;
}

void attack_must_end(struct victim *victim, attack_fn attack)
{
	uint64_t before = victim_violations();
	struct wire wire;

	assert_true(wire_open(&wire, victim->path, NULL));
	assert_true(wire_echo(&wire, 0, check_hang_ms(1000)));
	attack(&wire);
	wire_ring(&wire);
	assert_true(wire_hung_up(wire.sock, check_hang_ms(1000)));
	wire_close(&wire);
	victim_check(victim);
	assert_true(victim_violations() > before);
}

void attack_may_end(struct victim *victim, attack_fn attack)
{
	struct wire wire;

	assert_true(wire_open(&wire, victim->path, NULL));
	assert_true(wire_echo(&wire, 0, check_hang_ms(1000)));
	attack(&wire);
	wire_ring(&wire);
	victim_check(victim);
	wire_hung_up(wire.sock, 5);
	wire_close(&wire);
	victim_check(victim);
}

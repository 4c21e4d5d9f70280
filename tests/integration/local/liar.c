/* SPDX-License-Identifier: MIT */
#include "liar.h"

#include <fcntl.h>
#include <unistd.h>

struct liar liar;

void liar_start(void)
{
	assert_int_equal(aph_endpoint_new(&liar.decoy, NULL), 0);
	assert_int_equal(aph_service_open(NULL, liar.decoy, "liar", NULL), 0);
	liar.listener = wire_steal_listener();
	liar.pipe_reader = open("/dev/null", O_RDONLY | O_CLOEXEC);
	service_start_simple(&liar.honest_service, SERVICE_PROCESS, "honest");
	client_open(&liar.honest, "honest");
}

void liar_stop(void)
{
	for (int i = 0; i < 5; i++)
		client_echo(liar.honest.channel);
	client_quiet(liar.honest.ep, 1);
	client_close(&liar.honest);
	service_stop(&liar.honest_service);
	close(liar.listener);
	close(liar.pipe_reader);
	aph_endpoint_free(liar.decoy);
}

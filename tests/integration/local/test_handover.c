/* SPDX-License-Identifier: MIT */
/* A service hands its name and its idle channels over to a newcomer: no client notices. */
#include "suite.h"

/* A newcomer takes the name and the idle channels; a client that calls all the time never notices. */
static void a_newcomer_takes_over(void **state)
{
	struct service_config config = { .address = "relay",
					 .end_on_terminate = true,
					 .options.flags = APH_SERVICE_GIVE };
	struct service services[4];
	struct client client, other;
	uint32_t total = 0;

	(void)state;
	service_start(&services[0], SERVICE_PROCESS, &config);
	client_open(&client, "relay");
	for (int i = 1; i < 4; i++) {
		for (int k = 0; k < 20; k++)
			client_echo(client.channel);
		config.options.flags = APH_SERVICE_GIVE | APH_SERVICE_TAKE | APH_SERVICE_TERMINATE;
		service_start(&services[i], SERVICE_PROCESS, &config);
		for (int k = 0; k < 20; k++)
			client_echo(client.channel);
		client_open(&other, "relay");
		client_echo(other.channel);
		client_close(&other);
	}
	client_quiet(client.ep, 10);
	assert_true(aph_channel_is_open(client.channel));
	for (int i = 0; i < 4; i++)
		total += services[i].seen->requests;
	assert_int_equal(total, 3 * 41);
	assert_true(services[3].seen->requests > 0);
	for (int i = 0; i < 3; i++)
		service_gone(&services[i], 0);
	client_close(&client);
	service_stop(&services[3]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(a_newcomer_takes_over),
	};

	return suite_run("handover", tests, SUITE_LEN(tests), 30);
}

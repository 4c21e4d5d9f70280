/* SPDX-License-Identifier: MIT */
/* Tunables, and what of them becomes the engine's configuration. */
#include "socket.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
	const char *name;
	unsigned value, min, max;
} tunables[] = {
	{ "max_backlog", 10, 4, 31 },
	{ "soft_ack_delay", 100, 1, 1000 },
	{ "idle_ack_delay", 20, 1, 1000 },
	{ "idle_conn_expiry", 120000, 1, UINT32_MAX },
	{ "idle_conn_fast_expiry", 2000, 1, UINT32_MAX }, /* beyond reap_client_conns */
	{ "reap_client_conns", 900, 1, 65535 },
	{ "inject_rx_delay", 0, 0, 500 }, /* for tests */
	{ "rx_window_size", 255, 1, 255 },
	{ "rx_mtu", 1444, 500, 65535 },
	{ "rx_jumbo_max", 46, 1, 46 },
	{ "busy_ends", 1, 0, 1 },	/* RXRPC_BUSY, rather than trying again */
	{ "implicit_length", 0, 0, 1 }, /* a transport_len of 0 stands for the right one */
};

#define N_TUNABLES (sizeof(tunables) / sizeof(tunables[0]))

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void read_environment(void)
{
	char variable[40], *end;
	const char *text;
	unsigned long value;
	size_t i, j;

	for (i = 0; i < N_TUNABLES; i++) {
		(void)snprintf(variable, sizeof(variable), "AFRXRPC_%s", tunables[i].name);
		for (j = 0; variable[j]; j++)
			variable[j] = (char)toupper((unsigned char)variable[j]);
		text = getenv(variable);
		if (!text || !*text)
			continue;
		value = strtoul(text, &end, 10);
		if (*end == '\0' && value >= tunables[i].min && value <= tunables[i].max)
			tunables[i].value = (unsigned)value;
		else
			(void)fprintf(stderr, "%s: has to be a number from %u to %u, is ignored\n",
				      variable, tunables[i].min, tunables[i].max);
	}
}

/* Under the sockets' lock. N_TUNABLES: there is none of this name. */
static size_t find(const char *name)
{
	size_t i;

	(void)pthread_once(&once, read_environment);
	for (i = 0; i < N_TUNABLES; i++)
		if (strcmp(tunables[i].name, name) == 0)
			break;
	return i;
}

unsigned aph_afrx_tunable(const char *name)
{
	size_t i = find(name);

	return i < N_TUNABLES ? tunables[i].value : 0;
}

APH_API int aph_rxrpc_set_tunable(const char *name, unsigned value)
{
	size_t i;
	int r = 0;

	aph_afrx_enter();
	i = find(name);
	if (i == N_TUNABLES)
		r = -ENOENT;
	else if (value < tunables[i].min || value > tunables[i].max)
		r = -EINVAL;
	else
		tunables[i].value = value;
	aph_afrx_leave();
	return (int)aph_afrx_result(r);
}

APH_API int aph_rxrpc_get_tunable(const char *name, unsigned *value)
{
	size_t i;
	int r;

	aph_afrx_enter();
	i = find(name);
	r = i < N_TUNABLES ? 0 : -ENOENT;
	if (r == 0)
		*value = tunables[i].value;
	aph_afrx_leave();
	return (int)aph_afrx_result(r);
}

void aph_afrx_tune(struct aph_rx_config *config)
{
	unsigned mtu = aph_afrx_tunable("rx_mtu");

	config->send_max = APH_AFRX_SEND_MAX;
	config->window = aph_afrx_tunable("rx_window_size");
	if (mtu != 1444)
		config->mtu = mtu;
	config->soft_ack_delay_ms = aph_afrx_tunable("soft_ack_delay");
	config->final_ack_delay_ms = aph_afrx_tunable("idle_ack_delay");
	config->idle_client_ms = aph_afrx_tunable("idle_conn_expiry");
	config->crowd = aph_afrx_tunable("reap_client_conns");
	config->crowd_idle_ms = aph_afrx_tunable("idle_conn_fast_expiry");
	config->receive_delay_ms = aph_afrx_tunable("inject_rx_delay");
	if (aph_afrx_tunable("rx_jumbo_max") == 1)
		config->flags |= APH_RX_NO_JUMBO;
	if (aph_afrx_tunable("busy_ends"))
		config->flags |= APH_RX_BUSY_ENDS;
}

/* SPDX-License-Identifier: MIT */
/*
 * Scenarios with engines at both ends. Each has three parts: a time with faults, in which the
 * contract has to hold whatever happens; a time without, at whose end all calls must have ended;
 * and calls after that, which must all be DONE.
 */
#include "scenario.h"

#include "rx/engine.h"

#include <stdlib.h>
#include <string.h>

#define DRAIN_NS  (200 * SECOND)
#define CALM_NS	  (60 * SECOND)
#define NARROW_NS (20 * SECOND)

struct tally tally;

struct stage {
	struct world *world;
	struct load load;
	struct host hosts[LOAD_HOSTS_MAX];
	unsigned n_hosts;
	struct rule rule;
	uint64_t until; /* the faults go on */
	uint16_t next_port;
};

static uint32_t below(struct world *world, uint32_t n)
{
	return rng_below(&world->rng, n);
}

void tally_load(const struct load *load)
{
	tally.n_calls += load->n_calls;
	tally.n_executed += load->n_executed;
	tally.n_done += load->n_outcomes[APH_RX_DONE];
	for (unsigned i = 0; i < LOAD_OUTCOMES; i++)
		tally.n_outcomes[i] += load->n_outcomes[i];
}

/* -- stages ------------------------------------------------------------------------------------ */

static void draw_config(struct stage *stage, struct host *host)
{
	struct world *world = stage->world;

	host->config.congestion = (enum aph_rx_congestion)below(world, 3);
	if (below(world, 3) == 0)
		host->config.flags |= APH_RX_NO_JUMBO;
	if (below(world, 3) == 0)
		host->config.flags |= APH_RX_NO_EXTENSION;
	if (below(world, 2) == 0)
		host->config.flags |= APH_RX_SEGMENTS;
	if (below(world, 4) == 0)
		host->config.flags |= APH_RX_NO_PMTU_PROBES;
	if (below(world, 3) == 0)
		host->config.window = 2 + (uint32_t)world_skewed(world, 2000);
	if (below(world, 4) == 0)
		host->config.send_max = 4096 + below(world, 100000);
	host->no_gro = below(world, 2);
	host->copies = below(world, 2);
	host->cuts = below(world, 2) ? below(world, 300000) : 0;
	host->slack_ns = below(world, 2) ? 0 : below(world, 4000) * US;
}

static void stage_begin(struct stage *stage, struct world *world,
			const struct load_options *options)
{
	memset(stage, 0, sizeof(*stage));
	stage->world = world;
	stage->rule.delay_ns = world_skewed(world, 100 * MS);
	stage->next_port = 20000;
	load_init(&stage->load, world, options);
	stage->load.options.pushes = below(world, 2) ? below(world, 500000) : 0;
}

static struct host *stage_host(struct stage *stage, const char *name, bool is_client,
			       bool is_server)
{
	struct host *host = &stage->hosts[stage->n_hosts++];
	struct aph_rx_address address = below(stage->world, 2) ? address_v4(stage->n_hosts, 7000)
							       : address_v6(stage->n_hosts, 7000);

	host_init(host, stage->world, name, &address);
	draw_config(stage, host);
	load_add(&stage->load, host, is_client, is_server);
	return host;
}

static void stage_start(struct stage *stage)
{
	world_rule(stage->world, &stage->rule);
	for (unsigned i = 0; i < stage->n_hosts; i++)
		host_start(&stage->hosts[i]);
}

static void calm(struct stage *stage)
{
	struct rule rule = { .delay_ns = stage->rule.delay_ns };

	world_rule(stage->world, &rule);
	for (unsigned i = 0; i < stage->n_hosts; i++) {
		stage->hosts[i].alloc_fails = 0;
		if (!stage->hosts[i].rx)
			host_start(&stage->hosts[i]);
	}
}

/* Faults are over: all must end, and what is begun now must be done. */
static void stage_finish(struct stage *stage)
{
	struct load *load = &stage->load;
	uint64_t failed;

	calm(stage);
	load_drain(load, DRAIN_NS);
	/* Connections that have not recovered yet may cost the first calls their answer. */
	world_run(stage->world, stage->world->now + (load->options.may_move ? 15 : 1) * SECOND);
	load->options.slow_reader = load->options.slow_service = 0;
	load->options.client_aborts = load->options.client_frees = 0;
	load->options.service_aborts = load->options.service_frees = 0;
	load->options.deadlines = load->options.no_wait = load->options.credit = 0;
	failed = load->n_calm_failed;
	load_begin(load, 20);
	load_drain(load, CALM_NS);
	if (load->n_calm_failed != failed && !load->options.forged)
		world_fail(stage->world, "%llu of the calls after all faults were not done",
			   (unsigned long long)(load->n_calm_failed - failed));
	load_close(load);
	tally_load(load);
	tally.virtual_seconds += (double)(stage->world->now / MS) / 1e3 - 1000;
	load_deinit(load);
}

static void run_load(struct stage *stage, size_t n_calls, uint64_t ns)
{
	stage->until = stage->world->now + ns;
	load_begin(&stage->load, n_calls);
	while (stage->world->now < stage->until &&
	       (stage->load.n_open > 0 || stage->load.n_calls < stage->load.calls_max))
		world_run(stage->world, stage->world->now + 50 * MS);
	stage->load.calls_max = stage->load.n_calls;
	stage->until = 0;
}

/* -- clean links ------------------------------------------------------------------------------- */

static void run_plain(struct world *world)
{
	const struct load_options options = { .request_max = 2000,
					      .reply_max = 2000,
					      .at_once = 16 };
	struct stage stage;

	stage_begin(&stage, world, &options);
	stage.rule.delay_ns = 50 * US;
	stage_host(&stage, "client", true, false);
	stage_host(&stage, "server", false, true);
	for (unsigned i = 0; i < 2; i++) {
		stage.hosts[i].slack_ns = 0;
		stage.hosts[i].config.send_max = 0;
		stage.hosts[i].config.window = 0;
	}
	stage_start(&stage);
	load_begin(&stage.load, 20000);
	load_drain(&stage.load, 500 * SECOND);
	if (stage.load.n_outcomes[APH_RX_DONE] != 20000)
		world_fail(world, "calls failed on a clean link");
	stage_finish(&stage);
}

static void run_bulk(struct world *world)
{
	const struct load_options options = { .request_max = 6000000,
					      .reply_max = 6000000,
					      .chunk_max = 65536,
					      .at_once = 6,
					      .slow_reader = 100000,
					      .slow_service = 100000 };
	struct stage stage;

	stage_begin(&stage, world, &options);
	stage.rule.rate = below(world, 2) ? 0 : 1000000 + world_skewed(world, 10000000000);
	if (stage.rule.rate)
		stage.rule.queue = 20000 + (uint32_t)world_skewed(world, 10000000);
	if (stage.rule.rate && stage.rule.rate < 50000000)
		stage.load.options.request_max = stage.load.options.reply_max = 300000;
	stage_host(&stage, "client", true, below(world, 2));
	stage_host(&stage, "server", true, true);
	for (unsigned i = 0; i < 2; i++)
		if (stage.hosts[i].config.window > 0 && stage.hosts[i].config.window < 100)
			stage.hosts[i].config.window = 100;
	stage_start(&stage);
	run_load(&stage, 60, 300 * SECOND);
	stage_finish(&stage);
}

/* -- links that lose --------------------------------------------------------------------------- */

static const struct load_options mixed = { .request_max = 60000,
					   .reply_max = 60000,
					   .at_once = 24,
					   .pause_max_us = 20000,
					   .slow_reader = 50000,
					   .slow_service = 20000,
					   .exclusive = 20000,
					   .n_services = 3 };

static void draw_loss(struct stage *stage)
{
	struct world *world = stage->world;
	struct rule *rule = &stage->rule;

	if (below(world, 2))
		rule->loss = below(world, 300001);
	if (below(world, 2))
		rule->duplicate = below(world, 200000);
	if (below(world, 2))
		rule->reorder = below(world, 300000);
	if (below(world, 2))
		rule->jitter_ns = world_skewed(world, 50 * MS);
	if (below(world, 4) == 0) {
		rule->burst_begin = 1 + below(world, 20000);
		rule->burst_end = 50000 + below(world, 500000);
	}
	if (below(world, 4) == 0)
		rule->mask = rng_next(&world->rng) & rng_next(&world->rng);
	if (below(world, 4) == 0) {
		rule->rate = 1000000 + world_skewed(world, 1000000000);
		rule->queue = 3000 + (uint32_t)world_skewed(world, 1000000);
	}
	/* Damaged ones whose checksum shows it. */
	if (below(world, 2))
		rule->corrupt = below(world, 50000);
}

static void two_hosts(struct stage *stage)
{
	stage_host(stage, "client", true, below(stage->world, 2));
	stage_host(stage, "server", below(stage->world, 2), true);
}

static void run_lossy(struct world *world)
{
	struct stage stage;

	stage_begin(&stage, world, &mixed);
	draw_loss(&stage);
	two_hosts(&stage);
	stage_start(&stage);
	run_load(&stage, 300, 60 * SECOND);
	/* Losing packets can make a peer look dead, at either end, and nothing else. */
	if (stage.load.n_outcomes[APH_RX_ABORTED] >
		    stage.load.n_service_outcomes[APH_RX_TIMED_OUT] + stage.load.n_dead_unheard ||
	    stage.load.n_outcomes[APH_RX_DONE] + stage.load.n_outcomes[APH_RX_TIMED_OUT] +
			    stage.load.n_outcomes[APH_RX_ABORTED] + stage.load.n_open !=
		    stage.load.n_calls)
		world_fail(world, "a call ended as no loss can make it end");
	stage_finish(&stage);
}

/* -- what programs do -------------------------------------------------------------------------- */

static void run_cancel(struct world *world)
{
	struct load_options options = mixed;
	struct stage stage;

	options.client_aborts = options.client_frees = 150000;
	options.service_aborts = options.service_frees = 150000;
	options.deadlines = 100000;
	options.no_wait = 50000;
	options.connections_max = below(world, 5);
	stage_begin(&stage, world, &options);
	if (below(world, 2))
		draw_loss(&stage);
	two_hosts(&stage);
	stage_start(&stage);
	run_load(&stage, 500, 60 * SECOND);
	stage_finish(&stage);
}

static void run_busy(struct world *world)
{
	struct load_options options = mixed;
	struct stage stage;

	options.credit = 1 + below(world, 10);
	options.request_max = options.reply_max = 5000;
	stage_begin(&stage, world, &options);
	if (below(world, 2))
		draw_loss(&stage);
	two_hosts(&stage);
	stage_start(&stage);
	run_load(&stage, 300, 60 * SECOND);
	stage_finish(&stage);
}

static void run_many(struct world *world)
{
	static const char *const names[] = { "a", "b", "c", "d", "e", "f" };
	struct load_options options = mixed;
	struct stage stage;

	options.at_once = 100;
	options.exclusive = 200000;
	options.upgrades = below(world, 2);
	options.upgrade = 500000;
	options.n_services = 5;
	stage_begin(&stage, world, &options);
	if (below(world, 2))
		draw_loss(&stage);
	for (unsigned i = 0; i < 6; i++)
		stage_host(&stage, names[i], i < 4, i >= 2);
	stage_start(&stage);
	run_load(&stage, 1000, 60 * SECOND);
	stage_finish(&stage);
}

/* -- faults that come and go ------------------------------------------------------------------- */

static bool goes_on(const struct stage *stage)
{
	return stage->world->now < stage->until;
}

static void again(struct stage *stage, void (*fault)(void *arg), uint32_t max_ms)
{
	world_at(stage->world, stage->world->now + (1 + below(stage->world, max_ms)) * MS, fault,
		 stage);
}

static void change_mtu(void *arg)
{
	struct stage *stage = arg;

	if (!goes_on(stage))
		return;
	stage->rule.mtu = 600 + (uint32_t)world_skewed(stage->world, 15000);
	stage->rule.mtu_mode = (enum mtu_mode)below(stage->world, 4);
	world_rule(stage->world, &stage->rule);
	again(stage, change_mtu, 3000);
}

static void run_mtu(struct world *world)
{
	struct stage stage;

	stage_begin(&stage, world, &mixed);
	if (below(world, 2))
		draw_loss(&stage);
	two_hosts(&stage);
	for (unsigned i = 0; i < 2; i++)
		if (below(world, 2))
			stage.hosts[i].config.mtu = 1444 + below(world, 15000);
	stage_start(&stage);
	stage.until = UINT64_MAX;
	change_mtu(&stage);
	run_load(&stage, 400, 60 * SECOND);
	stage_finish(&stage);
}

/*
 * A path that becomes narrow without a word, and stays so: all calls are done all the same, those
 * too that had cut their packets before. Over IPv6 nobody can help those, and it is narrow from the
 * beginning.
 */
static void run_narrow(struct world *world)
{
	const struct load_options options = { .request_max = 300000,
					      .reply_max = 300000,
					      .chunk_max = 20000,
					      .at_once = 4,
					      .pause_max_us = 1000 };
	struct stage stage;
	bool is_v6;

	stage_begin(&stage, world, &options);
	stage.rule.delay_ns = world_skewed(world, 20 * MS);
	stage_host(&stage, "client", true, false);
	stage_host(&stage, "server", false, true);
	for (unsigned i = 0; i < 2; i++)
		stage.hosts[i].config.flags &= ~APH_RX_NO_PMTU_PROBES;
	is_v6 = stage.hosts[0].node.address.family == AF_INET6 ||
		stage.hosts[1].node.address.family == AF_INET6;
	stage_start(&stage);
	stage.rule.mtu = is_v6 ? 1232 + below(world, 220) : 500 + below(world, 940);
	stage.rule.mtu_mode = MTU_BLACKHOLE;
	if (is_v6 || below(world, 2))
		world_rule(world, &stage.rule);
	run_load(&stage, 10, 60 * SECOND);
	world_rule(world, &stage.rule);
	load_begin(&stage.load, 30);
	load_drain(&stage.load, NARROW_NS);
	if (stage.load.n_outcomes[APH_RX_DONE] != stage.load.n_calls)
		world_fail(world, "calls failed because the path has become narrow");
	stage_finish(&stage);
}

/* What the path carries is found out and used, whatever it says about what it does not. */
static void run_search(struct world *world)
{
	const struct load_options options = { .request_max = 300000,
					      .reply_max = 300000,
					      .chunk_max = 300000,
					      .at_once = 2,
					      .pause_max_us = 300000 };
	struct stage stage;
	uint32_t want;

	stage_begin(&stage, world, &options);
	stage.rule.delay_ns = 2 * MS + world_skewed(world, 20 * MS);
	stage.rule.mtu = 1440 + (uint32_t)world_skewed(world, 60000);
	stage.rule.mtu_mode = (enum mtu_mode)below(world, 4);
	stage_host(&stage, "client", true, false);
	stage_host(&stage, "server", false, true);
	for (unsigned i = 0; i < 2; i++) {
		stage.hosts[i].config.flags = 0;
		stage.hosts[i].config.window = stage.hosts[i].config.send_max = 0;
	}
	stage_start(&stage);
	run_load(&stage, 100000, 60 * SECOND);
	want = 1440 + (stage.rule.mtu - 1440) / 1416 * 1416;
	for (unsigned i = 0; i < 2; i++)
		if (world_link(world, &stage.hosts[i].node, &stage.hosts[1 - i].node)->largest <
		    want)
			world_fail(world, "the path carries %u and that was not found out", want);
	stage_finish(&stage);
}

static void start_again(void *arg)
{
	struct host *host = arg;

	if (!host->rx)
		host_start(host);
}

static void restart(void *arg)
{
	struct stage *stage = arg;
	struct host *host = &stage->hosts[below(stage->world, stage->n_hosts)];

	if (!goes_on(stage))
		return;
	if (host->rx) {
		world_say(stage->world, "%s crashes", host->node.name);
		load_forget(&stage->load, host);
		host_stop(host);
		world_at(stage->world, stage->world->now + world_skewed(stage->world, 3 * SECOND),
			 start_again, host);
	}
	again(stage, restart, 4000);
}

static void run_restart(struct world *world)
{
	struct stage stage;

	stage_begin(&stage, world, &mixed);
	if (below(world, 2))
		draw_loss(&stage);
	two_hosts(&stage);
	stage_host(&stage, "third", true, true);
	stage_start(&stage);
	stage.until = UINT64_MAX;
	again(&stage, restart, 4000);
	run_load(&stage, 400, 60 * SECOND);
	stage_finish(&stage);
}

/* Whether the service has heard of the end of all the connection's calls, too. */
static bool is_idle(struct stage *stage, const struct aph_rx_conn *conn)
{
	const struct aph_rx_header header = { .epoch = conn->epoch, .cid = conn->cid };

	for (unsigned i = 0; i < stage->n_hosts; i++) {
		const struct aph_rx_conn *other =
			aph_rx_conn_find_elsewhere(stage->hosts[i].rx, &header);

		if (other && other->n_calls > 0)
			return false;
	}
	return conn->n_calls == 0 && !aph_rx_conn_owes(conn);
}

#define QUARTER (UINT32_C(1) << 30)

/*
 * A quarter of a long life goes by: soon its serials change their sign or begin anew, or it has no
 * calls left.
 */
static void grow_old(struct stage *stage, struct aph_rx_conn *conn)
{
	uint32_t end = conn->serial | (QUARTER - 1);

	if (!conn->serial || end - conn->serial < QUARTER / 2 || !is_idle(stage, conn))
		return;
	conn->serial = end - below(stage->world, 400);
	for (unsigned i = 0; i < 4 && conn->is_client; i++)
		if (conn->channels[i].call_number < QUARTER && below(stage->world, 2))
			conn->channels[i].call_number = INT32_MAX - below(stage->world, 8);
}

static void grow_all_old(struct stage *stage, const struct aph_rx_table *table)
{
	for (uint32_t i = 0; i < table->n_heads; i++)
		for (struct aph_rx_node *node = table->heads[i]; node; node = node->next)
			grow_old(stage, aph_container(node, struct aph_rx_conn, node));
}

static void years(void *arg)
{
	struct stage *stage = arg;

	if (!goes_on(stage))
		return;
	for (unsigned i = 0; i < stage->n_hosts; i++) {
		grow_all_old(stage, &stage->hosts[i].rx->client_conns);
		grow_all_old(stage, &stage->hosts[i].rx->service_conns);
	}
	again(stage, years, 100);
}

static void run_years(struct world *world)
{
	struct load_options options = mixed;
	struct stage stage;

	/* Few at once, so that connections are idle now and then. */
	options.at_once = 1 + below(world, 12);
	options.connections_max = 1 + below(world, 4);
	stage_begin(&stage, world, &options);
	if (below(world, 2))
		draw_loss(&stage);
	two_hosts(&stage);
	stage_start(&stage);
	stage.until = UINT64_MAX;
	years(&stage);
	run_load(&stage, 600, 60 * SECOND);
	stage_finish(&stage);
}

static void rebind(void *arg)
{
	struct stage *stage = arg;
	struct host *host = &stage->hosts[0];

	if (!goes_on(stage))
		return;
	host->node.address = below(stage->world, 2) ? address_v4(1, ++stage->next_port)
						    : address_v4(100 + ++stage->next_port, 7000);
	world_say(stage->world, "%s has another address", host->node.name);
	again(stage, rebind, 5000);
}

static void run_rebind(struct world *world)
{
	struct load_options options = mixed;
	struct stage stage;

	options.may_move = true;
	stage_begin(&stage, world, &options);
	if (below(world, 2))
		draw_loss(&stage);
	stage_host(&stage, "client", true, false);
	stage_host(&stage, "server", false, true);
	stage.hosts[0].node.address = address_v4(1, 7000);
	stage.hosts[1].node.address = address_v4(2, 7000);
	stage_start(&stage);
	stage.until = UINT64_MAX;
	again(&stage, rebind, 5000);
	run_load(&stage, 400, 60 * SECOND);
	stage_finish(&stage);
}

static void jump(void *arg)
{
	struct stage *stage = arg;
	struct host *host = &stage->hosts[below(stage->world, stage->n_hosts)];

	if (!goes_on(stage))
		return;
	host->clock_ahead_ns += world_skewed(stage->world, 3600 * SECOND);
	world_say(stage->world, "%s: clock jumps", host->node.name);
	world_set_timer(&host->node, stage->world->now);
	again(stage, jump, 5000);
}

static void run_clock(struct world *world)
{
	struct stage stage;

	stage_begin(&stage, world, &mixed);
	if (below(world, 2))
		draw_loss(&stage);
	two_hosts(&stage);
	stage_start(&stage);
	stage.until = UINT64_MAX;
	again(&stage, jump, 5000);
	run_load(&stage, 400, 60 * SECOND);
	stage_finish(&stage);
}

static void run_memory(struct world *world)
{
	struct load_options options = mixed;
	struct stage stage;

	options.client_aborts = options.service_frees = 20000;
	stage_begin(&stage, world, &options);
	if (below(world, 2))
		draw_loss(&stage);
	two_hosts(&stage);
	for (unsigned i = 0; i < 2; i++)
		stage.hosts[i].alloc_fails = below(world, 2) ? 1 + below(world, 300000) : 0;
	stage_start(&stage);
	run_load(&stage, 400, 60 * SECOND);
	stage_finish(&stage);
}

static void run_corrupt(struct world *world)
{
	struct load_options options = mixed;
	struct stage stage;

	options.forged = true;
	stage_begin(&stage, world, &options);
	draw_loss(&stage);
	stage.rule.corrupt = 1 + below(world, 200000);
	stage.rule.truncate = below(world, 100000);
	stage.rule.no_checksum = true;
	two_hosts(&stage);
	for (unsigned i = 0; i < 2; i++)
		stage.hosts[i].watch.hostile = true;
	stage_start(&stage);
	run_load(&stage, 400, 60 * SECOND);
	stage_finish(&stage);
}

/* Whatever there is, together. */
#define PIECES_MAX 8000 /* of a body */

static void run_swarm(struct world *world)
{
	static const char *const names[] = { "a", "b", "c", "d" };
	struct load_options options = mixed;
	struct stage stage;

	options.request_max = options.reply_max = 1 + (uint32_t)world_skewed(world, 1000000);
	options.chunk_max = 1 + (uint32_t)world_skewed(world, 65536);
	options.client_aborts = below(world, 100000);
	options.client_frees = below(world, 100000);
	options.service_aborts = below(world, 100000);
	options.service_frees = below(world, 100000);
	options.deadlines = below(world, 100000);
	options.credit = below(world, 4) ? 0 : 1 + below(world, 20);
	options.connections_max = below(world, 6);
	stage_begin(&stage, world, &options);
	/*
	 * Where each piece may be a packet, through whatever window, a body of very many takes more
	 * than our time.
	 */
	if (stage.load.options.pushes && options.chunk_max < options.request_max / PIECES_MAX)
		stage.load.options.request_max = stage.load.options.reply_max =
			options.chunk_max * PIECES_MAX;
	draw_loss(&stage);
	for (unsigned i = 0; i < 4; i++) {
		stage_host(&stage, names[i], i<3, i> 0);
		stage.hosts[i].alloc_fails = below(world, 4) ? 0 : 1 + below(world, 50000);
	}
	stage_start(&stage);
	stage.until = UINT64_MAX;
	if (below(world, 2))
		change_mtu(&stage);
	if (below(world, 2))
		again(&stage, restart, 4000);
	if (below(world, 2))
		again(&stage, jump, 5000);
	run_load(&stage, 300, 40 * SECOND);
	stage_finish(&stage);
}

const struct scenario scenarios[] = {
	{ "plain", "small calls on a clean link", run_plain, false },
	{ "bulk", "long bodies on clean links of all rates", run_bulk, false },
	{ "lossy", "loss to 30%, duplicates, reordering, jitter, bursts, small queues", run_lossy,
	  false },
	{ "cancel", "both ends abort, free and set time limits", run_cancel, false },
	{ "busy", "services whose credit runs out", run_busy, false },
	{ "many", "six hosts, five services, IPv4 and IPv6, upgrades", run_many, false },
	{ "mtu", "the link's MTU changes", run_mtu, false },
	{ "narrow", "the link's MTU falls without a word, for good", run_narrow, false },
	{ "search", "a path carries more than all must", run_search, false },
	{ "restart", "hosts crash and start again", run_restart, false },
	{ "years", "connections that run out of numbers", run_years, false },
	{ "rebind", "a client's address changes", run_rebind, false },
	{ "clock", "clocks jump ahead", run_clock, false },
	{ "memory", "allocations fail", run_memory, false },
	{ "corrupt", "damaged datagrams reach the engines", run_corrupt, false },
	{ "swarm", "all of it together", run_swarm, false },
	{ "flood", "packets from addresses that are not the sender's", scenario_flood, false },
	{ "stock-server", "calls to models of OpenAFS and Linux", scenario_stock_server, false },
	{ "stock-client", "calls from models of OpenAFS and Linux", scenario_stock_client, false },
	{ "link", "1 Gbit/s, 50 ms, a buffer of one bandwidth-delay product", scenario_link_full,
	  true },
	{ "link-quarter", "the same with a quarter of the buffer", scenario_link_quarter, true },
	{ "link-loss", "the same with 0.1% random loss", scenario_link_loss, true },
};
const unsigned n_scenarios = sizeof(scenarios) / sizeof(scenarios[0]);

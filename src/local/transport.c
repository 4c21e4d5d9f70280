/* SPDX-License-Identifier: MIT */
/*
 * The local transport's instance in an endpoint: which rings are looked at, in which order, and how
 * it falls asleep without missing a bell (docs/spec/local-transport.md has the argument).
 */
#include "base/barrier.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/time.h"
#include "local/local.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>

#define BURST_MAX    8u	      /* records of one channel before the next has its turn */
#define WINDOW_TICKS 3600000u /* one or two milliseconds */
#define QUOTA_LEAST  16u      /* fewer requests in a window say nothing */
#define QUOTA_SPARE  40u      /* what a channel may have above the others: a fortieth */
#define SLOWEST	     8u	      /* who gets less than an eighth is not slow but thinks */
/* 1 to 4 ms: a channel without a record for so long has to ring. */
#define STALE_TICKS	    4000000u
#define LOOKS_WITHOUT_CLOCK 64 /* one to two microseconds */
#define LOOKS_PER_CLOCK	    16
#define GIVE_WAY_TICKS	    20000u /* 5 to 20 us */
/* In a crowd, before yielding to it, if the peer runs on another CPU: */
#define LOOKS_FOR_REPLY	  40 /* a microsecond: less than two switches cost */
#define LOOKS_FOR_REQUEST 10
#define STREAK_MAX	  16u /* calls in a row without yielding */

static struct aph_local *of(struct aph_transport *transport)
{
	return aph_container(transport, struct aph_local, base);
}

static struct aph_local_channel *scanned(struct aph_list *link)
{
	return aph_container(link, struct aph_local_channel, scan_link);
}

/* -- polling ----------------------------------------------------------------------------------- */

static bool end_doomed(struct aph_local *local)
{
	bool any = false;

	while (!aph_list_empty(&local->doomed)) {
		struct aph_local_channel *lc =
			aph_container(local->doomed.next, struct aph_local_channel, doomed_link);

		aph_list_remove(&lc->doomed_link);
		aph_channel_end(&lc->base, lc->doom);
		any = true;
	}
	return any;
}

static bool unblock(struct aph_local_channel *lc)
{
	if (!aph_local_has_room(lc))
		return false;
	aph_local_unblock(lc);
	return true;
}

static bool poll_clients(struct aph_local *local)
{
	struct aph_list *pos, *tmp;
	bool any = false;

	aph_list_for_each(pos, tmp, &local->active) {
		struct aph_local_channel *lc = scanned(pos);

		any |= aph_local_take_replies(lc);
		any |= unblock(lc);
	}
	return any;
}

/* -- fairness ---------------------------------------------------------------------------------- */

/*
 * In a crowd the scheduler, not the ring, decides who calls how often: whoever shares a CPU with
 * nobody gets more turns. So every one or two milliseconds are a window, and nobody gets far more
 * requests through in it than those got in the last one who call as fast as they can.
 */
static bool is_crowded(const struct aph_local *local)
{
	return local->n_scan + 1 > local->wake.n_cpus;
}

/* Its client waits for an answer, or for a CPU to read one. */
static bool is_waiting(const struct aph_local_channel *lc)
{
	return aph_ring_ready(&lc->in) || atomic_load(lc->out.shared_taken) != lc->out.next;
}

/*
 * Whether it called as fast as it could, while the busiest channel got `most` requests through.
 * Whoever got far less may have had something else to do; not so if it waits now, and for the CPU
 * that we are using.
 */
static bool competes(const struct aph_local_channel *lc, uint32_t most, uint8_t cpu)
{
	if (lc->window_count >= most / 2)
		return true;
	return lc->window_count >= most / SLOWEST && lc->peer_cpu == cpu && is_waiting(lc);
}

static void open_window(struct aph_local *local)
{
	uint32_t most = 0, least = UINT32_MAX, n = 0;
	uint8_t cpu = (uint8_t)aph_cpu();
	struct aph_list *pos, *tmp;
	uint64_t sum = 0, fair;

	aph_list_for_each(pos, tmp, &local->scan) {
		if (scanned(pos)->window_count > most)
			most = scanned(pos)->window_count;
	}
	aph_list_for_each(pos, tmp, &local->scan) {
		struct aph_local_channel *lc = scanned(pos);

		lc->competes = competes(lc, most, cpu);
		if (lc->competes) {
			sum += lc->window_count;
			if (lc->window_count < least)
				least = lc->window_count;
			n++;
		}
		lc->window_count = 0;
	}
	local->window_began = local->base.ep->ticks;
	local->quota = UINT32_MAX;
	if (most < QUOTA_LEAST || n < 2 || !is_crowded(local))
		return;
	fair = (sum / n + least) / 2;
	local->quota = (uint32_t)(fair + fair / QUOTA_SPARE);
}

/* It has had its share of this window. */
static bool has_had_enough(const struct aph_local *local, const struct aph_local_channel *lc)
{
	return lc->window_count >= local->quota;
}

/* The window is over early: those that wait wait for nobody. */
static bool all_have_had_enough(struct aph_local *local)
{
	struct aph_list *pos, *tmp;

	if (local->quota == UINT32_MAX)
		return false;
	aph_list_for_each(pos, tmp, &local->scan) {
		if (scanned(pos)->competes && !has_had_enough(local, scanned(pos)))
			return false;
	}
	return true;
}

/* Takes records of one channel until one of them is an event. */
static bool poll_service(struct aph_local_channel *lc, bool requests)
{
	struct aph_endpoint *ep = lc->base.ep;
	bool any = unblock(lc);

	requests = requests && !has_had_enough(lc->local, lc);
	while (lc->burst < BURST_MAX && aph_local_take(lc, requests)) {
		lc->burst++;
		lc->window_count++;
		any = true;
		if (requests && !aph_list_empty(&ep->ready))
			break;
	}
	if (any)
		lc->last_ticks = ep->ticks;
	return any;
}

/*
 * Clients and we ourselves want to know who shares a CPU. It seldom changes but where others had a
 * turn.
 */
static void note_cpu(struct aph_local *local)
{
	unsigned cpu = aph_cpu();

	if (cpu == local->cpu || !local->page)
		return;
	local->cpu = cpu;
	atomic_store_explicit(&local->page->cpu, cpu, memory_order_relaxed);
}

/*
 * A service that always finds something to do on another CPU lets the clients on its own one run,
 * too.
 */
static void give_way(struct aph_local *local)
{
	struct aph_endpoint *ep = local->base.ep;

	if (!is_crowded(local) || ep->ticks - local->yielded < GIVE_WAY_TICKS ||
	    ep->ticks < local->wake.back_off_until)
		return;
	(void)aph_wake_yield(&local->wake, &ep->ticks);
	local->yielded = ep->ticks;
	note_cpu(local);
}

static bool poll_services(struct aph_local *local, bool requests)
{
	struct aph_endpoint *ep = local->base.ep;
	unsigned n = local->n_scan;
	bool any = false;

	give_way(local);
	if (ep->ticks - local->window_began > WINDOW_TICKS)
		open_window(local);
	while (n && !aph_list_empty(&local->scan)) {
		struct aph_local_channel *lc = scanned(local->scan.next);

		/* Events that were queued before stop nothing: who waits for a call leaves them. */
		bool took = poll_service(lc, requests);
		bool enough = took && requests && !aph_list_empty(&ep->ready);

		any |= took;
		if (enough && lc->burst < BURST_MAX)
			return true; /* it goes on here next time */
		lc->burst = 0;
		if (!aph_list_empty(&lc->scan_link)) {
			aph_list_remove(&lc->scan_link);
			aph_list_append(&local->scan, &lc->scan_link);
		}
		if (enough)
			return true;
		n--;
	}
	if (!any && all_have_had_enough(local))
		open_window(local);
	return any;
}

static bool poll(struct aph_transport *transport, bool requests)
{
	struct aph_local *local = of(transport);
	bool any = false;

	if (!aph_list_empty(&local->givers))
		aph_local_give(local);
	if (!aph_list_empty(&local->active))
		any |= poll_clients(local);
	if (!aph_list_empty(&local->scan))
		any |= poll_services(local, requests);
	if (!aph_list_empty(&local->doomed))
		any |= end_doomed(local);
	return any;
}

static bool poll_beside(struct aph_transport *transport)
{
	return poll(transport, true);
}

/* -- what there is to do ----------------------------------------------------------------------- */

/* Whether aph_local_take() would take the record that is there. */
static bool can_take(struct aph_local_channel *lc, bool requests)
{
	return aph_ring_ready(&lc->in) &&
	       ((requests && lc->n_kept <= APH_KEPT_MAX) || !aph_ring_at_request(&lc->in));
}

/* Whether poll() would find something to do for a client. */
static bool can_serve(struct aph_local_channel *lc, bool requests)
{
	return can_take(lc, requests) || aph_local_has_room(lc);
}

/* -- quiet channels ---------------------------------------------------------------------------- */

/*
 * The peer may have claimed `want` for room of a kind that did not help: says again, before the
 * last look, that a call waits.
 */
static void renew_want(struct aph_local_channel *lc)
{
	if (!aph_list_empty(&lc->blocked))
		(void)atomic_exchange(lc->my_want, 1);
}

/* Whether its client publishes without a fence. */
static bool is_pipelined(const struct aph_local_channel *lc)
{
	return lc->may_pipeline && atomic_load(&lc->words->client.pipelined);
}

/* From here on it has to ring, unless something came just now. */
static void demote(struct aph_local_channel *lc)
{
	/* A receipt that rings for nobody has to be found by whoever looks. */
	if (lc->base.n_calls && lc->base.service->flags & APH_SERVICE_RECEIPTS)
		return;
	(void)atomic_exchange(&lc->words->server.scanned, 0);
	renew_want(lc);
	if (is_pipelined(lc))
		aph_barrier_everywhere();
	if (can_serve(lc, true))
		(void)atomic_exchange(&lc->words->server.scanned, 1);
	else
		aph_local_unscan(lc);
}

static void tidy(struct aph_transport *transport)
{
	struct aph_local *local = of(transport);
	uint64_t ticks = aph_ticks();
	struct aph_list *pos, *tmp;

	note_cpu(local);
	aph_list_for_each(pos, tmp, &local->scan) {
		struct aph_local_channel *lc = scanned(pos);

		if (!lc->last_ticks)
			lc->last_ticks = ticks;
		if (ticks - lc->last_ticks > STALE_TICKS)
			demote(lc);
	}
	if (!aph_list_empty(&local->newcomers))
		aph_local_newcomer_expire(local, aph_time_ns());
}

/* -- waiting ----------------------------------------------------------------------------------- */

static bool has_replies(struct aph_local_channel *lc)
{
	return aph_ring_ready(&lc->in) || aph_local_has_room(lc);
}

static bool clients_are_ready(struct aph_local *local)
{
	struct aph_list *pos, *tmp;

	aph_list_for_each(pos, tmp, &local->active) {
		if (has_replies(scanned(pos)))
			return true;
	}
	return false;
}

static bool services_are_ready(struct aph_local *local)
{
	struct aph_list *pos, *tmp;

	aph_list_for_each(pos, tmp, &local->scan) {
		if (can_serve(scanned(pos), true) && !has_had_enough(local, scanned(pos)))
			return true;
	}
	return false;
}

static bool any_work(struct aph_local *local, bool requests)
{
	return clients_are_ready(local) || (requests && services_are_ready(local)) ||
	       !aph_list_empty(&local->doomed);
}

static void describe_clients(struct aph_local *local, struct aph_wake_scene *scene)
{
	unsigned cpu = aph_cpu();
	struct aph_list *pos, *tmp;

	scene->reply = true;
	aph_list_for_each(pos, tmp, &local->active) {
		struct aph_local_channel *lc = scanned(pos);
		const struct aph_endpoint_page *page = lc->page_map;
		unsigned n;

		if (!page)
			continue;
		n = atomic_load_explicit(&page->n_active, memory_order_relaxed) + 1;
		scene->rang |= lc->rang;
		scene->peer_apart |= atomic_load_explicit(&page->cpu, memory_order_relaxed) != cpu;
		if (n > scene->n_busy)
			scene->n_busy = n;
	}
}

static void describe_services(struct aph_local *local, struct aph_wake_scene *scene)
{
	uint8_t cpu = (uint8_t)aph_cpu();
	struct aph_list *pos, *tmp;

	scene->n_busy = local->n_scan + 1;
	aph_list_for_each(pos, tmp, &local->scan) {
		if (scanned(pos)->peer_cpu != cpu) {
			scene->peer_apart = true;
			return;
		}
	}
}

/* Lets threads in that wait for the endpoint's lock. True when there were any. */
static bool let_others_in(struct aph_endpoint *ep)
{
	if (!atomic_load_explicit(&ep->n_contending, memory_order_relaxed))
		return false;
	aph_unlock(ep);
	(void)sched_yield();
	aph_lock(ep);
	return true;
}

/* Looks `n` times. */
static bool look(struct aph_local *local, bool requests, int n)
{
	for (;;) {
		if (any_work(local, requests))
			return true;
		if (--n == 0)
			return false;
		aph_pause();
	}
}

/*
 * In a crowd, before yielding: a peer on another CPU may be about to answer, and a moment's look
 * costs less than two switches. Not too often in a row, as others wait for this CPU.
 */
static bool look_before_yield(struct aph_local *local, bool requests,
			      const struct aph_wake_scene *scene)
{
	if (scene->peer_apart && (!scene->reply || local->streak < STREAK_MAX) &&
	    look(local, requests, scene->reply ? LOOKS_FOR_REPLY : LOOKS_FOR_REQUEST)) {
		local->streak++;
		return true;
	}
	local->streak = 0;
	return false;
}

static bool is_near(uint64_t deadline_ns, uint64_t us)
{
	return deadline_ns != APH_FOREVER && deadline_ns < aph_time_ns() + us * 1000;
}

static bool spin(struct aph_transport *transport, bool requests, uint64_t deadline_ns)
{
	struct aph_local *local = of(transport);
	struct aph_endpoint *ep = local->base.ep;
	struct aph_wake_scene scene = { 0 };
	uint64_t now = ep->ticks, until, limit;
	enum aph_wake_mode mode;

	if (!ep->spin_max_us ||
	    (aph_list_empty(&local->active) && (!requests || aph_list_empty(&local->scan))))
		return false;
	if (!aph_list_empty(&local->active))
		describe_clients(local, &scene);
	else
		describe_services(local, &scene);
	mode = aph_wake_begin(&local->wake, &scene, now);
	if (mode == APH_WAKE_SPIN && look(local, requests, LOOKS_WITHOUT_CLOCK)) {
		aph_wake_end_at_once(&local->wake);
		return true;
	}
	aph_wake_goes_on(&local->wake, now);
	if (mode == APH_WAKE_SLEEP)
		return false;
	limit = aph_wake_limit(&local->wake, ep->spin_max_us, ep->spin_is_default);
	if (is_near(deadline_ns, limit / local->wake.ticks_per_us))
		return false;
	until = now + limit;
	while (now < until) {
		bool yields = mode == APH_WAKE_YIELD;

		if (yields && look_before_yield(local, requests, &scene)) {
			aph_wake_end(&local->wake, now, ep->spin_max_us);
			return true;
		}
		if (yields && !aph_wake_yield(&local->wake, &now))
			return any_work(local, requests);
		/*
		 * As of now: what poll() finds next, give_way() must not take for work that never
		 * ends.
		 */
		if (yields) {
			local->yielded = ep->ticks = now;
			note_cpu(local);
		}
		if (look(local, requests, yields ? 1 : LOOKS_PER_CLOCK)) {
			aph_wake_end(&local->wake, now, ep->spin_max_us);
			return true;
		}
		if (let_others_in(ep))
			return true;
		if (!yields)
			now = aph_ticks();
	}
	return false;
}

/* Work that poll() would do: a request that is not wanted now does not count. */
static bool services_have_work(struct aph_local *local, bool requests)
{
	struct aph_list *pos, *tmp;

	aph_list_for_each(pos, tmp, &local->scan) {
		struct aph_local_channel *lc = scanned(pos);

		renew_want(lc);
		if (can_serve(lc, requests))
			return true;
	}
	return false;
}

/* What clients that make no fences have published can be seen from here on. */
static void fence_for_clients(struct aph_local *local)
{
	struct aph_list *pos, *tmp;

	aph_list_for_each(pos, tmp, &local->scan) {
		if (is_pipelined(scanned(pos))) {
			aph_barrier_everywhere();
			return;
		}
	}
}

static bool sleep_service(struct aph_local *local, bool requests)
{
	if (!local->page)
		return true;
	local->state = ((local->state | APH_PAGE_ASLEEP) + 1) | APH_PAGE_ASLEEP;
	(void)atomic_exchange(&local->page->state, local->state);
	if (local->n_moved)
		aph_local_moved_asleep(local);
	fence_for_clients(local);
	return !services_have_work(local, requests);
}

static bool sleep_clients(struct aph_local *local)
{
	struct aph_list *pos, *tmp;

	aph_list_for_each(pos, tmp, &local->active) {
		struct aph_local_channel *lc = scanned(pos);

		lc->waits = true;
		(void)atomic_exchange(&lc->words->client.wait, 1);
		renew_want(lc);
		if (has_replies(lc))
			return false;
		if (lc->pipelined) {
			lc->pipelined = false;
			local->owes_barrier = true;
			atomic_store(&lc->words->client.pipelined, 0);
		}
	}
	if (!local->owes_barrier)
		return true;
	/* A service has made no fences: what it has published can be seen behind this. */
	aph_barrier_everywhere();
	local->owes_barrier = false;
	return !clients_are_ready(local);
}

static bool fall_asleep(struct aph_transport *transport, bool requests)
{
	struct aph_local *local = of(transport);

	return aph_list_empty(&local->doomed) && sleep_service(local, requests) &&
	       sleep_clients(local);
}

static void awake(struct aph_transport *transport, uint64_t ticks)
{
	struct aph_local *local = of(transport);
	struct aph_list *pos, *tmp;

	aph_wake_end(&local->wake, ticks, local->base.ep->spin_max_us);
	note_cpu(local);
	if (local->page && (local->state & APH_PAGE_ASLEEP)) {
		local->state &= ~APH_PAGE_ASLEEP;
		atomic_store_explicit(&local->page->state, local->state, memory_order_release);
	}
	if (local->n_moved)
		aph_local_moved_awake(local);
	aph_list_for_each(pos, tmp, &local->active) {
		struct aph_local_channel *lc = scanned(pos);

		lc->waits = false;
		atomic_store_explicit(&lc->words->client.wait, 0, memory_order_relaxed);
	}
}

/* -- life -------------------------------------------------------------------------------------- */

static void free_local(struct aph_transport *transport)
{
	struct aph_local *local = of(transport);

	while (!aph_list_empty(&local->newcomers))
		aph_local_newcomer_drop(aph_container(local->newcomers.next,
						      struct aph_local_channel, pending_link));
	if (local->page)
		(void)munmap(local->page, APH_PAGE);
	aph_fd_close(&local->page_fd);
	aph_fd_close(&local->spare_fd);
	free(local);
}

static void abandon(struct aph_transport *transport)
{
	struct aph_local *local = of(transport);
	struct aph_list *pos, *tmp;

	aph_list_for_each(pos, tmp, &local->newcomers) {
		struct aph_local_channel *lc =
			aph_container(pos, struct aph_local_channel, pending_link);

		aph_fd_close(&lc->sock);
	}
	aph_fd_close(&local->page_fd);
	aph_fd_close(&local->spare_fd);
	local->page = NULL;
}

static const struct aph_transport_ops ops = {
	.poll = poll,
	.poll_beside = poll_beside,
	.tidy = tidy,
	.spin = spin,
	.sleep = fall_asleep,
	.awake = awake,
	.free = free_local,
	.abandon = abandon,
};

int aph_local_get(struct aph_local **out, struct aph_endpoint *ep)
{
	struct aph_local *local;

	if (!ep->local) {
		local = calloc(1, sizeof(*local));
		if (!local)
			return aph_err(-ENOMEM, "no memory for an endpoint's first channel");
		local->base.ops = &ops;
		local->base.ep = ep;
		local->page_fd = local->spare_fd = -1;
		aph_list_init(&local->scan);
		aph_list_init(&local->active);
		aph_list_init(&local->doomed);
		aph_list_init(&local->newcomers);
		aph_list_init(&local->givers);
		aph_wake_init(&local->wake);
		local->quota = UINT32_MAX;
		local->barriers = aph_barrier_join();
		ep->local = &local->base;
	}
	*out = of(ep->local);
	return 0;
}

int aph_local_need_page(struct aph_local *local)
{
	void *map;
	int r;

	if (local->page)
		return 0;
	r = aph_segment_make(&local->page_fd, &map, APH_PAGE, "antiphon-endpoint", true);
	if (r < 0)
		return r;
	local->page = map;
	local->cpu = aph_cpu();
	local->page->cpu = local->cpu;
	local->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	return 0;
}

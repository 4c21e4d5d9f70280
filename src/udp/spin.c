/* SPDX-License-Identifier: MIT */
/*
 * The rules, each with its reason (docs/decisions has the figures):
 *
 * - A wake-up on another CPU costs about 5 us at each end, so it pays to spin for what comes within
 *   25 us. Four of the last eight waits must have been about that short, whether they span or
 *   slept.
 * - It must not double the bill of a program that makes a call now and then. Such a program stays
 *   away for long between two waits: only one that comes back quickly spins.
 * - Nobody may spin on the CPU that the peer needs. The socket does not tell where that is, so it
 *   is learned: each spin in vain doubles the number of waits that go without one; each that was
 *   not quarters it. Data that was there already proves nothing.
 * - Nor on the CPU that the program itself needs: when its threads have sent in turns during a
 *   wait, as often as there are other CPUs, the next waits go without.
 * - Some virtual machines take 30 us and more for a wake-up. Two ends that sleep would never see a
 *   short wait there, and never begin to spin. So when eight waits in a row took longer than a spin
 *   but not much longer, it is tried (base/trial.h) whether to spin for as long as that makes them
 *   a third shorter. If not, what is waited for takes its time.
 */
#include "udp/spin.h"

#define US UINT64_C(1000)

#define WAKE_UP_NS     (10 * US) /* what a short wait may take longer when it ended asleep */
#define GAPS_PER_SPIN  4 /* a program that stays away for longer than so many spins is slow */
#define N_SKIP_MAX     1024u
#define N_SKIP_FEW     4u /* as long as a spin in vain costs no more than that, spins pay */
#define SHORTS_NEEDED  4
#define SHORT_GAPS_MIN 4u

void aph_udp_spin_init(struct aph_udp_spin *spin, uint64_t max_ns, uint64_t far_ns, unsigned n_cpus)
{
	*spin = (struct aph_udp_spin){
		.max_ns = max_ns,
		.n_cpus = n_cpus,
		.shorts = 0xff,
		.far_rule = {
			.spared = max_ns / 2,
			.most = far_ns,
			.sixths = 4,
		},
	};
}

void aph_udp_spin_note_other(struct aph_udp_spin *spin)
{
	pthread_t self = pthread_self();

	/* Always the same one mostly sleeps, too, while we wait for what it waits for. */
	spin->n_others += !pthread_equal(self, spin->last_other);
	spin->last_other = self;
}

/* Whether four of the last eight waits were short. */
static bool were_short(unsigned shorts)
{
	for (int i = 1; i < SHORTS_NEEDED; i++)
		shorts &= shorts - 1;
	return shorts != 0;
}

uint64_t aph_udp_spin_begin(struct aph_udp_spin *spin, uint64_t now_ns)
{
	bool is_busy = spin->n_others && spin->n_others + 1 >= spin->n_cpus;

	spin->busy = (uint8_t)(spin->busy << 1 | is_busy);
	spin->began_ns = now_ns;
	spin->spinning = false;
	spin->n_others = 0;
	if (!spin->max_ns)
		return 0;
	if (now_ns - spin->ended_ns > spin->max_ns)
		aph_trial_begin(&spin->far, false);
	if (now_ns - spin->ended_ns > GAPS_PER_SPIN * spin->max_ns)
		spin->n_short_gaps = 0;
	else if (spin->n_short_gaps < SHORT_GAPS_MIN)
		spin->n_short_gaps++;
	if (spin->busy)
		return 0;
	if (spin->far.on) {
		spin->spinning = true;
		return now_ns + aph_trial_limit(&spin->far, &spin->far_rule);
	}
	if (spin->n_skip) {
		spin->n_skip--;
		return 0;
	}
	if (spin->n_short_gaps < SHORT_GAPS_MIN || !were_short(spin->shorts))
		return 0;
	spin->spinning = true;
	return now_ns + spin->max_ns;
}

void aph_udp_spin_fail(struct aph_udp_spin *spin)
{
	if (!spin->spinning)
		return;
	spin->spinning = false;
	if (spin->far.on)
		return;
	spin->n_skip_next = spin->n_skip_next ? spin->n_skip_next * 2 : 1;
	if (spin->n_skip_next > N_SKIP_MAX)
		spin->n_skip_next = N_SKIP_MAX;
	spin->n_skip = spin->n_skip_next;
}

void aph_udp_spin_end(struct aph_udp_spin *spin, bool at_once, uint64_t now_ns)
{
	bool was_short = now_ns - spin->began_ns <= spin->max_ns + WAKE_UP_NS;

	spin->shorts = (uint8_t)(spin->shorts << 1 | was_short);
	if (spin->spinning && !at_once)
		spin->n_skip_next /= 4;
	spin->spinning = false;
	spin->ended_ns = now_ns;
	if (spin->far_rule.most)
		aph_trial_note(&spin->far, &spin->far_rule, now_ns - spin->began_ns);
}

bool aph_udp_spin_pays(const struct aph_udp_spin *spin)
{
	return spin->max_ns && spin->n_skip_next <= N_SKIP_FEW;
}

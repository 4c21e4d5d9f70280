/* SPDX-License-Identifier: MIT */
/*
 * Who may come in, and how much a user may make a service hold: by what the service allows, and by
 * shares of its channels and descriptors, so that nobody can lock the others out.
 */
#include "base/close.h"
#include "local/local.h"

#include <limits.h>
#include <sys/resource.h>
#include <unistd.h>

bool aph_local_is_allowed(const struct aph_service *service, const struct aph_credentials *who,
			  uint32_t allow)
{
	uint32_t both = allow & service->flags;

	if (both & APH_ALLOW_WORLD)
		return true;
	if ((both & APH_ALLOW_USER) && service->name.uid == (int64_t)who->euid)
		return true;
	return (both & APH_ALLOW_GROUP) && service->name.gid >= 0 &&
	       aph_local_is_in_group(who, service->name.gid);
}

bool aph_local_may_enter(const struct aph_service *service, const struct aph_credentials *who)
{
	return aph_local_is_allowed(service, who, APH_ALLOW_ANY);
}

bool aph_local_is_master(const struct aph_credentials *who)
{
	return who->euid == 0 || who->euid == geteuid();
}

/* What clients make this process hold. */
struct holdings {
	uint64_t channels, descriptors;
};

/* Of descriptors; the third one is its segment, if it is to be given away: see open_channel(). */
static unsigned cost_of_channel(const struct aph_service *service)
{
	return service->flags & APH_SERVICE_GIVE ? 3 : 2;
}

static void count_holdings(const struct aph_service *service, uid_t euid, struct holdings *own,
			   struct holdings *others)
{
	unsigned each = cost_of_channel(service);
	size_t own_unclosed, others_unclosed;
	struct aph_list *pos, *tmp;

	aph_close_count(euid, &own_unclosed, &others_unclosed);
	*own = (struct holdings){ .descriptors = own_unclosed };
	*others = (struct holdings){ .descriptors = others_unclosed };
	aph_list_for_each(pos, tmp, &service->channels) {
		struct aph_local_channel *lc =
			aph_local_channel(aph_container(pos, struct aph_channel, service_link));
		struct holdings *whose = lc->base.peer.euid == euid ? own : others;

		whose->channels++;
		whose->descriptors += each + lc->n_call_fds + (lc->stash ? lc->stash->n_fds : 0);
	}
}

/* At most three quarters of what the others leave, so that no user can lock the rest out. */
static bool is_share(uint64_t own, uint64_t others, uint64_t most)
{
	return others < most && own <= (most - others) / 4 * 3;
}

static uint64_t descriptors_max(void)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : UINT32_MAX;
}

void aph_local_note_limit(struct aph_local *local)
{
	uint64_t half = descriptors_max() / 2;

	local->many_fds = half < INT_MAX ? (int)half : INT_MAX;
}

bool aph_local_has_share(const struct aph_service *service, const struct aph_credentials *who)
{
	struct holdings own, others;

	if (service->n_channels >= service->channels_max)
		return false;
	if (aph_local_is_master(who))
		return true;
	count_holdings(service, who->euid, &own, &others);
	return is_share(own.channels + 1, others.channels, service->channels_max) &&
	       is_share(own.descriptors + cost_of_channel(service), others.descriptors,
			descriptors_max());
}

bool aph_local_may_hold(const struct aph_local_channel *lc, size_t n_fds)
{
	struct holdings own, others;

	if (aph_local_is_master(&lc->base.peer))
		return true;
	count_holdings(lc->base.service, lc->base.peer.euid, &own, &others);
	return is_share(own.descriptors + n_fds, others.descriptors, descriptors_max());
}

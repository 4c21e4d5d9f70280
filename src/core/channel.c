/* SPDX-License-Identifier: MIT */
/*
 * Channels and services: what is the same for every transport. A channel ends once, by
 * aph_channel_end(), and is freed with its last reference.
 */
#include "base/error.h"
#include "core/transport.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* -- life -------------------------------------------------------------------------------------- */

void aph_channel_init(struct aph_channel *channel, struct aph_endpoint *ep,
		      struct aph_service *service)
{
	channel->pending.kind = APH_PENDING_CHANNEL;
	channel->ep = ep;
	channel->service = service;
	channel->is_client = !service;
	channel->refs = 1; /* the connection's */
	aph_list_init(&channel->service_link);
	aph_list_init(&channel->calls);
	aph_list_append(&ep->channels, &channel->link);
	if (service) {
		aph_list_append(&service->channels, &channel->service_link);
		service->stats->channels = ++service->n_channels;
	}
}

void aph_channel_free(struct aph_channel *channel)
{
	aph_pending_clear(&channel->pending);
	aph_list_remove(&channel->link);
	aph_call_free_spare(channel);
	free(channel->groups);
	free(channel->label);
	channel->ops->free(channel);
}

void aph_channel_opened(struct aph_channel *channel, bool announce)
{
	channel->state = APH_CHANNEL_OPEN;
	if (!announce)
		return;
	if (channel->is_client) {
		aph_pending_add(channel->ep, &channel->pending, APH_EVENT_OPEN);
		return;
	}
	channel->user_holds = true;
	aph_channel_ref(channel);
	aph_pending_add(channel->ep, &channel->pending, APH_EVENT_CONNECT);
}

static void end_call(struct aph_call *call, enum aph_reason reason)
{
	bool received;

	call->lingering = false;
	if (call->state == APH_CALL_ENDED) {
		aph_call_settle(call);
		return;
	}
	if (!call->is_client) {
		aph_call_end(call, APH_GONE, reason, 0);
		return;
	}
	received = call->state != APH_CALL_NEW && !call->channel->ops->revoke(call);
	aph_call_end(call, received ? APH_LOST : APH_REFUSED, reason, 0);
}

void aph_channel_end(struct aph_channel *channel, enum aph_reason reason)
{
	struct aph_list *pos, *tmp;

	if (channel->state == APH_CHANNEL_ENDED)
		return;
	channel->state = APH_CHANNEL_ENDED;
	channel->reason = reason;
	aph_channel_ref(channel);
	if (channel->service) {
		channel->service->stats->channels = --channel->service->n_channels;
		if (reason == APH_REASON_PROTOCOL)
			channel->service->stats->violations++;
		aph_list_remove(&channel->service_link);
	}
	channel->ops->disconnect(channel);
	aph_list_for_each(pos, tmp, &channel->calls)
		end_call(aph_container(pos, struct aph_call, link), reason);
	if (channel->user_holds && channel->is_client)
		aph_pending_add(channel->ep, &channel->pending, APH_EVENT_CLOSED);
	else if (channel->user_holds)
		aph_pending_add(channel->ep, &channel->pending, APH_EVENT_DISCONNECT);
	aph_endpoint_changed(channel->ep);
	aph_channel_unref(channel); /* the connection's */
	aph_channel_unref(channel);
}

/* Its calls get no events any more, not even that of an end which they have had. */
static void silence(const struct aph_channel *channel)
{
	struct aph_list *pos, *tmp;

	aph_list_for_each(pos, tmp, &channel->calls)
		aph_pending_clear(&aph_container(pos, struct aph_call, link)->pending);
}

/* It is closed on this side: calls that go on end without an event. The caller has a reference. */
static void close_here(struct aph_channel *channel)
{
	aph_channel_end(channel, APH_REASON_CLOSED);
	silence(channel);
}

/* The user lets go, or a service throws a client out. */
static void close_by_user(struct aph_channel *channel)
{
	bool held = channel->user_holds;

	aph_channel_ref(channel);
	channel->user_holds = false;
	aph_pending_clear(&channel->pending);
	close_here(channel);
	if (held)
		aph_channel_unref(channel);
	aph_channel_unref(channel);
}

struct aph_channel *aph_channel_close(struct aph_channel *channel)
{
	struct aph_endpoint *ep;

	if (!channel)
		return NULL;
	ep = channel->ep;
	aph_lock(ep);
	close_by_user(channel);
	aph_unlock(ep);
	return NULL;
}

/* -- what is known of a channel ---------------------------------------------------------------- */

int64_t aph_channel_generation(const struct aph_channel *channel)
{
	return channel->ops->generation(channel);
}

const struct aph_credentials *aph_channel_credentials(const struct aph_channel *channel)
{
	return &channel->peer;
}

int aph_channel_pidfd(const struct aph_channel *channel)
{
	int r;

	aph_lock(channel->ep);
	r = aph_endpoint_check(channel->ep);
	/* It may have to learn first who that is. */
	if (r == 0)
		r = channel->ops->pidfd((struct aph_channel *)(uintptr_t)channel);
	aph_unlock(channel->ep);
	return r;
}

void *aph_channel_data(const struct aph_channel *channel)
{
	return channel->data;
}

void aph_channel_set_data(struct aph_channel *channel, void *data)
{
	channel->data = data;
}

int aph_channel_is_open(const struct aph_channel *channel)
{
	int open;

	aph_lock(channel->ep);
	open = channel->state == APH_CHANNEL_OPEN;
	aph_unlock(channel->ep);
	return open;
}

/* -- services ---------------------------------------------------------------------------------- */

void aph_service_init(struct aph_service *service)
{
	service->pending.kind = APH_PENDING_SERVICE;
	service->stats = &service->own_stats;
	aph_list_init(&service->channels);
	aph_list_append(&service->ep->services, &service->link);
}

/*
 * Lets go of a channel of a service that is gone. Of one that was not announced yet the user never
 * hears.
 */
static void lose_service(struct aph_channel *channel)
{
	channel->service = NULL;
	if (!(channel->pending.events & 1u << APH_EVENT_CONNECT))
		return;
	aph_pending_clear(&channel->pending);
	channel->user_holds = false;
	aph_channel_unref(channel);
}

void aph_service_end(struct aph_service *service)
{
	struct aph_endpoint *ep = service->ep;
	struct aph_list *pos, *tmp;

	service->ops->retire(service);
	aph_pending_clear(&service->pending);
	/* Nobody new first, then those who are in: they outlive us. */
	aph_list_for_each(pos, tmp, &service->channels) {
		struct aph_channel *channel = aph_container(pos, struct aph_channel, service_link);

		aph_channel_ref(channel);
		close_here(channel);
		lose_service(channel);
		aph_channel_unref(channel);
	}
	/* Channels that ended before may still be held by calls or by the user. */
	aph_list_for_each(pos, tmp, &ep->channels) {
		struct aph_channel *channel = aph_container(pos, struct aph_channel, link);

		if (channel->service != service)
			continue;
		silence(channel);
		lose_service(channel);
	}
	aph_list_remove(&service->link);
	aph_local_hide(service);
	service->ops->close(service);
}

struct aph_service *aph_service_close(struct aph_service *service)
{
	struct aph_endpoint *ep;

	if (!service)
		return NULL;
	ep = service->ep;
	aph_lock(ep);
	aph_service_end(service);
	aph_unlock(ep);
	return NULL;
}

void *aph_service_data(const struct aph_service *service)
{
	return service->data;
}

int aph_service_address(const struct aph_service *service, char *buf, size_t size)
{
	return service->ops->address(service, buf, size);
}

int aph_service_show(struct aph_service *service)
{
	int r;

	aph_lock(service->ep);
	r = aph_endpoint_check(service->ep);
	if (r == 0 && service->shown < 0)
		r = service->shown = aph_local_show(service);
	aph_unlock(service->ep);
	return r;
}

int aph_service_set_generation(struct aph_service *service, int64_t generation)
{
	struct aph_list *pos, *tmp;
	int r;

	aph_lock(service->ep);
	r = aph_endpoint_check(service->ep);
	if (r == 0) {
		service->generation = generation;
		aph_list_for_each(pos, tmp, &service->channels) {
			struct aph_channel *channel =
				aph_container(pos, struct aph_channel, service_link);

			channel->ops->set_generation(channel, generation);
		}
	}
	aph_unlock(service->ep);
	return r;
}

/* SPDX-License-Identifier: MIT */
#include "base/apart.h"
#include "rx/draft.h"
#include "rx/engine.h"

uint8_t *aph_rx_draft_stage(struct aph_rx *rx, struct aph_rx_peer *peer, size_t len, bool alone)
{
	struct aph_rx_draft *draft = rx->n_drafts ? &rx->drafts[rx->n_drafts - 1] : NULL;
	uint8_t *place = rx->staging + rx->staged;

	if (draft && draft->staged && !draft->closed && draft->peer == peer && !alone &&
	    len <= draft->segment && draft->n_segments < APH_RX_RUN_SEGMENTS) {
		rx->iovs[rx->n_iovs - 1].iov_len += len;
		draft->len += len;
		draft->closed = len < draft->segment;
	} else {
		draft = aph_rx_draft_new(rx, peer);
		draft->staged = true;
		draft->closed = alone;
		draft->segment = len;
		aph_rx_draft_add(rx, draft, place, len);
	}
	draft->n_segments++;
	rx->staged += len;
	aph_rx_draft_charge(peer, len);
	return place;
}

/* A datagram of several pieces. */
static void trace_datagram(struct aph_rx *rx, const struct aph_rx_message *message)
{
	uint8_t datagram[UINT16_MAX];
	size_t len = 0;

	for (size_t i = 0; i < message->n_iov; i++) {
		memcpy(datagram + len, message->iov[i].iov_base, message->iov[i].iov_len);
		len += message->iov[i].iov_len;
	}
	aph_rx_trace_packet(rx, APH_RX_TRACE_SENT, message->path, datagram, len, NULL);
}

static APH_APART void trace_message(struct aph_rx *rx, const struct aph_rx_message *message)
{
	size_t done, i;

	if (message->segment == message->len && message->n_iov > 1) {
		trace_datagram(rx, message);
		return;
	}
	for (i = 0; i < message->n_iov; i++) {
		const struct iovec *iov = &message->iov[i];

		/* Datagrams begin where segments do, and never lie across two pieces of a run. */
		for (done = 0; done + APH_RX_HEADER <= iov->iov_len; done += message->segment) {
			size_t len = iov->iov_len - done;

			aph_rx_trace_packet(rx, APH_RX_TRACE_SENT, message->path,
					    (const uint8_t *)iov->iov_base + done,
					    len < message->segment ? len : message->segment, NULL);
		}
	}
}

size_t aph_rx_drafts_hand_out(struct aph_rx *rx, struct aph_rx_message *out, size_t n_raw)
{
	size_t i;

	for (i = 0; i < rx->n_drafts; i++) {
		const struct aph_rx_draft *draft = &rx->drafts[i];
		struct aph_rx_message *message = &out[n_raw + i];

		*message = (struct aph_rx_message){
			.path = &draft->peer->path,
			.iov = &rx->iovs[draft->first_iov],
			.n_iov = draft->n_iov,
			.len = draft->len,
			.segment = draft->segment < draft->len ? draft->segment : draft->len,
			.probe = draft->probe,
			.fragment = draft->fragment,
		};
		if (rx->config.trace)
			trace_message(rx, message);
	}
	return n_raw + rx->n_drafts;
}

size_t aph_rx_raw_hand_out(struct aph_rx *rx, struct aph_rx_message *out, size_t max)
{
	size_t n = 0;

	while (rx->n_raw && n < max) {
		struct aph_rx_raw *raw = &rx->raw[rx->raw_first];
		struct aph_rx_large *large = raw->large;

		rx->iovs[rx->n_iovs] =
			(struct iovec){ .iov_base = large ? large->bytes : raw->bytes,
					.iov_len = raw->len };
		out[n] = (struct aph_rx_message){
			.path = &raw->path,
			.iov = &rx->iovs[rx->n_iovs++],
			.n_iov = 1,
			.len = raw->len,
			.segment = raw->len,
			.fragment = raw->len > APH_RX_MTU_DEFAULT,
		};
		if (large) {
			large->next = rx->spent_large;
			rx->spent_large = large;
		}
		if (rx->config.trace)
			trace_message(rx, &out[n]);
		n++;
		rx->raw_first = (rx->raw_first + 1) % APH_RX_N_RAW;
		rx->n_raw--;
	}
	return n;
}

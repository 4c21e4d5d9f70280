/* SPDX-License-Identifier: MIT */
/* antiphon hold exec web -- http_restart: HTTP on descriptor 3; started again, the first goes. */
#include <antiphon/hold.h>
#include <err.h>
#include <event2/event.h>
#include <event2/http.h>
#include <unistd.h>
static struct aph_hold_offer *offer; /* stands until somebody else serves */
static void answer(struct evhttp_request *req, void *left)
{
	if (*(int *)left) /* this connection shall go to the successor too */
		evhttp_add_header(evhttp_request_get_output_headers(req), "Connection", "close");
	evhttp_send_reply(req, 200, "OK", NULL);
}
static void look(evutil_socket_t fd, short what, void *base)
{
	if (fd < 0 || !what || aph_hold_offer_wait(offer, APH_NOW) == 0)
		event_base_loopbreak(base);
}
int main(void)
{
	struct aph_hold *hold;
	struct aph_hold_acceptance *before;
	uint64_t soon = aph_deadline_ms(500);
	int same, left = 0;
	if (evutil_make_socket_nonblocking(3) < 0 || aph_hold_open(&hold, NULL, soon) < 0)
		errx(1, "start it with: antiphon hold exec web -- http_restart");
	struct event_base *base = event_base_new();
	struct evhttp *http = evhttp_new(base);
	evhttp_set_gencb(http, answer, &left);
	struct evhttp_bound_socket *web = evhttp_accept_socket_with_handle(http, 3);
	if (aph_hold_accept(&before, hold, "web", &same, &(size_t){ 1 }, NULL, soon) == 0)
		aph_hold_confirm(before, APH_FOREVER); /* from now on we alone */
	aph_hold_offer(&offer, hold, "web", geteuid(), NULL);
	event_add(event_new(base, aph_hold_fd(hold), EV_READ | EV_PERSIST, look, base), NULL);
	event_base_dispatch(base);
	evhttp_del_accept_socket(http, web), left = 1;
	event_base_loopexit(base, &(struct timeval){ .tv_sec = 1 }); /* for who is connected */
	event_base_dispatch(base);
}

/* SPDX-License-Identifier: MIT */
/* libafdt: its synchronous client against its asynchronous server on libevent. */
#include <afdt.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "harness.h"

struct server {
	const struct bench_job *job;
	int given;
};

static int answer(const uint8_t *request, uint32_t len, uint8_t *response, uint32_t *response_len,
		  void *data)
{
	const struct server *server = data;
	uint32_t value;
	size_t ignored;

	(void)len;
	memcpy(&value, request, sizeof value);
	bench_answer(server->job, value, &value, &ignored);
	memcpy(response, &value, sizeof value);
	*response_len = sizeof value;
	return server->given;
}

static void failed(const struct afdt_error_t *err, void *data)
{
	(void)err;
	(void)data;
}

static int serve(struct bench_job *job)
{
	struct server server = { job, open("/dev/null", O_RDWR | O_CLOEXEC) };
	struct event_base *base = event_base_new();

	if (base == NULL || server.given < 0)
		return -1;
	if (afdt_create_server(job->address, base, answer, afdt_no_post, failed, NULL, &server) < 0)
		return -errno;
	bench_ready(job);
	return event_base_dispatch(base);
}

static int open_client(struct bench_job *job, void **self)
{
	*self = job;
	return 0;
}

static int call(void *self, const void *req, size_t len, uint64_t *sum)
{
	const struct bench_job *job = self;
	const struct timeval timeout = { .tv_sec = 5 };
	uint32_t value, value_len = sizeof value;
	int got;

	if (afdt_sync_client(job->address, req, (uint32_t)len, (uint8_t *)&value, &value_len, &got,
			     &timeout, NULL) < 0)
		return errno != 0 ? -errno : -ECONNRESET;
	close(got);
	*sum = value;
	return 0;
}

int main(int argc, char **argv)
{
	static const struct bench_who whos[] = {
		{ .name = "antiphon:afdt",
		  .exchange = true,
		  .serve = serve,
		  .open = open_client,
		  .call = call },
	};

	return bench_main(whos, sizeof whos / sizeof whos[0], argc, argv);
}

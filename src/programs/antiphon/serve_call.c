/* SPDX-License-Identifier: MIT */
/*
 * What both modes of `antiphon serve` do with a call: move bytes between it and a pipe, and log how
 * it went.
 */
#include "serve.h"

#include "format.h"
#include "json.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

ssize_t serve_move_request(struct aph_call *call, int fd)
{
	const void *data;
	size_t len;
	ssize_t n;
	int r;

	r = aph_call_borrow(call, &data, &len);
	if (r == -ENODATA)
		return SERVE_FD_ENDS;
	/* Whatever else is wrong with the call, its END event will say. */
	if (r < 0)
		return SERVE_CALL_WAITS;
	do {
		n = write(fd, data, len);
	} while (n < 0 && errno == EINTR);
	r = errno;
	aph_call_release(call, n > 0 ? (size_t)n : 0);
	if (n > 0)
		return n;
	return r == EAGAIN ? SERVE_FD_WAITS : SERVE_FD_ENDS;
}

ssize_t serve_move_reply(struct aph_call *call, int fd, size_t max, size_t *uncommitted)
{
	size_t len = max < SERVE_PIECE_MAX ? max : SERVE_PIECE_MAX;
	void *data;
	ssize_t n;
	int r;

	if (*uncommitted == 0) {
		r = aph_call_reserve(call, &data, &len);
		if (r < 0)
			return SERVE_CALL_WAITS;
		do {
			n = read(fd, data, len);
		} while (n < 0 && errno == EINTR);
		r = errno;
		if (n <= 0) {
			aph_call_commit(call, 0, APH_MORE);
			return n < 0 && r == EAGAIN ? SERVE_FD_WAITS : SERVE_FD_ENDS;
		}
		*uncommitted = (size_t)n;
	}
	r = aph_call_commit(call, *uncommitted, APH_MORE);
	if (r < 0)
		return SERVE_CALL_WAITS;
	n = (ssize_t)*uncommitted;
	*uncommitted = 0;
	return n;
}

void serve_record_begin(struct serve_record *record, const struct aph_call *call)
{
	const struct aph_credentials *who = aph_call_credentials(call);

	memset(record, 0, sizeof(*record));
	record->caller_pid = who->pid;
	record->caller_uid = who->euid;
	record->began_ns = aph_time_ns();
}

void serve_record_finish(struct serve *serve, const struct serve_record *record,
			 const char *outcome, int code)
{
	double ns = (double)(aph_time_ns() - record->began_ns);
	struct text in, out, took;
	struct json json;

	serve->n_logged++;
	if (serve->options.json) {
		json_init(&json, stdout);
		json_begin_object(&json, NULL);
		json_string(&json, "event", "call");
		json_uint(&json, "number", serve->n_logged);
		json_int(&json, "pid", record->caller_pid);
		json_uint(&json, "uid", record->caller_uid);
		json_string(&json, "outcome", outcome);
		json_int(&json, "code", code);
		json_uint(&json, "request_bytes", record->request_bytes);
		json_uint(&json, "reply_bytes", record->reply_bytes);
		json_double(&json, "ms", ns / 1e6);
		json_end(&json);
	} else if (serve->options.log) {
		printf("call %llu from pid %ld uid %lu: %s", (unsigned long long)serve->n_logged,
		       (long)record->caller_pid, (unsigned long)record->caller_uid, outcome);
		if (code != 0)
			printf(" with status %d", code);
		printf(", %s in, %s out, %s\n", format_bytes(&in, (double)record->request_bytes),
		       format_bytes(&out, (double)record->reply_bytes), format_duration(&took, ns));
	}
	fflush(stdout);
}

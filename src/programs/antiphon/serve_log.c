/* SPDX-License-Identifier: MIT */
/*
 * The log of `antiphon serve` on standard output: what it serves, and a line for each call.
 *
 * Whoever reads it may be slow, and is waited for; but not by a service that is asked to end. What
 * cannot be written is lost, which is said once: calls do not depend on it. A line is there as a
 * whole, or what is there of it stands on a line of its own.
 */
#include "serve.h"

#include "cli.h"
#include "format.h"
#include "json.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How long a service that is to end waits for who reads its log, in all. */
#define READER_NS UINT64_C(1000000000)

static void complain(struct serve *serve, const char *why)
{
	struct pollfd fd = { .fd = STDERR_FILENO, .events = POLLOUT };

	if (serve->log.complained)
		return;
	serve->log.complained = true;
	/* It may be the same pipe that nobody reads. */
	if (poll(&fd, 1, 0) != 0)
		cli_error("cannot write the log to standard output: %s; calls go on without it",
			  why);
}

/* Waits until something can be written, or an error be told. False when it is time to end. */
static bool wait_for_reader(struct serve *serve)
{
	struct pollfd fds[2] = {
		{ .fd = STDOUT_FILENO, .events = POLLOUT },
		{ .fd = serve->end_source.fd, .events = POLLIN },
	};
	uint64_t now_ns;

	while (!serve->stopping && fds[0].revents == 0 && fds[1].revents == 0)
		(void)poll(fds, 2, -1);
	if (fds[0].revents != 0)
		return true;
	now_ns = aph_time_ns();
	if (serve->log.until_ns == 0)
		serve->log.until_ns = now_ns + READER_NS;
	while (fds[0].revents == 0 && now_ns < serve->log.until_ns) {
		(void)poll(fds, 1, (int)((serve->log.until_ns - now_ns) / 1000000) + 1);
		now_ns = aph_time_ns();
	}
	return fds[0].revents != 0;
}

static void write_line(struct serve *serve, const char *line, size_t len)
{
	const char *why = "nobody reads it";
	size_t done = 0;

	while (done < len && wait_for_reader(serve)) {
		ssize_t n = write(STDOUT_FILENO, line + done, len - done);

		if (n >= 0) {
			done += (size_t)n;
		} else if (errno != EAGAIN && errno != EINTR) {
			why = strerror(errno);
			break;
		}
	}
	if (done > 0)
		serve->log.torn = done < len;
	if (done < len)
		complain(serve, why);
}

/* A line is put together in memory, and written by end_line(). NULL after a complaint. */
static FILE *begin_line(struct serve *serve, char **line, size_t *len)
{
	FILE *out = open_memstream(line, len);

	if (!out)
		complain(serve, strerror(errno));
	else if (serve->log.torn)
		fputc('\n', out);
	return out;
}

static void end_line(struct serve *serve, FILE *out, char **line, const size_t *len)
{
	/* Only now they are set. */
	if (fclose(out) == 0)
		write_line(serve, *line, *len);
	else
		complain(serve, strerror(errno));
	free(*line);
}

void serve_log_begin(struct serve *serve)
{
	struct json json;
	char *line;
	size_t len;
	FILE *out;

	if (!serve->options.json && !serve->options.log)
		return;
	out = begin_line(serve, &line, &len);
	if (!out)
		return;
	if (serve->options.json) {
		json_init(&json, out);
		json_begin_object(&json, NULL);
		json_string(&json, "event", "serving");
		json_string(&json, "address", serve->name);
		json_int(&json, "pid", getpid());
		json_end(&json);
	} else {
		fprintf(out, "serving %s\n", serve->name);
	}
	end_line(serve, out, &line, &len);
}

void serve_record_begin(struct serve_record *record, const struct aph_call *call)
{
	const struct aph_credentials *who = aph_call_credentials(call);

	memset(record, 0, sizeof(*record));
	record->caller_pid = who->pid;
	record->caller_uid = who->euid;
	record->began_ns = aph_time_ns();
}

static void print_json(const struct serve *serve, FILE *out, const struct serve_record *record,
		       const char *outcome, int code, double ns)
{
	struct json json;

	json_init(&json, out);
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
}

static void print_text(const struct serve *serve, FILE *out, const struct serve_record *record,
		       const char *outcome, int code, double ns)
{
	struct text request, reply, took;

	fprintf(out, "call %llu from pid %ld uid %lu: %s", (unsigned long long)serve->n_logged,
		(long)record->caller_pid, (unsigned long)record->caller_uid, outcome);
	if (code != 0)
		fprintf(out, " with status %d", code);
	fprintf(out, ", %s in, %s out, %s\n", format_bytes(&request, (double)record->request_bytes),
		format_bytes(&reply, (double)record->reply_bytes), format_duration(&took, ns));
}

void serve_record_finish(struct serve *serve, const struct serve_record *record,
			 const char *outcome, int code)
{
	double ns = (double)(aph_time_ns() - record->began_ns);
	char *line;
	size_t len;
	FILE *out;

	serve->n_logged++;
	if (!serve->options.json && !serve->options.log)
		return;
	out = begin_line(serve, &line, &len);
	if (!out)
		return;
	if (serve->options.json)
		print_json(serve, out, record, outcome, code, ns);
	else
		print_text(serve, out, record, outcome, code, ns);
	end_line(serve, out, &line, &len);
}

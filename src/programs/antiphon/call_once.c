/* SPDX-License-Identifier: MIT */
/*
 * One call whose bodies are streams: the request flows in while the reply flows out, each held up
 * by its own reader alone. Input and output that can be waited for are never waited for in read()
 * or write(): then neither direction can stop the other, and the end of the call is always seen.
 */
#include "call.h"

#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What poll() promises a pipe or a terminal to take without waiting. */
#define BLOCKING_WRITE_MAX 4096
/* What a pipe holds; more would take room from the next piece while it is read. */
#define PIECE_MAX 65536
/* Steps between two looks at the events. */
#define STEPS_PER_TURN 64

struct stream {
	int fd;
	bool waitable; /* poll() means something: not a file or a block device */
	bool ready;    /* poll() said so, or nobody has to ask */
	bool blocking; /* a write of more than BLOCKING_WRITE_MAX bytes could wait */
	bool done;
	char last; /* what was written last */
};

struct exchange {
	struct aph_endpoint *ep;
	struct aph_call *call;
	const struct call_options *options;
	struct stream in;
	struct stream out;
	size_t text_sent;
	size_t piece_len; /* of the input, read but not sent yet */
	bool piece_open;
	bool can_send; /* there may be room for more of the request */
	bool can_read; /* there may be more of the reply */
	bool ended;
	int error; /* our own trouble: a file that cannot be read or written */
	struct call_report *report;
	struct progress progress;
};

/* -- streams ----------------------------------------------------------------------------------- */

static bool is_waitable(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode) &&
	       !S_ISBLK(st.st_mode);
}

static void open_input(struct stream *in, int fd)
{
	in->fd = fd;
	in->waitable = fd >= 0 && is_waitable(fd);
	in->ready = !in->waitable;
}

/*
 * Standard output belongs to others too, so that O_NONBLOCK must not be set on it. A pipe can be
 * opened anew, which gives an open file description of our own.
 */
static void open_output(struct stream *out)
{
	int fd;

	out->fd = STDOUT_FILENO;
	out->waitable = is_waitable(out->fd);
	out->ready = true;
	/* Not what may not be written to: that is closed, or else a mistake to be told. */
	if (!out->waitable || (fcntl(out->fd, F_GETFL) & O_ACCMODE) == O_RDONLY)
		return;
	fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	if (fd >= 0) {
		out->fd = fd;
	} else {
		out->blocking = true;
		out->ready = false;
	}
}

static void close_output(struct stream *out)
{
	if (out->fd != STDOUT_FILENO)
		close(out->fd);
}

static void fail(struct exchange *x, const char *what)
{
	x->error = errno;
	progress_finish(&x->progress);
	cli_error("%s: %s", what, strerror(x->error));
}

/* -- the request ------------------------------------------------------------------------------- */

/* What a send or reserve answered instead of taking something. */
static void stop_sending(struct exchange *x, int r)
{
	x->can_send = false;
	/* The call has ended without wanting it all; its END says how. */
	if (r != -EAGAIN)
		x->in.done = true;
}

static void send_text(struct exchange *x)
{
	const char *text = x->options->text == NULL ? "" : x->options->text;
	size_t len = strlen(text);
	ssize_t n = aph_call_send(x->call, text + x->text_sent, len - x->text_sent, 0);

	if (n < 0) {
		stop_sending(x, (int)n);
		return;
	}
	x->text_sent += (size_t)n;
	x->report->request_bytes += (uint64_t)n;
	if (x->text_sent == len)
		x->in.done = true;
	else
		x->can_send = false;
}

static void commit_piece(struct exchange *x)
{
	int r = aph_call_commit(x->call, x->piece_len, x->piece_len > 0 ? APH_MORE : 0);

	if (r == -EAGAIN) {
		x->can_send = false;
		return;
	}
	x->piece_open = false;
	x->report->request_bytes += x->piece_len;
	if (r < 0 || x->piece_len == 0)
		x->in.done = true;
}

/* The input is read straight into the memory that the service will read. */
static void send_piece(struct exchange *x)
{
	size_t len = PIECE_MAX;
	void *data;
	ssize_t n;
	int r;

	if (x->piece_open) {
		commit_piece(x);
		return;
	}
	r = aph_call_reserve(x->call, &data, &len);
	if (r < 0) {
		stop_sending(x, r);
		return;
	}
	n = read(x->in.fd, data, len);
	x->in.ready = !x->in.waitable;
	if (n < 0) {
		r = errno;
		/* Gives the room back. */
		aph_call_commit(x->call, 0, APH_MORE);
		errno = r;
		if (errno != EAGAIN && errno != EINTR)
			fail(x, "cannot read the request");
		return;
	}
	/* An empty piece ends the request. */
	x->piece_open = true;
	x->piece_len = (size_t)n;
	commit_piece(x);
}

static bool may_send(const struct exchange *x)
{
	return !x->ended && !x->in.done && x->can_send;
}

/* -- the reply --------------------------------------------------------------------------------- */

static void write_piece(struct exchange *x)
{
	const void *data;
	size_t len;
	ssize_t n;
	int r;

	r = aph_call_borrow(x->call, &data, &len);
	if (r == -EAGAIN) {
		x->can_read = false;
		return;
	}
	if (r < 0) {
		x->out.done = true;
		return;
	}
	if (x->out.blocking && len > BLOCKING_WRITE_MAX)
		len = BLOCKING_WRITE_MAX;
	n = write(x->out.fd, data, len);
	r = errno;
	if (n > 0)
		x->out.last = ((const char *)data)[n - 1];
	aph_call_release(x->call, n > 0 ? (size_t)n : 0);
	errno = r;
	if (n > 0)
		x->report->reply_bytes += (uint64_t)n;
	else if (n < 0 && errno != EAGAIN && errno != EINTR)
		fail(x, "cannot write the reply");
	if (x->out.waitable && (n < 0 || x->out.blocking))
		x->out.ready = false;
}

static bool may_write(const struct exchange *x)
{
	return !x->out.done && x->can_read && x->out.ready;
}

/* -- events ------------------------------------------------------------------------------------ */

static void handle(struct exchange *x, const struct aph_event *event)
{
	if (event->type == APH_EVENT_END && event->call == x->call) {
		x->report->result = event->result;
		x->ended = true;
		x->in.done = true;
		x->can_read = true;
		/* Only an answer is worth writing to its end. */
		if (event->result.outcome != APH_ANSWERED)
			x->out.done = true;
	} else if (event->type == APH_EVENT_CLOSED && !x->ended) {
		x->report->result =
			(struct aph_result){ .outcome = APH_LOST, .reason = event->result.reason };
		x->ended = true;
		x->in.done = true;
		x->out.done = true;
	} else if (event->type == APH_EVENT_WRITABLE) {
		x->can_send = true;
	} else {
		x->can_read = true;
	}
}

static void handle_all(struct exchange *x)
{
	struct aph_event event;

	while (!x->ended && aph_endpoint_next(x->ep, &event, APH_NOW) == 0)
		handle(x, &event);
}

static int poll_timeout(const struct exchange *x)
{
	uint64_t next_ns = progress_next(&x->progress);
	uint64_t now_ns = aph_time_ns();

	if (next_ns == UINT64_MAX)
		return -1;
	if (next_ns <= now_ns)
		return 0;
	return (int)((next_ns - now_ns) / 1000000) + 1;
}

/* Waits for the call and for the streams that hold it up. */
static void wait_for_streams(struct exchange *x, bool in, bool out)
{
	struct pollfd fds[3] = {
		{ .fd = x->ended ? -1 : aph_endpoint_fd(x->ep), .events = POLLIN },
		{ .fd = in ? x->in.fd : -1, .events = POLLIN },
		{ .fd = out ? x->out.fd : -1, .events = POLLOUT },
	};

	if (poll(fds, 3, poll_timeout(x)) <= 0)
		return;
	if (fds[1].revents != 0)
		x->in.ready = true;
	if (fds[2].revents != 0)
		x->out.ready = true;
	if (fds[0].revents != 0)
		handle_all(x);
}

/*
 * Waits until something can go on. A call that only waits for its service waits in the fastest way.
 */
static void wait_for_something(struct exchange *x)
{
	bool in = may_send(x) && x->options->text == NULL && !x->in.ready && !x->piece_open;
	bool out = !x->out.done && x->can_read && !x->out.ready;
	struct aph_event event;

	if (in || out)
		wait_for_streams(x, in, out);
	else if (aph_endpoint_next(x->ep, &event, progress_next(&x->progress)) == 0)
		handle(x, &event);
}

static bool step(struct exchange *x)
{
	bool moved = false;

	if (may_send(x) && (x->options->text != NULL || x->in.fd < 0)) {
		send_text(x);
		moved = true;
	} else if (may_send(x) && (x->in.ready || x->piece_open)) {
		send_piece(x);
		moved = true;
	}
	if (may_write(x)) {
		write_piece(x);
		moved = true;
	}
	return moved;
}

static void exchange_run(struct exchange *x)
{
	while (x->error == 0 && !(x->ended && x->out.done)) {
		int steps = 0;

		while (steps < STEPS_PER_TURN && x->error == 0 && step(x))
			steps++;
		progress_update(&x->progress, x->report->request_bytes, x->report->reply_bytes);
		if (x->error != 0 || (x->ended && x->out.done))
			break;
		if (steps == STEPS_PER_TURN)
			handle_all(x);
		else
			wait_for_something(x);
	}
	progress_finish(&x->progress);
}

static uint64_t input_size(int fd)
{
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size < 0)
		return 0;
	return (uint64_t)st.st_size;
}

/*
 * Descriptors go first, before any byte of the request, so that the service has them from the
 * start.
 */
static int send_descriptors(struct exchange *x)
{
	ssize_t r;

	if (x->options->n_fds == 0)
		return 0;
	r = aph_call_send_fds(x->call, NULL, 0, x->options->fds, x->options->n_fds, APH_MORE);
	if (r < 0)
		cli_error("cannot send the descriptors: %s", aph_error());
	return r < 0 ? -1 : 0;
}

int call_once(struct aph_endpoint *ep, struct aph_channel *channel,
	      const struct call_options *options, int in_fd, uint64_t deadline_ns,
	      struct call_report *report)
{
	struct exchange x = {
		.ep = ep, .options = options, .report = report, .can_send = true, .can_read = true
	};
	uint64_t began_ns = aph_time_ns();

	memset(report, 0, sizeof(*report));
	if (aph_call_new(&x.call, channel, deadline_ns, NULL) < 0) {
		cli_error("%s", aph_error());
		return CLI_FAILED;
	}
	open_input(&x.in, in_fd);
	open_output(&x.out);
	progress_init(&x.progress, PROGRESS_BYTES, input_size(in_fd), options->progress,
		      options->quiet);
	if (send_descriptors(&x) < 0)
		x.error = EIO;
	exchange_run(&x);
	report->seconds = (double)(aph_time_ns() - began_ns) / 1e9;
	/* On a terminal the prompt of the shell should not stand behind the reply. */
	if (report->reply_bytes > 0 && x.out.last != '\n' && isatty(STDOUT_FILENO))
		(void)!write(STDOUT_FILENO, "\n", 1);
	/* Without an end so far this cancels the call. */
	aph_call_free(x.call);
	close_output(&x.out);
	return x.error != 0 ? CLI_FAILED : cli_outcome_status(report->result.outcome);
}

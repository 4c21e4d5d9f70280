/* SPDX-License-Identifier: MIT */
/*
 * The progress bar.
 */
#include "progress.h"

#include "cli.h"
#include "format.h"

#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define DELAY_NS    UINT64_C(500000000)
#define INTERVAL_NS UINT64_C(100000000)
#define BAR_WIDTH   24

/* What is to be drawn. Its longest form is far below that. */
struct line {
	char text[256];
	size_t len;
};

void progress_init(struct progress *progress, enum progress_unit unit, uint64_t total, bool wanted,
		   bool unwanted)
{
	memset(progress, 0, sizeof(*progress));
	/* A bar and a reply on the same terminal would write over each other. */
	progress->enabled = wanted ||
			    (!unwanted && isatty(STDERR_FILENO) && !isatty(STDOUT_FILENO));
	progress->unit = unit;
	progress->total = total;
	progress->began_ns = aph_time_ns();
	progress->next_ns = progress->began_ns + DELAY_NS;
}

static const char *amount(const struct progress *progress, struct text *text, double value)
{
	return progress->unit == PROGRESS_BYTES ? format_bytes(text, value)
						: format_rate(text, value);
}

__attribute__((format(printf, 2, 3))) static void add(struct line *line, const char *format, ...)
{
	size_t room = sizeof(line->text) - line->len;
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(line->text + line->len, room, format, args);
	va_end(args);
	if (n > 0)
		line->len += (size_t)n < room ? (size_t)n : room - 1;
}

static void add_bar(struct line *line, double fraction)
{
	int full = (int)(fraction * BAR_WIDTH);

	add(line, " [");
	for (int i = 0; i < BAR_WIDTH; i++)
		add(line, "%c", i < full ? '=' : i == full ? '>' : ' ');
	add(line, "] %3d%%", (int)(fraction * 100));
}

/* In one write. What went beyond the last column would begin a new line with each drawing. */
static void draw(const struct line *line)
{
	struct winsize size = { 0 };
	size_t len = line->len;

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && len >= size.ws_col)
		len = size.ws_col - 1u;
	fprintf(stderr, "\r\033[K%.*s", (int)len, line->text);
	fflush(stderr);
}

void progress_update(struct progress *progress, uint64_t sent, uint64_t received)
{
	struct line line = { .len = 0 };
	double seconds, rate;
	struct text text;
	uint64_t now;

	if (!progress->enabled)
		return;
	now = aph_time_ns();
	if (now < progress->next_ns)
		return;
	progress->next_ns = now + INTERVAL_NS;
	progress->shown = true;

	seconds = (double)(now - progress->began_ns) / 1e9;
	rate = (double)(sent > received ? sent : received) / seconds;
	add(&line, "%s", amount(progress, &text, (double)sent));
	if (progress->total > 0) {
		add(&line, " of %s", amount(progress, &text, (double)progress->total));
		add_bar(&line,
			sent >= progress->total ? 1.0 : (double)sent / (double)progress->total);
	}
	if (received > 0)
		add(&line, "  reply %s", amount(progress, &text, (double)received));
	add(&line, "  %s%s", amount(progress, &text, rate),
	    progress->unit == PROGRESS_BYTES ? "/s" : " calls/s");
	if (progress->total > sent && sent > 0)
		add(&line, "  %.0f s left",
		    (double)(progress->total - sent) / ((double)sent / seconds));
	draw(&line);
}

uint64_t progress_next(const struct progress *progress)
{
	return progress->enabled ? progress->next_ns : UINT64_MAX;
}

void progress_finish(struct progress *progress)
{
	if (progress->shown)
		fputs("\r\033[K", stderr);
	progress->enabled = false;
	progress->shown = false;
}

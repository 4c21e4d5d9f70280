/* SPDX-License-Identifier: MIT */
/*
 * The progress bar.
 */
#include "progress.h"

#include "cli.h"
#include "format.h"

#include <string.h>
#include <unistd.h>

#define DELAY_NS    UINT64_C(500000000)
#define INTERVAL_NS UINT64_C(100000000)
#define BAR_WIDTH   24

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

static void draw_bar(double fraction)
{
	int full = (int)(fraction * BAR_WIDTH);

	fputs(" [", stderr);
	for (int i = 0; i < BAR_WIDTH; i++)
		fputc(i < full ? '=' : i == full ? '>' : ' ', stderr);
	fprintf(stderr, "] %3d%%", (int)(fraction * 100));
}

void progress_update(struct progress *progress, uint64_t sent, uint64_t received)
{
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
	fprintf(stderr, "\r\033[K%s", amount(progress, &text, (double)sent));
	if (progress->total > 0) {
		fprintf(stderr, " of %s", amount(progress, &text, (double)progress->total));
		draw_bar(sent >= progress->total ? 1.0 : (double)sent / (double)progress->total);
	}
	if (received > 0)
		fprintf(stderr, "  reply %s", amount(progress, &text, (double)received));
	fprintf(stderr, "  %s%s", amount(progress, &text, rate),
		progress->unit == PROGRESS_BYTES ? "/s" : " calls/s");
	if (progress->total > sent && sent > 0)
		fprintf(stderr, "  %.0f s left",
			(double)(progress->total - sent) / ((double)sent / seconds));
	fflush(stderr);
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

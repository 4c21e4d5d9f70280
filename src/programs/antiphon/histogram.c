/* SPDX-License-Identifier: MIT */
/*
 * The histogram of durations.
 */
#include "histogram.h"

#include "format.h"

#include <string.h>

static const struct {
	const char *name;
	double fraction;
} quantiles[] = {
	{ "p50", 0.5 },
	{ "p90", 0.9 },
	{ "p99", 0.99 },
	{ "p99.9", 0.999 },
};

#define N_QUANTILES (sizeof(quantiles) / sizeof(quantiles[0]))

static size_t bucket_of(uint64_t ns)
{
	unsigned shift;

	if (ns < HISTOGRAM_STEPS)
		return (size_t)ns;
	shift = 63u - (unsigned)__builtin_clzll(ns) - HISTOGRAM_STEPS_LOG2;
	/* ns >> shift lies in [STEPS, 2 * STEPS): its top bit names the power of two. */
	return (size_t)shift * HISTOGRAM_STEPS + (size_t)(ns >> shift);
}

/* The largest duration that falls into the bucket. */
static uint64_t bucket_end(size_t bucket)
{
	unsigned shift;

	if (bucket < 2 * HISTOGRAM_STEPS)
		return bucket;
	shift = (unsigned)(bucket / HISTOGRAM_STEPS) - 1;
	return (((uint64_t)(bucket % HISTOGRAM_STEPS + HISTOGRAM_STEPS) + 1) << shift) - 1;
}

void histogram_init(struct histogram *histogram)
{
	memset(histogram, 0, sizeof(*histogram));
}

void histogram_add(struct histogram *histogram, uint64_t ns)
{
	histogram->n++;
	histogram->counts[bucket_of(ns)]++;
	if (ns > histogram->max_ns)
		histogram->max_ns = ns;
}

uint64_t histogram_quantile(const struct histogram *histogram, double fraction)
{
	uint64_t wanted = (uint64_t)(fraction * (double)histogram->n + 0.5);
	uint64_t seen = 0;

	if (wanted == 0)
		wanted = 1;
	for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += histogram->counts[i];
		if (seen < wanted)
			continue;
		/* The end of the last bucket may lie beyond everything that was seen. */
		return bucket_end(i) < histogram->max_ns ? bucket_end(i) : histogram->max_ns;
	}
	return histogram->max_ns;
}

void histogram_print(const struct histogram *histogram, FILE *out)
{
	struct text text;

	for (size_t i = 0; i < N_QUANTILES; i++)
		fprintf(out, "%s %s  ", quantiles[i].name,
			format_duration(&text, (double)histogram_quantile(histogram,
									  quantiles[i].fraction)));
	fprintf(out, "max %s\n", format_duration(&text, (double)histogram->max_ns));
}

void histogram_json(const struct histogram *histogram, struct json *json, const char *key)
{
	if (histogram->n == 0) {
		json_null(json, key);
		return;
	}
	json_begin_object(json, key);
	for (size_t i = 0; i < N_QUANTILES; i++)
		json_double(json, quantiles[i].name,
			    (double)histogram_quantile(histogram, quantiles[i].fraction) / 1e3);
	json_double(json, "max", (double)histogram->max_ns / 1e3);
	json_end(json);
}

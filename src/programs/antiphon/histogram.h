/* SPDX-License-Identifier: MIT */
/*
 * A histogram of durations: constant space, constant time to add, quantiles to within 1.6 percent.
 *
 * Each power of two of nanoseconds is cut into 64 equal steps; below 64 ns every value has its own.
 */
#ifndef ANTIPHON_CLI_HISTOGRAM_H
#define ANTIPHON_CLI_HISTOGRAM_H

#include "json.h"

#include <stdint.h>

#define HISTOGRAM_STEPS_LOG2 6
#define HISTOGRAM_STEPS	     ((size_t)1 << HISTOGRAM_STEPS_LOG2)
#define HISTOGRAM_BUCKETS    ((64 - HISTOGRAM_STEPS_LOG2 + 1) * HISTOGRAM_STEPS)

struct histogram {
	uint64_t n;
	uint64_t max_ns;
	uint64_t counts[HISTOGRAM_BUCKETS];
};

void histogram_init(struct histogram *histogram);
void histogram_add(struct histogram *histogram, uint64_t ns);
/* The smallest duration that `fraction` (0 to 1) of all do not exceed; 0 if there are none. */
uint64_t histogram_quantile(const struct histogram *histogram, double fraction);

/*
 * "p50 0.83 us  p90 ...  max ..." on one line, and the same as an object in microseconds: null
 * where there are none.
 */
void histogram_print(const struct histogram *histogram, FILE *out);
void histogram_json(const struct histogram *histogram, struct json *json, const char *key);

#endif

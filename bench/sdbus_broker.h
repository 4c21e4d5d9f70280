/* SPDX-License-Identifier: MIT */
/* A private dbus-broker for the length of a run. */
#ifndef BENCH_SDBUS_BROKER_H
#define BENCH_SDBUS_BROKER_H

#include "harness.h"

/* The broker listens at the job's address with this behind it. */
#define SDBUS_BROKER_SUFFIX ".bus"

bool sdbus_have_broker(void);

/*
 * Starts the broker with a policy that permits all. Its processor time is charged to the calls.
 * Negative on failure.
 */
int sdbus_start_broker(struct bench_job *job);

#endif

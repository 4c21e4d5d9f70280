/* SPDX-License-Identifier: MIT */
/* One request at the test service. */
#ifndef TESTS_SUPPORT_WORK_H
#define TESTS_SUPPORT_WORK_H

#include "service.h"

struct work;

/* A request has come, more of it or more room has come, it has ended. */
void work_begin(struct service *service, struct aph_call *call);
void work_step(struct work *work);
void work_end(struct work *work);

/* Frees what is left when the service is closed. */
void work_free_all(struct service *service);

#endif

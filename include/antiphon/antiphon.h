/* SPDX-License-Identifier: MIT */
/* All of libantiphon: named two-phase calls between processes. */
#ifndef ANTIPHON_ANTIPHON_H
#define ANTIPHON_ANTIPHON_H

#include <antiphon/api.h>
#include <antiphon/call.h>
#include <antiphon/channel.h>
#include <antiphon/credentials.h>
#include <antiphon/directory.h>
#include <antiphon/endpoint.h>
#include <antiphon/error.h>
#include <antiphon/event.h>
#include <antiphon/name.h>

#endif

/* SPDX-License-Identifier: MIT */
/*
 * The two processes at the ends of the wire: a service that echoes, and a client that checks what
 * comes back.
 */
#ifndef TESTS_INTEGRATION_RX_CALLER_H
#define TESTS_INTEGRATION_RX_CALLER_H

#include <stddef.h>
#include <stdint.h>

#define CALLER_PORT    7009
#define CALLER_SERVICE 147

/* Serves until the process is killed; writes a byte to `ready_fd` when it can be called. */
_Noreturn void caller_serve(uint32_t udp_flags, int ready_fd);
/*
 * Makes `n` calls, up to four at once, with bodies of up to `len_max` bytes, then ends the process:
 * 0 when each came back as it should.
 */
_Noreturn void caller_call(uint32_t udp_flags, unsigned n, size_t len_max, uint64_t seed);
/* Calls a port where nobody is: 0 when the network said so, and soon. */
_Noreturn void caller_call_nobody(void);

#endif

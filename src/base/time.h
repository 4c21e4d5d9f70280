/* SPDX-License-Identifier: MIT */
/*
 * Time and the CPU: ticks for cheap intervals, a pause for spin loops, the CPU this thread runs on.
 */
#ifndef ANTIPHON_BASE_TIME_H
#define ANTIPHON_BASE_TIME_H

#include <antiphon/api.h>

#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <time.h>
#if __has_include(<sys/rseq.h>)
#include <sys/rseq.h>
#endif

/*
 * A counter that grows steadily and costs little to read; only good for "about that long": one tick
 * is between 0.2 and 1 ns.
 */
static inline uint64_t aph_ticks(void)
{
#if defined(__x86_64__) || defined(__i386__)
	return __builtin_ia32_rdtsc();
#else
	return aph_time_ns();
#endif
}

/* In a spin loop: tells the processor that nothing is to be gained by speculating ahead. */
static inline void aph_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* Fetches a cache line that will be written soon, taking it from the other CPUs. */
static inline void aph_prefetch_to_write(const void *line)
{
#if defined(__x86_64__)
	__asm__ volatile("prefetchw %0" : : "m"(*(const char *)line));
#else
	__builtin_prefetch(line, 1);
#endif
}

/*
 * A full fence: no later load is done before all earlier stores can be seen. ThreadSanitizer knows
 * no fences; the operations around this one are atomic in themselves, which is all that it asks
 * for.
 */
static inline void aph_fence(void)
{
#if defined(__x86_64__)
	/* Faster than the instruction that is made for it, and what compilers emit in its place. */
	__asm__ volatile("lock orl $0, (%%rsp)" : : : "memory", "cc");
#elif defined(__i386__)
	__asm__ volatile("lock orl $0, (%%esp)" : : : "memory", "cc");
#else
	atomic_thread_fence(memory_order_seq_cst);
#endif
}

/* The CPU this thread runs on, or 0 where the system cannot say. */
static inline unsigned aph_cpu(void)
{
	int cpu;

#if defined(RSEQ_SIG) && (defined(__x86_64__) || defined(__aarch64__))
	/*
	 * The kernel keeps it up to date in the thread's own memory, where the C library has asked
	 * for that.
	 */
	cpu = *(volatile const int *)((const char *)__builtin_thread_pointer() + __rseq_offset +
				      offsetof(struct rseq, cpu_id));
	if (__rseq_size && cpu >= 0)
		return (unsigned)cpu;
#endif
	cpu = sched_getcpu();
	return cpu < 0 ? 0 : (unsigned)cpu;
}

/* What is left until `deadline_ns`, for calls that take an interval. */
static inline struct timespec aph_time_left(uint64_t deadline_ns, uint64_t now_ns)
{
	uint64_t left = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
	struct timespec ts = {
		.tv_sec = (time_t)(left / UINT64_C(1000000000)),
		.tv_nsec = (long)(left % UINT64_C(1000000000)),
	};

	return ts;
}

#endif

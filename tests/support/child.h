/* SPDX-License-Identifier: MIT */
/*
 * Child processes with a time limit. A child dies with its parent, checks its own descriptors at
 * its end, and is only ever signalled by its pid.
 */
#ifndef TESTS_SUPPORT_CHILD_H
#define TESTS_SUPPORT_CHILD_H

#include <sys/types.h>

struct child {
	pid_t pid;
	int ctl; /* a socket to the child's `ctl` */
};

#define CHILD_LEAKED	97  /* exit status of a child that left descriptors open */
#define CHILD_TIMED_OUT -1  /* result of child_finish(): it had to be killed */
#define CHILD_SIGNALLED 256 /* added to the number of the signal that ended it */

/* Starts `run(ctl, arg)` in a child process; what it returns is the exit status. */
void child_start(struct child *child, int (*run)(int ctl, void *arg), void *arg);

/* Waits for the child's end and takes it away. */
int child_finish(struct child *child, int timeout_ms);

/* Sends it a signal. */
void child_signal(const struct child *child, int signal);

/* Kills it and takes it away. */
void child_kill(struct child *child);

/*
 * Kills and takes away every child that is left, after a failed test. Returns how many there were.
 */
int child_kill_left(void);

/*
 * One byte from or to the other side's `ctl`. child_hear() gives -1 at its end or after the time
 * limit.
 */
void child_say(int ctl, char byte);
int child_hear(int ctl, int timeout_ms);

/*
 * Waits until the process is in the wanted state of /proc/PID/stat ('T', 'S'); checks that it gets
 * there.
 */
void child_await_state(pid_t pid, char state, int timeout_ms);

/* Waits until the first thread of the process sleeps and has not run for 100 ms. */
void child_await_rest(pid_t pid);

/* Context switches of its own will that all threads of the process have made. */
long child_switches(pid_t pid);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Starting programs, which may inherit sockets. What forks by the C library's own handlers needs
 * nothing here; what replaces the program, or starts another one past those handlers, moves the
 * sockets to a broker before.
 */
#include "preload.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

/* -- in place of this one ---------------------------------------------------------------------- */

/*
 * Sockets that are closed on the way then end as those of a kernel do. Without a broker it goes on
 * without.
 */
static void before_exec(void)
{
	int saved = errno;

	(void)aph_rxrpc_share();
	errno = saved;
}

APH_API int execve(const char *path, char *const argv[], char *const envp[])
{
	APH_AFRX_REAL(execve);

	before_exec();
	return real(path, argv, envp);
}

APH_API int execv(const char *path, char *const argv[])
{
	APH_AFRX_REAL(execv);

	before_exec();
	return real(path, argv);
}

APH_API int execvp(const char *file, char *const argv[])
{
	APH_AFRX_REAL(execvp);

	before_exec();
	return real(file, argv);
}

APH_API int execvpe(const char *file, char *const argv[], char *const envp[])
{
	APH_AFRX_REAL(execvpe);

	before_exec();
	return real(file, argv, envp);
}

APH_API int fexecve(int fd, char *const argv[], char *const envp[])
{
	APH_AFRX_REAL(fexecve);

	before_exec();
	return real(fd, argv, envp);
}

APH_API int execveat(int dir, const char *path, char *const argv[], char *const envp[], int flags)
{
	APH_AFRX_REAL(execveat);

	before_exec();
	return real(dir, path, argv, envp, flags);
}

/* How many there are, the NULL at the end included. */
static size_t count(const char *first, va_list list)
{
	size_t n = 1;

	for (; first; first = va_arg(list, const char *))
		n++;
	return n;
}

static void collect(char **argv, const char *first, size_t n, va_list list)
{
	size_t i;

	argv[0] = (char *)(uintptr_t)first;
	for (i = 1; i < n; i++)
		argv[i] = va_arg(list, char *);
}

/*
 * Declares `argv`, the vector of the arguments from `first` on, and `list`, which is behind them
 * and is to be ended. On the stack: between fork() and exec a program with threads may allocate
 * nothing.
 */
#define COLLECT_ARGUMENTS                                \
	va_list list;                                    \
	char **argv;                                     \
	size_t n_args;                                   \
	va_start(list, first);                           \
	n_args = count(first, list);                     \
	va_end(list);                                    \
	argv = __builtin_alloca(n_args * sizeof(*argv)); \
	va_start(list, first);                           \
	collect(argv, first, n_args, list)

/*
 * The functions with a list of arguments are those with a vector. clang-tidy 14 takes no note of
 * va_start().
 */
/* NOLINTBEGIN(clang-analyzer-valist.Uninitialized) */

APH_API int execl(const char *path, const char *first, ...)
{
	COLLECT_ARGUMENTS;

	va_end(list);
	return execv(path, argv);
}

APH_API int execlp(const char *file, const char *first, ...)
{
	COLLECT_ARGUMENTS;

	va_end(list);
	return execvp(file, argv);
}

APH_API int execle(const char *path, const char *first, ...)
{
	COLLECT_ARGUMENTS;
	char **envp = va_arg(list, char **);

	va_end(list);
	return execve(path, argv, envp);
}

/* NOLINTEND(clang-analyzer-valist.Uninitialized) */

/* -- beside this one --------------------------------------------------------------------------- */

static bool is_inherited(int fd)
{
	return aph_rxrpc_is_socket(fd) && !(fcntl(fd, F_GETFD) & FD_CLOEXEC);
}

/* Only where a socket can be inherited: staying in this process is faster. */
static void before_spawn(bool has_actions)
{
	int saved = errno, fd, max = (int)sysconf(_SC_OPEN_MAX);
	bool found = has_actions;

	for (fd = 0; !found && fd < max && fd < 65536; fd++)
		found = is_inherited(fd);
	if (found)
		(void)aph_rxrpc_share();
	errno = saved;
}

APH_API int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
			const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
	APH_AFRX_REAL(posix_spawn);

	before_spawn(actions != NULL);
	return real(pid, path, actions, attr, argv, envp);
}

APH_API int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
			 const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
	APH_AFRX_REAL(posix_spawnp);

	before_spawn(actions != NULL);
	return real(pid, file, actions, attr, argv, envp);
}

APH_API int system(const char *command)
{
	APH_AFRX_REAL(system);

	before_spawn(false);
	return real(command);
}

APH_API FILE *popen(const char *command, const char *type)
{
	APH_AFRX_REAL(popen);

	before_spawn(false);
	return real(command, type);
}

/* A child that borrows our memory cannot close or use a socket without doing so for us. */
APH_API pid_t vfork(void)
{
	return fork();
}

/* SPDX-License-Identifier: MIT */
/*
 * Socket options. Those of SOL_SOCKET are the pair's own, but for some that would say what it is.
 */
#include "share.h"
#include "socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#define NAME_MAX_LEN 4095 /* of a key's description: less than a page */
#define BUFFER_MIN   4608
#define ETOOSMALL    525 /* of Linux, without a name in user space */

uint64_t aph_afrx_deadline(int fd, int option, int flags)
{
	socklen_t len = sizeof(struct timeval);
	struct timeval time = { 0 };
	int status = fcntl(fd, F_GETFL);

	if ((flags & MSG_DONTWAIT) || (status >= 0 && (status & O_NONBLOCK)))
		return APH_NOW;
	if (syscall(SYS_getsockopt, fd, SOL_SOCKET, option, &time, &len) < 0 ||
	    (time.tv_sec == 0 && time.tv_usec == 0))
		return APH_FOREVER;
	return aph_deadline_ms((uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_usec / 1000);
}

bool aph_afrx_sets_option(int option)
{
	return option == SO_SNDBUF || option == SO_SNDBUFFORCE || option == SO_RCVBUF ||
	       option == SO_RCVBUFFORCE || option == SO_TIMESTAMP || option == SO_TIMESTAMPNS;
}

bool aph_afrx_gets_option(int option)
{
	return option == SO_TYPE || option == SO_DOMAIN || option == SO_PROTOCOL ||
	       option == SO_ACCEPTCONN || option == SO_ERROR || option == SO_SNDBUF ||
	       option == SO_RCVBUF;
}

/* -- setting ----------------------------------------------------------------------------------- */

static int set_name(const struct aph_afrx_socket *s, char **name, const char *type,
		    const void *value, socklen_t len)
{
	char *copy;
	int r;

	if (s->state != APH_AFRX_UNBOUND)
		return -EISCONN;
	if (*name || len == 0 || len > NAME_MAX_LEN)
		return -EINVAL;
	copy = calloc(1, (size_t)len + 1);
	if (!copy)
		return -ENOMEM;
	r = aph_afrx_copy_in(copy, value, len);
	if (r == 0)
		r = aph_afrx_key_find(type, copy, false);
	if (r < 0) {
		free(copy);
		return r;
	}
	*name = copy;
	return 0;
}

static int set_level(struct aph_afrx_socket *s, const void *value, socklen_t len)
{
	uint32_t level;
	int r;

	if (len != sizeof(level))
		return -EINVAL;
	if (s->state != APH_AFRX_UNBOUND)
		return -EISCONN;
	r = aph_afrx_copy_in(&level, value, sizeof(level));
	if (r < 0)
		return r;
	if (level > RXRPC_SECURITY_ENCRYPT)
		return -EINVAL;
	s->min_level = level;
	return 0;
}

static int set_exclusive(struct aph_afrx_socket *s, socklen_t len)
{
	if (len != 0)
		return -EINVAL;
	if (s->state != APH_AFRX_UNBOUND)
		return -EISCONN;
	s->exclusive = true;
	return 0;
}

static bool is_bound_to(const struct aph_afrx_socket *s, uint16_t service)
{
	return service == s->services[0] || service == s->services[1];
}

static int set_upgrade(struct aph_afrx_socket *s, const void *value, socklen_t len)
{
	uint16_t ids[2];
	int r;

	if (len != sizeof(ids))
		return -EINVAL;
	if (s->state != APH_AFRX_SERVER_BOUND2)
		return -EISCONN;
	r = aph_afrx_copy_in(ids, value, sizeof(ids));
	if (r < 0)
		return r;
	if (s->upgrade_from || ids[0] == ids[1] || !is_bound_to(s, ids[0]) ||
	    !is_bound_to(s, ids[1]))
		return -EINVAL;
	s->upgrade_from = ids[0];
	s->upgrade_to = ids[1];
	return aph_afrx_serve(s);
}

static int set_own(struct aph_afrx_socket *s, int option, const void *value, socklen_t len)
{
	switch (option) {
	case RXRPC_SECURITY_KEY:
		return set_name(s, &s->key, "rxrpc", value, len);
	case RXRPC_SECURITY_KEYRING:
		return set_name(s, &s->keyring, "keyring", value, len);
	case RXRPC_EXCLUSIVE_CONNECTION:
		return set_exclusive(s, len);
	case RXRPC_MIN_SECURITY_LEVEL:
		return set_level(s, value, len);
	case RXRPC_UPGRADEABLE_SERVICE:
		return set_upgrade(s, value, len);
	default:
		return -ENOPROTOOPT;
	}
}

/*
 * The pair's buffers are what makes poll() work: what the program wants is kept apart, doubled as
 * kernels do.
 */
static int set_buffer(int *size, const void *value, socklen_t len)
{
	int wanted, r;

	if (len < sizeof(wanted))
		return -EINVAL;
	r = aph_afrx_copy_in(&wanted, value, sizeof(wanted));
	if (r < 0)
		return r;
	if (wanted < 0 || wanted > INT32_MAX / 2)
		wanted = INT32_MAX / 2;
	*size = wanted * 2 < BUFFER_MIN ? BUFFER_MIN : wanted * 2;
	return 0;
}

static int set_general(struct aph_afrx_socket *s, int fd, int option, const void *value,
		       socklen_t len)
{
	int r;

	switch (option) {
	case SO_SNDBUF:
	case SO_SNDBUFFORCE:
		r = set_buffer(&s->send_buffer, value, len);
		aph_afrx_settle_room(s, fd);
		return r;
	case SO_RCVBUF:
	case SO_RCVBUFFORCE:
		return set_buffer(&s->receive_buffer, value, len);
	case SO_TIMESTAMP:
	case SO_TIMESTAMPNS:
		s->stamped = true;
		/* fall through */
	default:
		return syscall(SYS_setsockopt, fd, SOL_SOCKET, option, value, len) < 0 ? -errno : 0;
	}
}

APH_API int aph_rxrpc_setsockopt(int fd, int level, int option, const void *value, socklen_t len)
{
	struct aph_afrx_socket *s;
	int r = aph_afrx_get(&s, fd);

	if (r == -EREMOTE)
		return aph_afrx_remote_setsockopt(fd, level, option, value, len);
	if (r < 0)
		return (int)aph_afrx_result(r);
	/* Options of other levels are let pass, as they always were. */
	if (level == SOL_RXRPC)
		r = set_own(s, option, value, len);
	else if (level == SOL_SOCKET)
		r = set_general(s, fd, option, value, len);
	return (int)aph_afrx_result(aph_afrx_put(s, r));
}

/* -- getting ----------------------------------------------------------------------------------- */

static int give_int(int number, void *value, socklen_t *len, socklen_t given)
{
	socklen_t n = given < sizeof(number) ? given : (socklen_t)sizeof(number);
	int r = aph_afrx_copy_out(value, &number, n);

	return r < 0 ? r : aph_afrx_copy_out(len, &n, sizeof(n));
}

static int get_general(const struct aph_afrx_socket *s, int fd, int option, void *value,
		       socklen_t *len, socklen_t given)
{
	switch (option) {
	case SO_TYPE:
		return give_int(SOCK_DGRAM, value, len, given);
	case SO_DOMAIN:
		return give_int(AF_RXRPC, value, len, given);
	case SO_PROTOCOL:
		return give_int(s->family, value, len, given);
	case SO_ACCEPTCONN:
	case SO_ERROR:
		return give_int(0, value, len, given);
	case SO_SNDBUF:
		return give_int(s->send_buffer ? s->send_buffer : APH_AFRX_BUFFER_DEFAULT, value,
				len, given);
	case SO_RCVBUF:
		return give_int(s->receive_buffer ? s->receive_buffer : APH_AFRX_BUFFER_DEFAULT,
				value, len, given);
	default:
		return syscall(SYS_getsockopt, fd, SOL_SOCKET, option, value, len) < 0 ? -errno : 0;
	}
}

static int get(const struct aph_afrx_socket *s, int fd, int level, int option, void *value,
	       socklen_t *len)
{
	socklen_t given;
	int r;

	r = aph_afrx_copy_in(&given, len, sizeof(given));
	if (r < 0)
		return r;
	if (given > INT32_MAX)
		return -EINVAL;
	if (level == SOL_SOCKET)
		return get_general(s, fd, option, value, len, given);
	if (level != SOL_RXRPC || option != RXRPC_SUPPORTED_CMSG)
		return -EOPNOTSUPP;
	if (given < sizeof(int))
		return -ETOOSMALL;
	return give_int(RXRPC__SUPPORTED - 1, value, len, given);
}

APH_API int aph_rxrpc_getsockopt(int fd, int level, int option, void *value, socklen_t *len)
{
	struct aph_afrx_socket *s;
	int r = aph_afrx_get(&s, fd);

	if (r == -EREMOTE)
		return aph_afrx_remote_getsockopt(fd, level, option, value, len);
	if (r < 0)
		return (int)aph_afrx_result(r);
	return (int)aph_afrx_result(aph_afrx_put(s, get(s, fd, level, option, value, len)));
}

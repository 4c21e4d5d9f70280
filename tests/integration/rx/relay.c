/* SPDX-License-Identifier: MIT */
/* The devices, and the loop that carries packets. */
#include "relay.h"

#include <antiphon/api.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PACKET_MAX  2048
#define DELAYED_MAX 64

struct delayed {
	uint64_t due_ns;
	int to;
	size_t len;
	unsigned char bytes[PACKET_MAX];
};

static int open_tun(const char *name)
{
	struct ifreq request = { 0 };
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return -errno;
	request.ifr_flags = IFF_TUN | IFF_NO_PI;
	memcpy(request.ifr_name, name, strlen(name));
	if (ioctl(fd, TUNSETIFF, &request) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

static int configure(int sock, const char *name, unsigned long what, struct ifreq *request)
{
	memset(request->ifr_name, 0, sizeof(request->ifr_name));
	memcpy(request->ifr_name, name, strlen(name));
	return ioctl(sock, what, request);
}

static struct sockaddr in_address(const char *text)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	struct sockaddr any;

	CHECK(inet_pton(AF_INET, text, &in.sin_addr) == 1);
	memcpy(&any, &in, sizeof(any));
	return any;
}

/* Up, with an address of the wire's network. */
static int set_up(const char *name, const char *address, int mtu)
{
	int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), r;
	struct ifreq request = { 0 };

	request.ifr_addr = in_address(address);
	r = configure(sock, name, SIOCSIFADDR, &request);
	request.ifr_netmask = in_address("255.255.255.0");
	r = r < 0 ? r : configure(sock, name, SIOCSIFNETMASK, &request);
	request.ifr_mtu = mtu;
	r = r < 0 ? r : configure(sock, name, SIOCSIFMTU, &request);
	memset(&request, 0, sizeof(request));
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	r = r < 0 ? r : configure(sock, name, SIOCSIFFLAGS, &request);
	r = r < 0 ? -errno : 0;
	close(sock);
	return r;
}

int relay_enter(const char *address, int mtu, const char **why)
{
	int fd, r;

	*why = "a network namespace";
	if (unshare(CLONE_NEWNET) < 0)
		return -errno;
	*why = "a TUN device";
	fd = open_tun("wire");
	if (fd < 0)
		return fd;
	r = set_up("wire", address, mtu ? mtu : 1500);
	if (r < 0) {
		close(fd);
		return r;
	}
	return fd;
}

static void carry(struct relay *relay, int to, const unsigned char *bytes, size_t len)
{
	relay->n_carried++;
	(void)!write(relay->ends[to], bytes, len);
}

/* Where the draw of luck for this packet falls. */
static bool strikes(struct relay *relay, unsigned per_mille)
{
	return rng_below(&relay->rng, 1000) < per_mille;
}

/*
 * A router on the way, and one that does not tell. What it may fragment it puts together again as
 * well.
 */
static bool swallows(struct relay *relay, const unsigned char *bytes, size_t len)
{
	if (!relay->faults.black_hole || len <= relay->faults.black_hole || !(bytes[6] & 0x40))
		return false;
	relay->n_swallowed++;
	return true;
}

static void take(struct relay *relay, struct delayed *delayed, unsigned *n_delayed, int from)
{
	const struct relay_faults *faults = &relay->faults;
	unsigned char bytes[PACKET_MAX];

	for (int i = 0; i < 64; i++) {
		ssize_t len = read(relay->ends[from], bytes, sizeof(bytes));

		if (len <= 0)
			return;
		if (swallows(relay, bytes, (size_t)len))
			continue;
		if (strikes(relay, faults->loss)) {
			relay->n_lost++;
			continue;
		}
		if (strikes(relay, faults->duplicates))
			carry(relay, !from, bytes, (size_t)len);
		if (*n_delayed < DELAYED_MAX && strikes(relay, faults->delays)) {
			struct delayed *d = &delayed[(*n_delayed)++];

			relay->n_delayed++;
			d->due_ns =
				aph_time_ns() +
				UINT64_C(1000) * rng_below(&relay->rng, faults->delay_max_us + 1);
			d->to = !from;
			d->len = (size_t)len;
			memcpy(d->bytes, bytes, d->len);
			continue;
		}
		carry(relay, !from, bytes, (size_t)len);
	}
}

static void release(struct relay *relay, struct delayed *delayed, unsigned *n)
{
	uint64_t now = aph_time_ns();

	for (unsigned i = 0; i < *n;) {
		if (delayed[i].due_ns > now) {
			i++;
			continue;
		}
		carry(relay, delayed[i].to, delayed[i].bytes, delayed[i].len);
		delayed[i] = delayed[--*n];
	}
}

int relay_run(struct relay *relay, pid_t pid)
{
	static struct delayed delayed[DELAYED_MAX];
	unsigned n = 0;
	int status;

	while (waitpid(pid, &status, WNOHANG) == 0) {
		struct pollfd fds[2] = { { .fd = relay->ends[0], .events = POLLIN },
					 { .fd = relay->ends[1], .events = POLLIN } };

		(void)poll(fds, 2, n ? 1 : 20);
		release(relay, delayed, &n);
		take(relay, delayed, &n, 0);
		take(relay, delayed, &n, 1);
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

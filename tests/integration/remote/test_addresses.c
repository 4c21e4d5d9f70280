/* SPDX-License-Identifier: MIT */
/* Addresses that are wrong, each with words that say how; and who may serve where. */
#include "remote.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct {
	const char *address;
	int channel, service; /* what opening them returns */
	const char *says;
} addresses[] = {
	{ "rx:", -EINVAL, -EINVAL, "names no service" },
	{ "rx:127.0.0.1", -EINVAL, -EINVAL, "names no service" },
	{ "rx:127.0.0.1:7000", -EINVAL, -EINVAL, "names no service" },
	{ "rx:/1", -EINVAL, -EINVAL, "HOST:PORT" },
	{ "rx:127.0.0.1/1", -EINVAL, -EINVAL, "HOST:PORT" },
	{ "rx:::1:7000/1", -EINVAL, -EINVAL, "HOST:PORT" },
	{ "rx:[::1:7000/1", -EINVAL, -EINVAL, "HOST:PORT" },
	{ "rx:[::1]7000/1", -EINVAL, -EINVAL, "HOST:PORT" },
	{ "rx:[::1]/1", -EINVAL, -EINVAL, "HOST:PORT" },
	{ "rx:127.0.0.1:/1", -EINVAL, -EINVAL, "port" },
	{ "rx:127.0.0.1:x/1", -EINVAL, -EINVAL, "port" },
	{ "rx:127.0.0.1:-1/1", -EINVAL, -EINVAL, "port" },
	{ "rx:127.0.0.1:+1/1", -EINVAL, -EINVAL, "port" },
	{ "rx:127.0.0.1: 1/1", -EINVAL, -EINVAL, "port" },
	{ "rx:127.0.0.1:7000x/1", -EINVAL, -EINVAL, "port" },
	{ "rx:127.0.0.1:65536/1", -EINVAL, -EINVAL, "port" },
	{ "rx:127.0.0.1:99999999999999999999/1", -EINVAL, -EINVAL, "port" },
	{ "rx:127.0.0.1:7000/", -EINVAL, -EINVAL, "service number" },
	{ "rx:127.0.0.1:7000/0", -EINVAL, -EINVAL, "service number" },
	{ "rx:127.0.0.1:7000/x", -EINVAL, -EINVAL, "service number" },
	{ "rx:127.0.0.1:7000/1x", -EINVAL, -EINVAL, "service number" },
	{ "rx:127.0.0.1:7000/65536", -EINVAL, -EINVAL, "service number" },
	{ "rx:127.0.0.1:7000/1/", -EINVAL, -EINVAL, "service number" },
	{ "rx:127.0.0.1:0/1", -EINVAL, 0, "port" },
	{ "rx::7000/1", -EINVAL, -EACCES, "host" },
	{ "rx:*:7000/1", -EINVAL, -EACCES, "host" },
	{ "rx:[]:7000/1", -EINVAL, -EACCES, "host" },
	{ "rx:0.0.0.0:0/1", -EINVAL, -EACCES, "others than this host" },
	{ "rx:[::]:0/1", -EINVAL, -EACCES, "others than this host" },
	{ "rx:[127.0.0.1]:0/1", -EINVAL, 0, "port" },
	{ "rx:[::1]:0/1", -EINVAL, 0, "port" },
};

static void malformed(void **state)
{
	struct aph_endpoint *ep;
	struct aph_channel *channel;
	struct aph_service *service;
	char text[1000];
	int r;

	(void)state;
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	for (size_t i = 0; i < SUITE_LEN(addresses); i++) {
		r = aph_channel_open(&channel, ep, addresses[i].address, NULL);
		if (r != addresses[i].channel)
			fail_msg("channel '%s': %d, %s", addresses[i].address, r, aph_error());
		if (addresses[i].service != -EACCES && !strstr(aph_error(), addresses[i].says))
			fail_msg("channel '%s': %s", addresses[i].address, aph_error());
		r = aph_service_open(&service, ep, addresses[i].address, NULL);
		if (r != addresses[i].service)
			fail_msg("service '%s': %d, %s", addresses[i].address, r, aph_error());
		if (r == 0)
			aph_service_close(service);
		else if (!strstr(aph_error(), addresses[i].says))
			fail_msg("service '%s': %s", addresses[i].address, aph_error());
	}
	memset(text, 'x', sizeof(text));
	memcpy(text, "rx:", 3);
	text[sizeof(text) - 1] = 0;
	assert_int_equal(aph_channel_open(&channel, ep, text, NULL), -EINVAL);
	assert_non_null(strstr(aph_error(), "longer"));
	aph_endpoint_free(ep);
}

static void options_that_do_not_fit(void **state)
{
	static const uint32_t flags[] = { APH_SERVICE_TAKE, APH_SERVICE_GIVE,
					  APH_SERVICE_TERMINATE };
	struct aph_service_options options = { .size = sizeof(options) };
	struct aph_channel_options waits = { .size = sizeof(waits), .flags = APH_CHANNEL_WAIT };
	const char *address = remote_address();
	struct aph_endpoint *ep, *other;
	struct aph_channel *channel;
	struct aph_service *service;

	(void)state;
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	assert_int_equal(aph_endpoint_new(&other, NULL), 0);
	for (size_t i = 0; i < SUITE_LEN(flags); i++) {
		options.flags = flags[i];
		assert_int_equal(aph_service_open(&service, ep, address, &options), -EINVAL);
	}
	assert_int_equal(aph_channel_open(&channel, ep, address, &waits), -EINVAL);
	/* Taken: by this endpoint, and by another. */
	assert_int_equal(aph_service_open(&service, ep, address, NULL), 0);
	assert_int_equal(aph_service_open(NULL, ep, address, NULL), -EEXIST);
	assert_int_equal(aph_service_open(NULL, other, address, NULL), -EADDRINUSE);
	assert_int_equal(aph_service_open(NULL, ep, remote_other(address, 148), NULL), 0);
	aph_service_close(service);
	assert_int_equal(aph_service_open(&service, ep, address, NULL), 0);
	aph_endpoint_free(other);
	aph_endpoint_free(ep);
}

/* Who calls cannot be told: to keep anybody out is refused, on the loopback interface too. */
static void only_some_users(void **state)
{
	static const uint32_t refused[] = {
		APH_ALLOW_USER,
		APH_ALLOW_GROUP,
		APH_ALLOW_USER | APH_ALLOW_GROUP,
		APH_ALLOW_NONE,
	};
	static const uint32_t fine[] = {
		0,
		APH_ALLOW_WORLD,
		APH_ALLOW_ANY,
		APH_ALLOW_USER | APH_ALLOW_ANONYMOUS,
	};
	struct aph_service_options options = { .size = sizeof(options) };
	const char *address = remote_address();
	struct aph_endpoint *ep;
	struct aph_service *service;

	(void)state;
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	for (size_t i = 0; i < SUITE_LEN(refused); i++) {
		options.flags = refused[i];
		assert_int_equal(aph_service_open(&service, ep, address, &options), -EACCES);
		assert_non_null(strstr(aph_error(), "anonymous"));
	}
	for (size_t i = 0; i < SUITE_LEN(fine); i++) {
		options.flags = fine[i];
		assert_int_equal(aph_service_open(&service, ep, address, &options), 0);
		aph_service_close(service);
	}
	aph_endpoint_free(ep);
}

/*
 * On the wildcard address a service has to say that it takes anybody; then IPv4 and IPv6 reach it.
 */
static void anonymous(void **state)
{
	struct service_config config = { .options = { .flags = APH_ALLOW_ANONYMOUS } };
	char address[64], text[64];
	struct service service;
	struct client client;
	unsigned port;

	(void)state;
	while (sscanf(remote_address(), "rx:127.0.0.1:%u", &port) != 1)
		;
	snprintf(address, sizeof(address), "rx:*:%u/%d", port, REMOTE_SERVICE);
	config.address = address;
	service_start(&service, SERVICE_THREAD, &config);
	snprintf(text, sizeof(text), "rx:127.0.0.1:%u/%d", port, REMOTE_SERVICE);
	client_open(&client, text);
	client_echo(client.channel);
	client_close(&client);
	snprintf(text, sizeof(text), "rx:[::1]:%u/%d", port, REMOTE_SERVICE);
	client_open(&client, text);
	client_echo(client.channel);
	client_close(&client);
	service_stop(&service);
}

static bool without_ipv6; /* as if this machine had none */

APH_API int socket(int family, int type, int protocol)
{
	int (*real)(int, int, int);

	*(void **)&real = dlsym(RTLD_NEXT, "socket");
	if (without_ipv6 && family == AF_INET6) {
		errno = EAFNOSUPPORT;
		return -1;
	}
	return real(family, type, protocol);
}

static void every_address_without_ipv6(void **state)
{
	struct aph_service_options options = { .size = sizeof(options),
					       .flags = APH_ALLOW_ANONYMOUS };
	struct aph_endpoint *ep, *other;
	struct aph_service *service;
	char text[APH_ADDRESS_MAX + 1];
	unsigned port;

	(void)state;
	without_ipv6 = true;
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	assert_int_equal(aph_endpoint_new(&other, NULL), 0);
	assert_int_equal(aph_service_open(&service, ep, "rx:*:0/147", &options), 0);
	assert_int_equal(aph_service_address(service, text, sizeof(text)), 0);
	assert_int_equal(sscanf(text, "rx:0.0.0.0:%u/147", &port), 1);
	/* And others share it. */
	snprintf(text, sizeof(text), "rx:*:%u/148", port);
	assert_int_equal(aph_service_open(NULL, ep, text, &options), 0);
	assert_int_equal(aph_service_open(NULL, ep, text, &options), -EEXIST);
	assert_int_equal(aph_service_open(NULL, other, text, &options), -EADDRINUSE);
	snprintf(text, sizeof(text), "rx:*:%u/149", port);
	assert_int_equal(aph_service_open(NULL, other, text, &options), 0);
	aph_endpoint_free(ep);
	aph_endpoint_free(other);
	without_ipv6 = false;
}

/* An IPv4 address in the clothes of IPv6, at either end. */
static void mapped(void **state)
{
	char address[64], text[64];
	struct service service;
	struct client client;
	unsigned port;

	(void)state;
	while (sscanf(remote_address(), "rx:127.0.0.1:%u", &port) != 1)
		;
	snprintf(address, sizeof(address), "rx:[::ffff:127.0.0.1]:%u/%d", port, REMOTE_SERVICE);
	snprintf(text, sizeof(text), "rx:127.0.0.1:%u/%d", port, REMOTE_SERVICE);
	for (int i = 0; i < 2; i++) {
		service_start_simple(&service, SERVICE_THREAD, i ? address : text);
		client_open(&client, i ? text : address);
		client_echo(client.channel);
		client_close(&client);
		service_stop(&service);
	}
}

/* A service tells where it is, whoever chose the port. */
static void where_it_is(void **state)
{
	static const char *const places[] = { "rx:127.0.0.1:0/147", "rx:[::1]:0/147",
					      "rx:localhost:0/147" };
	struct aph_endpoint *ep;
	struct aph_channel *channel;
	struct aph_service *service;
	char text[APH_ADDRESS_MAX + 1];

	(void)state;
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	for (size_t i = 0; i < SUITE_LEN(places); i++) {
		assert_int_equal(aph_service_open(&service, ep, places[i], NULL), 0);
		assert_int_equal(aph_service_address(service, text, sizeof(text)), 0);
		assert_int_equal(aph_channel_open(&channel, ep, text, NULL), 0);
		assert_int_equal(aph_service_open(NULL, ep, text, NULL), -EEXIST);
		assert_int_equal(aph_service_address(service, text, strlen(text)), -ENOSPC);
	}
	assert_int_equal(aph_service_open(&service, ep, "caps:where,uid=any,gid=any", NULL), 0);
	assert_int_equal(aph_service_address(service, text, sizeof(text)), 0);
	assert_string_equal(text, "caps:where,uid=any,gid=any");
	assert_int_equal(aph_service_address(service, text, strlen(text)), -ENOSPC);
	aph_endpoint_free(ep);
}

/* The number of services that are there, all of this name. */
static size_t n_shown(const char *name)
{
	struct aph_service_info *list;
	size_t n;

	assert_int_equal(aph_directory_list(&list, &n, aph_deadline_ms(1000)), 0);
	for (size_t i = 0; i < n; i++)
		assert_string_equal(list[i].name.name, name);
	free(list);
	return n;
}

/* Without a place to be shown in, a service is there all the same, and can be shown later. */
static void shown_later(void **state)
{
	char text[APH_ADDRESS_MAX + 1], parent[200], path[220];
	struct aph_endpoint *ep;
	struct aph_service *service;

	(void)state;
	snprintf(parent, sizeof(parent), "%s/missing", dir_path());
	snprintf(path, sizeof(path), "%s/run", parent);
	assert_int_equal(setenv("ANTIPHON_RUNTIME_DIR", path, 1), 0);
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	assert_int_equal(aph_service_open(&service, ep, "rx:127.0.0.1:0/147", NULL), 0);
	assert_int_equal(aph_service_address(service, text, sizeof(text)), 0);
	assert_int_equal(aph_service_show(service), -ENOENT);
	assert_non_null(strstr(aph_error(), path));
	assert_int_equal(mkdir(parent, 0755), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(aph_service_show(service), 0);
		assert_int_equal(n_shown(text), 1);
	}
	assert_null(aph_service_close(service));
	assert_int_equal(n_shown(text), 0);
	/* One of this host is always shown, or not there. */
	assert_int_equal(aph_service_open(&service, ep, "caps:here", NULL), 0);
	assert_int_equal(aph_service_show(service), 0);
	aph_endpoint_free(ep);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(rmdir(parent), 0);
	assert_int_equal(setenv("ANTIPHON_RUNTIME_DIR", dir_path(), 1), 0);
}

static void opened_later(void **state)
{
	struct aph_channel_options options = { .size = sizeof(options),
					       .flags = APH_CHANNEL_ASYNC };
	const char *address = remote_address();
	struct service service;
	struct client client;

	(void)state;
	service_start_simple(&service, SERVICE_THREAD, address);
	assert_int_equal(aph_endpoint_new(&client.ep, NULL), 0);
	assert_int_equal(aph_channel_open(&client.channel, client.ep, address, &options), 0);
	client_expect(client.ep, APH_EVENT_OPEN, NULL);
	client_echo(client.channel);
	client_close(&client);
	service_stop(&service);
}

/* The resolver of this program: it takes its time over one name. */
static struct {
	pthread_barrier_t asked, answer;
} slow;

#define SLOW_NAME "takes.its.time.example"

APH_API int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
			struct addrinfo **found)
{
	int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

	*(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
	if (host && strcmp(host, SLOW_NAME) == 0) {
		(void)pthread_barrier_wait(&slow.asked);
		(void)pthread_barrier_wait(&slow.answer);
		host = "127.0.0.1";
	}
	return real(host, port, hints, found);
}

static void *open_slowly(void *arg)
{
	struct client *client = arg;

	CHECK_OK(aph_channel_open(&client->channel, client->ep, "rx:" SLOW_NAME ":7/1", NULL));
	return NULL;
}

/* While one thread waits for the resolver others use the endpoint. */
static void resolving_holds_nobody_up(void **state)
{
	struct service service;
	struct client client, other;
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_barrier_init(&slow.asked, NULL, 2), 0);
	assert_int_equal(pthread_barrier_init(&slow.answer, NULL, 2), 0);
	service_start_simple(&service, SERVICE_THREAD, remote_address());
	client_open(&client, service.config.address);
	other.ep = client.ep;
	assert_int_equal(pthread_create(&thread, NULL, open_slowly, &other), 0);
	(void)pthread_barrier_wait(&slow.asked);
	client_echo(client.channel);
	(void)pthread_barrier_wait(&slow.answer);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_true(aph_channel_is_open(other.channel));
	client_close(&client);
	service_stop(&service);
	assert_int_equal(pthread_barrier_destroy(&slow.asked), 0);
	assert_int_equal(pthread_barrier_destroy(&slow.answer), 0);
}

/* Where the runtime directory is full, in a mount namespace of its own. */
static int where_nothing_can_be_shown(int ctl, void *arg)
{
	static const char block[4096];
	struct aph_service *service;
	struct aph_endpoint *ep;
	char path[300];
	int fd;

	(void)ctl;
	(void)arg;
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("tmpfs", dir_path(), "tmpfs", 0, "size=64k,mode=1777") < 0)
		return 77;
	snprintf(path, sizeof(path), "%s/fill", dir_path());
	fd = (int)CHECK_OK(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	while (write(fd, block, sizeof(block)) > 0)
		;
	CHECK(errno == ENOSPC);
	close(fd);
	CHECK_OK(aph_endpoint_new(&ep, NULL));
	errno = 0;
	CHECK_OK(aph_service_open(&service, ep, "rx:127.0.0.1:0/1", NULL));
	aph_endpoint_free(ep);
	return 0;
}

/* Who calls does not need the directory. */
static void a_full_disk(void **state)
{
	struct child child;
	int status;

	(void)state;
	if (geteuid() != 0)
		suite_skip("only root can mount a small file system");
	child_start(&child, where_nothing_can_be_shown, NULL);
	status = child_finish(&child, check_hang_ms(5000));
	if (status == 77)
		suite_skip("no mount namespaces here");
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(malformed),
		SUITE_TEST(options_that_do_not_fit),
		SUITE_TEST(every_address_without_ipv6),
		SUITE_TEST(mapped),
		SUITE_TEST(only_some_users),
		SUITE_TEST(anonymous),
		SUITE_TEST(where_it_is),
		SUITE_TEST(shown_later),
		SUITE_TEST(opened_later),
		SUITE_TEST(resolving_holds_nobody_up),
		SUITE_TEST(a_full_disk),
	};

	return suite_run("remote addresses", tests, SUITE_LEN(tests), 30);
}

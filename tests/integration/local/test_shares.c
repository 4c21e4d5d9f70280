/* SPDX-License-Identifier: MIT */
/*
 * One user cannot use up what a service has for all. Needs root, to become others.
 */
#include "suite.h"
#include "visitor.h"
#include "wire.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

struct crowd {
	_Atomic uint32_t n; /* channels that were opened */
	uid_t uid;
};

/* Opens channels until it is turned away, and stays. */
static int take_all(int ctl, void *arg)
{
	struct crowd *crowd = arg;
	struct aph_endpoint *ep;
	struct aph_channel *channel;
	int r;

	visitor_become(crowd->uid, crowd->uid, NULL, 0);
	CHECK_OK(aph_endpoint_new(&ep, NULL));
	while ((r = aph_channel_open(&channel, ep, "caps:scarce,uid=0", NULL)) == 0)
		crowd->n++;
	CHECK(r == -EBUSY);
	child_say(ctl, 'r');
	CHECK(child_hear(ctl, check_hang_ms(10000)) == 'q');
	aph_endpoint_free(ep);
	return 0;
}

/*
 * One user cannot use up the descriptors of a service: two for each channel, and three where the
 * service keeps the segments to give them away. Others still come in, and root does.
 */
static void a_share_of_the_descriptors(void **state)
{
	enum {
		NOFILE = 120
	};
	struct service_config config = { .address = "scarce", .nofile = NOFILE };
	struct crowd *crowd = mmap(NULL, 2 * sizeof(*crowd), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct service service;
	struct child children[2];
	struct client client;

	(void)state;
	assert_true(crowd != MAP_FAILED);
	for (uint32_t each = 2; each <= 3 && visitor_need_root(); each++) {
		crowd[0] = (struct crowd){ .uid = ANNA };
		crowd[1] = (struct crowd){ .uid = BERT };
		config.options.flags = APH_ALLOW_WORLD | (each == 3 ? APH_SERVICE_GIVE : 0);
		service_start(&service, SERVICE_PROCESS, &config);
		for (int i = 0; i < 2; i++) {
			child_start(&children[i], take_all, &crowd[i]);
			assert_int_equal(child_hear(children[i].ctl, check_hang_ms(10000)), 'r');
		}
		assert_int_equal(crowd[0].n, NOFILE / each / 4 * 3);
		assert_true(crowd[1].n >= 3);
		assert_true(crowd[0].n + crowd[1].n < NOFILE / each);
		client_open(&client, "scarce");
		client_echo(client.channel);
		client_close(&client);
		for (int i = 0; i < 2; i++) {
			child_say(children[i].ctl, 'q');
			assert_int_equal(child_finish(&children[i], check_hang_ms(5000)), 0);
		}
		service_stop(&service);
	}
	munmap(crowd, 2 * sizeof(*crowd));
}

/*
 * Sends descriptors that nobody asked for on several channels, and in calls that nobody answers,
 * and stays.
 */
static int pour(int ctl, void *arg)
{
	enum {
		CHANNELS = 6
	};
	struct wire wires[CHANNELS];
	const char *path = arg;
	int fds[APH_CALL_FDS_MAX], opened = 0;

	visitor_become(ANNA, ANNA, NULL, 0);
	for (int i = 0; i < APH_CALL_FDS_MAX; i++)
		fds[i] = STDERR_FILENO;
	/* The later ones may be turned away. */
	for (int i = 0; i < CHANNELS && wire_open(&wires[i], path, NULL); i++, opened++) {
		for (uint32_t tag = 0; tag < 2; tag++) {
			struct aph_record record = wire_record(APH_RECORD_REQUEST, tag, "h", 1);

			record.n_fds = 8;
			(void)wire_send(wires[i].sock, "d", 1, fds, record.n_fds);
			wire_tell(&wires[i], record);
			(void)wire_echo(&wires[i], 10 + tag, check_ms(1000));
		}
		for (int n = 0; n < 4; n++)
			(void)wire_send(wires[i].sock, "d", 1, fds, APH_CALL_FDS_MAX);
	}
	child_say(ctl, 'r');
	CHECK(child_hear(ctl, check_hang_ms(10000)) == 'q');
	while (opened > 0)
		wire_close(&wires[--opened]);
	return 0;
}

static void call_with_a_descriptor(const char *address)
{
	struct client client;
	struct aph_call *call;
	int fd = STDERR_FILENO;

	client_open(&client, address);
	assert_int_equal(aph_call_new(&call, client.channel, aph_deadline_ms(5000), NULL), 0);
	assert_int_equal(aph_call_send_fds(call, "f", 1, &fd, 1, 0), 1);
	assert_int_equal(client_end(client.ep, call, NULL, NULL).outcome, APH_ANSWERED);
	assert_int_equal(aph_call_take_fds(call, &fd, 1), 1);
	close(fd);
	aph_call_free(call);
	client_close(&client);
}

/* Nor by sending them. */
static void a_share_of_what_is_sent(void **state)
{
	struct service_config config = { .address = "scarce",
					 .nofile = 120,
					 .options.flags = APH_ALLOW_WORLD };
	const struct visitor bert = { .uid = BERT, .gid = BERT, .address = "caps:scarce,uid=0" };
	struct service service;
	struct child child;
	char path[108];

	(void)state;
	if (!visitor_need_root())
		return;
	service_start(&service, SERVICE_PROCESS, &config);
	dir_only_socket(path, sizeof(path));
	child_start(&child, pour, path);
	assert_int_equal(child_hear(child.ctl, check_hang_ms(10000)), 'r');
	visitor_expect(&bert, 0);
	call_with_a_descriptor("scarce");
	child_say(child.ctl, 'q');
	assert_int_equal(child_finish(&child, check_hang_ms(5000)), 0);
	service_stop(&service);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(a_share_of_the_descriptors),
		SUITE_TEST(a_share_of_what_is_sent),
	};

	return suite_run("shares", tests, SUITE_LEN(tests), 60);
}

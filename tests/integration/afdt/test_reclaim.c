/* SPDX-License-Identifier: MIT */
/* The paths of servers that have died, and paths that are long. */
#include "rig.h"

#include <fcntl.h>
#include <sys/stat.h>

static int serve_until_killed(int ctl, void *arg)
{
	(void)arg;
	on_libevent = false;
	open_endpoint();
	options.flags = APH_AFDT_RECLAIM;
	open_server();
	child_say(ctl, 'r');
	while (aph_afdt_endpoint_serve(ep, APH_FOREVER) != -EBADF)
		continue;
	return 1;
}

static void reclaimed(void **state)
{
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	struct aph_afdt_server *other;
	struct child child;

	(void)state;
	open_endpoint();
	options.flags = APH_AFDT_RECLAIM;
	for (int i = 0; i < 3; i++) {
		child_start(&child, serve_until_killed, NULL);
		assert_int_equal(child_hear(child.ctl, check_hang_ms(5000)), 'r');
		/* As long as it lives its path is its own. */
		assert_int_equal(aph_afdt_server_open(&other, ep, path_of("s"), &options, &err),
				 -EADDRINUSE);
		CHECK_ERR(err, AFDT_CREATE_SERVER, AFDT_BIND, EADDRINUSE);
		child_kill(&child);
		dir_check_sockets(1);
		assert_int_equal(afdt_connect(path_of("s"), NULL), -1);
	}
	open_server();
	ask("x", NULL, 0, 5000);
	turn_until(&server_told.requests, 1);
	assert_int_equal(aph_afdt_request_fds_max(held), APH_AFDT_FDS_MAX);
	assert_int_equal(aph_afdt_request_reply(held, &yes), 0);
	turn_until(&client_told.responses, 1);
	/* Nothing stays behind, neither file nor lock. */
	server = aph_afdt_server_close(server);
	dir_check_sockets(0);
	assert_int_equal(access(path_of("s.lock"), F_OK), -1);
	close_all();
}

/* Owners that know of no lock. */
static void reclaimed_from_originals(void **state)
{
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	struct aph_afdt_server *other;
	int listener;

	(void)state;
	open_endpoint();
	options.flags = APH_AFDT_RECLAIM;
	listener = afdt_listen(path_of("s"), &err);
	assert_int_equal(aph_afdt_server_open(&other, ep, path_of("s"), &options, &err),
			 -EADDRINUSE);
	assert_int_equal(access(path_of("s.lock"), F_OK), -1);
	close(listener);
	open_server();
	server = aph_afdt_server_close(server);
	dir_check_sockets(0);
	/* A path that somebody else has taken since is not removed. */
	open_server();
	CHECK_OK(unlink(path_of("s")));
	listener = afdt_listen(path_of("s"), &err);
	server = aph_afdt_server_close(server);
	dir_check_sockets(1);
	close(listener);
	close_all();
}

static void not_reclaimed(void **state)
{
	struct afdt_error_t err = AFDT_ERROR_T_INIT;
	struct aph_afdt_server *other;
	int fd;

	(void)state;
	open_endpoint();
	options.flags = APH_AFDT_RECLAIM;
	fd = open(path_of("s"), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	close(fd);
	assert_int_equal(aph_afdt_server_open(&other, ep, path_of("s"), &options, &err), -EEXIST);
	CHECK_ERR(err, AFDT_CREATE_SERVER, AFDT_BIND, EEXIST);
	CHECK_OK(unlink(path_of("s")));
	CHECK_OK(symlink("s.elsewhere", path_of("s.lock")));
	assert_int_equal(aph_afdt_server_open(&other, ep, path_of("s"), &options, &err), -ELOOP);
	CHECK_OK(unlink(path_of("s.lock")));
	assert_int_equal(aph_afdt_server_open(&other, ep, path_of("no/where"), &options, &err),
			 -ENOENT);
	if (geteuid() == 0) {
		close(peer_listen(path_of("s")));
		CHECK_OK(chown(path_of("s"), 54321, 54321));
		assert_int_equal(aph_afdt_server_open(&other, ep, path_of("s"), &options, &err),
				 -EPERM);
		CHECK_ERR(err, AFDT_CREATE_SERVER, AFDT_BIND, EPERM);
		CHECK_OK(unlink(path_of("s")));
		close(open(path_of("s.lock"), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
		CHECK_OK(chown(path_of("s.lock"), 54321, 54321));
		assert_int_equal(aph_afdt_server_open(&other, ep, path_of("s"), &options, &err),
				 -EPERM);
		CHECK_OK(unlink(path_of("s.lock")));
	}
	close_all();
}

/* Of many that want the path of one that has died, one gets it; whoever connects is served. */
static int race(int ctl, void *arg)
{
	int r;

	(void)arg;
	on_libevent = false;
	open_endpoint();
	options.flags = APH_AFDT_RECLAIM;
	(void)child_hear(ctl, check_hang_ms(5000));
	r = aph_afdt_server_open(&server, ep, path_of("s"), &options, NULL);
	CHECK(r == 0 || r == -EADDRINUSE);
	child_say(ctl, r == 0 ? 'y' : 'n');
	(void)child_hear(ctl, check_hang_ms(5000));
	aph_afdt_server_close(server);
	aph_afdt_endpoint_free(ep);
	return 0;
}

static void raced_for(void **state)
{
	enum {
		N = 6
	};
	struct child children[N];

	(void)state;
	for (int round = 0; round < 10; round++) {
		int n = 0;

		close(peer_listen(path_of("s")));
		for (int i = 0; i < N; i++)
			child_start(&children[i], race, NULL);
		for (int i = 0; i < N; i++)
			child_say(children[i].ctl, 'g');
		for (int i = 0; i < N; i++)
			n += child_hear(children[i].ctl, check_hang_ms(5000)) == 'y';
		assert_int_equal(n, 1);
		close(peer_connect(path_of("s")));
		for (int i = 0; i < N; i++)
			child_say(children[i].ctl, 'e');
		for (int i = 0; i < N; i++)
			assert_int_equal(child_finish(&children[i], check_hang_ms(5000)), 0);
		dir_check_sockets(0);
	}
}

/* Paths that are as long as they may be, or name no directory. */
static void long_paths(void **state)
{
	char dir[200], path[256], here[200];
	struct afdt_error_t err;
	int n;

	(void)state;
	for (int reclaim = 0; reclaim < 2; reclaim++) {
		open_endpoint();
		options.flags = reclaim ? APH_AFDT_RECLAIM : 0;
		n = snprintf(dir, sizeof(dir), "%s/", dir_path());
		memset(dir + n, 'd', (size_t)(100 - n));
		dir[100] = 0;
		CHECK_OK(mkdir(dir, 0700));
		snprintf(path, sizeof(path), "%s/sixsix", dir);
		assert_int_equal(strlen(path), 107);
		assert_int_equal(aph_afdt_server_open(&server, ep, path, &options, &err), 0);
		close(peer_connect(path));
		server = aph_afdt_server_close(server);
		(void)unlink(path);
		CHECK(getcwd(here, sizeof(here)));
		CHECK_OK(chdir(dir));
		assert_int_equal(aph_afdt_server_open(&server, ep, "s", &options, &err), 0);
		n = peer_connect("s");
		assert_int_equal(aph_afdt_fds_max(n), APH_AFDT_FDS_MAX);
		close(n);
		CHECK_OK(chdir(here));
		server = aph_afdt_server_close(server);
		snprintf(path, sizeof(path), "%s/s", dir);
		(void)unlink(path);
		close_all();
		CHECK_OK(rmdir(dir));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(reclaimed),	   SUITE_TEST(reclaimed_from_originals),
		SUITE_TEST(not_reclaimed), SUITE_TEST(raced_for),
		SUITE_TEST(long_paths),
	};

	return rig_run("afdt reclaim", tests, SUITE_LEN(tests));
}

/* SPDX-License-Identifier: MIT */
/*
 * Meeting by name: several services of one name, stale files, waiting, bad directories, handing
 * over.
 */
#include "suite.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static void newest_first(void **state)
{
	struct service services[4];
	struct client client;

	(void)state;
	for (int i = 0; i < 4; i++)
		service_start_simple(&services[i], suite_mode, "many");
	for (int i = 3; i >= 0; i--) {
		client_open(&client, "many");
		client_echo(client.channel);
		client_echo(client.channel);
		assert_int_equal(services[i].seen->requests, 2);
		service_stop(&services[i]);
		client_expect(client.ep, APH_EVENT_CLOSED, NULL);
		client_close(&client);
	}
}

static void newest_first_among_the_dead(void **state)
{
	struct service services[3];
	struct client client;

	(void)state;
	if (suite_mode == SERVICE_THREAD)
		suite_skip("a thread cannot die alone");
	for (int i = 0; i < 3; i++)
		service_start_simple(&services[i], suite_mode, "many");
	service_kill(&services[2]);
	service_kill(&services[1]);
	client_open(&client, "many");
	client_echo(client.channel);
	assert_int_equal(services[0].seen->requests, 1);
	client_close(&client);
	service_stop(&services[0]);
	dir_remove_sockets();
}

static void exclusive(void **state)
{
	struct service_config config = { .address = "single",
					 .options.flags = APH_SERVICE_EXCLUSIVE };
	struct aph_service_options options = { .size = sizeof(options),
					       .flags = APH_SERVICE_EXCLUSIVE };
	struct service service, other;
	struct aph_endpoint *ep;
	struct aph_service *second;

	(void)state;
	service_start(&service, suite_mode, &config);
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	assert_int_equal(aph_service_open(&second, ep, "single", &options), -EEXIST);
	assert_non_null(strstr(aph_error(), "single"));
	/* Another name, or another gid, is another service. */
	assert_int_equal(aph_service_open(&second, ep, "single2", &options), 0);
	aph_service_close(second);
	service_start_simple(&other, suite_mode, "loose");
	assert_int_equal(aph_service_open(&second, ep, "loose", &options), -EEXIST);
	dir_check_sockets(2);
	service_stop(&other);
	assert_int_equal(aph_service_open(&second, ep, "loose", &options), 0);
	aph_service_close(second);
	if (suite_mode == SERVICE_PROCESS)
		service_kill(&service);
	else
		service_stop(&service);
	/* The dead do not count. */
	assert_int_equal(aph_service_open(&second, ep, "single", &options), 0);
	aph_service_close(second);
	aph_endpoint_free(ep);
	dir_remove_sockets();
}

struct racer {
	pthread_barrier_t *start, *settled;
	struct aph_service_options options;
	unsigned rounds;
	_Atomic unsigned *n_won;
};

static void *race_for_the_name(void *arg)
{
	const struct racer *racer = arg;
	struct aph_endpoint *ep;
	struct aph_service *service;
	int r;

	CHECK_OK(aph_endpoint_new(&ep, NULL));
	for (unsigned i = 0; i < racer->rounds; i++) {
		service = NULL;
		pthread_barrier_wait(racer->start);
		r = aph_service_open(&service, ep, "prize", &racer->options);
		CHECK(r == 0 || r == -EEXIST);
		*racer->n_won += r == 0;
		pthread_barrier_wait(racer->settled);
		aph_service_close(service);
	}
	aph_endpoint_free(ep);
	return NULL;
}

/* Of those that want to be the only one, and begin at once, at most one is. */
static void only_one_of_many(void **state)
{
	enum {
		RACERS = 3
	};
	pthread_barrier_t start, settled;
	_Atomic unsigned n_won = 0;
	struct racer racer = { &start, &settled, { .size = sizeof(racer.options) }, 0, &n_won };
	pthread_t threads[RACERS];
	unsigned total = 0;

	(void)state;
	racer.rounds = check_slow() ? 30 : 300;
	racer.options.flags = APH_SERVICE_EXCLUSIVE;
	pthread_barrier_init(&start, NULL, RACERS + 1);
	pthread_barrier_init(&settled, NULL, RACERS + 1);
	for (int i = 0; i < RACERS; i++)
		CHECK(pthread_create(&threads[i], NULL, race_for_the_name, &racer) == 0);
	for (unsigned i = 0; i < racer.rounds; i++) {
		pthread_barrier_wait(&start);
		pthread_barrier_wait(&settled);
		CHECK(n_won <= total + 1);
		total = n_won;
	}
	for (int i = 0; i < RACERS; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	/*
	 * Nearly always there is a winner: that both give way is for those who are held up on the
	 * way.
	 */
	CHECK(total > racer.rounds / 2);
	pthread_barrier_destroy(&start);
	pthread_barrier_destroy(&settled);
}

static void stale_files_are_replaced(void **state)
{
	struct aph_service_info *list;
	struct aph_endpoint *ep;
	struct aph_channel *channel;
	struct service service;
	struct client client;
	size_t n;

	(void)state;
	if (suite_mode == SERVICE_THREAD)
		suite_skip("a thread cannot die alone");
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	for (int i = 0; i < 20; i++) {
		service_start_simple(&service, suite_mode, "phoenix");
		client_open(&client, "phoenix");
		client_echo(client.channel);
		service_kill(&service);
		client_expect(client.ep, APH_EVENT_CLOSED, NULL);
		client_close(&client);
		assert_int_equal(aph_channel_open(&channel, ep, "phoenix", NULL), -ENOENT);
		assert_int_equal(aph_directory_list(&list, &n,
						    aph_deadline_ms((uint64_t)check_ms(5000))),
				 0);
		assert_int_equal(n, 0);
		free(list);
	}
	/* They do not pile up. */
	service_start_simple(&service, suite_mode, "phoenix");
	assert_int_equal(dir_sockets(), 1);
	service_stop(&service);
	aph_endpoint_free(ep);
}

struct late {
	const char *address;
	struct service service;
};

static void *start_late(void *arg)
{
	struct late *late = arg;

	usleep(100000);
	service_start_simple(&late->service, SERVICE_THREAD, late->address);
	return NULL;
}

/* Also those that no client comes across, as a newer service lives. */
static void stale_files_do_not_pile_up(void **state)
{
	struct service dead, alive, newest;

	(void)state;
	if (suite_mode == SERVICE_THREAD)
		suite_skip("a thread cannot die alone");
	service_start_simple(&alive, suite_mode, "heap");
	for (int i = 0; i < 10; i++) {
		service_start_simple(&dead, suite_mode, "heap");
		service_kill(&dead);
	}
	service_start_simple(&newest, suite_mode, "heap");
	dir_check_sockets(2);
	service_stop(&newest);
	service_stop(&alive);
}

static void set_age(const char *path, int age)
{
	struct timespec times[2] = { { .tv_sec = time(NULL) - age },
				     { .tv_sec = time(NULL) - age } };

	assert_int_equal(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW), 0);
}

/*
 * A socket file as one is made on the way to a name: `age` seconds old, and perhaps with somebody
 * behind it.
 */
static int hidden_socket(const char *file, int age, bool listening)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	assert_true(sock >= 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", dir_path(), file);
	assert_int_equal(bind(sock, (struct sockaddr *)&address, sizeof(address)), 0);
	if (listening)
		assert_int_equal(listen(sock, 5), 0);
	set_age(address.sun_path, age);
	return sock;
}

static bool is_there(const char *file)
{
	char path[256];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", dir_path(), file);
	return lstat(path, &st) == 0;
}

/* Who dies between bind() and rename() leaves a file that is no service's. */
static void hidden_files_are_removed(void **state)
{
	static const struct {
		const char *file;
		int age;
		bool listening, open, stays;
	} files[] = {
		{ ".0123456789abcdef", 100, false, false, false },
		{ ".0123456789abcd00", 100, false, true,
		  false }, /* stopped for ever before listen() */
		{ ".0123456789abcd01", 5, false, false, true }, /* perhaps just being made */
		{ ".0123456789abcd02", 100, true, true, true }, /* somebody is there */
		{ ".0123456789abcd03", 100, true, false, false },
		{ ".0123456789ABCDEF", 100, false, false, true }, /* not ours */
		{ ".0123456789abcde", 100, false, false, true },
		{ "0123456789abcdef", 100, false, false, true },
	};
	int socks[SUITE_LEN(files)];
	struct service service;

	(void)state;
	for (size_t i = 0; i < SUITE_LEN(files); i++) {
		socks[i] = hidden_socket(files[i].file, files[i].age, files[i].listening);
		if (!files[i].open)
			close(socks[i]);
	}
	service_start_simple(&service, suite_mode, "next");
	for (size_t i = 0; i < SUITE_LEN(files); i++)
		assert_int_equal(is_there(files[i].file), files[i].stays);
	service_stop(&service);
	for (size_t i = 0; i < SUITE_LEN(files); i++) {
		if (files[i].open)
			close(socks[i]);
	}
	dir_remove_sockets();
}

enum kind {
	NOTICE,
	LINK,
	FOLDER,
};

static void hidden_file(const char *file, enum kind kind, int age)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir_path(), file);
	switch (kind) {
	case NOTICE:
		close((int)CHECK_OK(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644)));
		break;
	case LINK:
		assert_int_equal(symlink("nowhere", path), 0);
		break;
	case FOLDER:
		assert_int_equal(mkdir(path, 0755), 0);
		break;
	}
	set_age(path, age);
}

/* The same of those whose service is shown by a notice; whichever kind of service comes next. */
static void hidden_notices_are_removed(void **state)
{
	static const char *const next[] = { "next", "rx:127.0.0.1:0/147" };
	static const struct {
		const char *file;
		enum kind kind;
		int age;
		bool stays;
	} files[] = {
		{ ".0123456789abcdef", NOTICE, 100, false },
		{ ".0123456789abcd01", NOTICE, 5, true },   /* perhaps just being made */
		{ ".0123456789ABCDEF", NOTICE, 100, true }, /* not ours */
		{ ".0123456789abcde", NOTICE, 100, true },
		{ ".0123456789abcd02", LINK, 100, true },
		{ ".0123456789abcd03", FOLDER, 100, true },
	};
	struct aph_service *service;
	struct aph_endpoint *ep;

	(void)state;
	for (size_t i = 0; i < SUITE_LEN(files); i++)
		hidden_file(files[i].file, files[i].kind, files[i].age);
	for (size_t i = 0; i < SUITE_LEN(next); i++) {
		hidden_file(files[0].file, files[0].kind, files[0].age);
		assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
		assert_int_equal(aph_service_open(&service, ep, next[i], NULL), 0);
		for (size_t k = 0; k < SUITE_LEN(files); k++)
			assert_int_equal(is_there(files[k].file), files[k].stays);
		aph_endpoint_free(ep);
	}
}

static void wait_for_the_service(void **state)
{
	struct aph_channel_options options = { .size = sizeof(options), .flags = APH_CHANNEL_WAIT };
	struct late late = { .address = "later" };
	struct aph_endpoint *ep;
	struct aph_channel *channel;
	pthread_t thread;
	uint64_t start;

	(void)state;
	options.deadline_ns = aph_deadline_ms((uint64_t)check_ms(5000));
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	start = aph_time_ns();
	assert_int_equal(pthread_create(&thread, NULL, start_late, &late), 0);
	assert_int_equal(aph_channel_open(&channel, ep, "later", &options), 0);
	assert_true(aph_time_ns() - start >= 90000000);
	client_echo(channel);
	aph_channel_close(channel);
	/* One that is there is not waited for. */
	assert_int_equal(aph_channel_open(&channel, ep, "later", &options), 0);
	aph_channel_close(channel);
	assert_int_equal(pthread_join(thread, NULL), 0);
	service_stop(&late.service);
	/* In vain. */
	start = aph_time_ns();
	options.deadline_ns = aph_deadline_ms(60);
	assert_int_equal(aph_channel_open(&channel, ep, "later", &options), -ETIMEDOUT);
	assert_true(aph_time_ns() - start >= 60000000);
	/* To wait is to block. */
	options.flags = APH_CHANNEL_WAIT | APH_CHANNEL_ASYNC;
	assert_int_equal(aph_channel_open(&channel, ep, "later", &options), -EINVAL);
	aph_endpoint_free(ep);
}

/* Something other than a socket of ours in the place of the service's file. */
static void rubbish_in_the_directory(void **state)
{
	struct aph_service_info *list;
	struct service service;
	struct client client;
	char path[108], other[200];
	size_t n;
	int fd;

	(void)state;
	service_start_simple(&service, suite_mode, "clean");
	dir_only_socket(path, sizeof(path));
	service_stop(&service);
	for (int kind = 0; kind < 4; kind++) {
		switch (kind) {
		case 0:
			fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
			assert_true(fd >= 0);
			close(fd);
			break;
		case 1:
			assert_int_equal(mkfifo(path, 0666), 0);
			break;
		case 2:
			assert_int_equal(symlink("/dev/null", path), 0);
			break;
		default:
			assert_int_equal(mkdir(path, 0700), 0);
		}
		assert_int_equal(aph_directory_list(&list, &n, aph_deadline_ms(500)), 0);
		assert_int_equal(n, 0);
		free(list);
		service_start_simple(&service, suite_mode, "clean");
		client_open(&client, "clean");
		client_echo(client.channel);
		client_close(&client);
		service_stop(&service);
		remove(path);
	}
	/* Files with names of any other sort disturb nobody. */
	static const char *const names[] = { "x", ".hidden",  "caps",	    "a b",   "%n%s",
					     "~", "\xff\xfe", "name,uid=0", ".lock", "-" };
	for (size_t i = 0; i < SUITE_LEN(names); i++) {
		snprintf(other, sizeof(other), "%s/%s", dir_path(), names[i]);
		fd = open(other, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
		if (fd >= 0)
			close(fd);
	}
	service_start_simple(&service, suite_mode, "clean");
	client_open(&client, "clean");
	client_echo(client.channel);
	assert_int_equal(aph_directory_list(&list, &n, aph_deadline_ms(2000)), 0);
	assert_int_equal(n, 1);
	assert_string_equal(list[0].name.name, "clean");
	free(list);
	client_close(&client);
	service_stop(&service);
}

static void expect_no_directory(const char *path, int why, int also)
{
	struct aph_endpoint *ep;
	struct aph_channel *channel;
	char buf[4096];
	int r;

	setenv("ANTIPHON_RUNTIME_DIR", path, 1);
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	r = aph_service_open(NULL, ep, "homeless", NULL);
	assert_true(r == why || r == also);
	assert_true(strlen(aph_error()) > 10);
	assert_true(aph_channel_open(&channel, ep, "homeless", NULL) < 0);
	r = aph_directory_path(buf, sizeof(buf));
	assert_true(r == why || r == also);
	aph_endpoint_free(ep);
	setenv("ANTIPHON_RUNTIME_DIR", dir_path(), 1);
}

static void bad_directories(void **state)
{
	struct service service;
	struct client client;
	char path[200], longer[300];
	int fd;

	(void)state;
	/* A file. */
	snprintf(path, sizeof(path), "%s/file", dir_path());
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	expect_no_directory(path, -ENOTDIR, -EACCES);
	/* Below a file. */
	snprintf(longer, sizeof(longer), "%s/below", path);
	expect_no_directory(longer, -ENOTDIR, -EACCES);
	/* No parent. */
	snprintf(path, sizeof(path), "%s/no/such/place", dir_path());
	expect_no_directory(path, -ENOENT, -EACCES);
	/* Writable for everybody, and no sticky bit: others could replace our files. */
	snprintf(path, sizeof(path), "%s/loose", dir_path());
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(chmod(path, 0777), 0);
	expect_no_directory(path, -EACCES, -EPERM);
	assert_int_equal(chmod(path, 0770), 0);
	expect_no_directory(path, -EACCES, -EPERM);
	/* Another user's. */
	if (geteuid() == 0) {
		assert_int_equal(chmod(path, 0755), 0);
		assert_int_equal(chown(path, 54321, 54321), 0);
		expect_no_directory(path, -EACCES, -EPERM);
	}
	/* Longer than the address of a socket: that is no hindrance. */
	memset(longer, 'x', sizeof(longer));
	memcpy(longer, dir_path(), strlen(dir_path()));
	longer[strlen(dir_path())] = '/';
	longer[250] = 0;
	assert_int_equal(mkdir(longer, 0700), 0);
	setenv("ANTIPHON_RUNTIME_DIR", longer, 1);
	service_start_simple(&service, suite_mode, "far");
	client_open(&client, "far");
	client_echo(client.channel);
	client_close(&client);
	service_stop(&service);
	setenv("ANTIPHON_RUNTIME_DIR", dir_path(), 1);
	/* The good one still works, and the path is told. */
	assert_int_equal(aph_directory_path(longer, sizeof(longer)), 0);
	assert_non_null(strstr(longer, dir_path()));
	assert_int_equal(aph_directory_path(longer, 3), -ENAMETOOLONG);
}

static void the_directory_is_made(void **state)
{
	struct service service;
	struct client client;
	char path[200];
	struct stat st;

	(void)state;
	snprintf(path, sizeof(path), "%s/fresh", dir_path());
	setenv("ANTIPHON_RUNTIME_DIR", path, 1);
	service_start_simple(&service, suite_mode, "first");
	assert_int_equal(stat(path, &st), 0);
	assert_true(S_ISDIR(st.st_mode));
	assert_int_equal(st.st_uid, geteuid());
	assert_true(!(st.st_mode & 022) || (st.st_mode & 01000));
	client_open(&client, "first");
	client_echo(client.channel);
	client_close(&client);
	service_stop(&service);
	setenv("ANTIPHON_RUNTIME_DIR", dir_path(), 1);
}

static void names_that_are_not_well_formed(void **state)
{
	static const char *const bad[] = { "",
					   "caps:",
					   "a b",
					   "a/b",
					   "../a",
					   "caps:a,",
					   "caps:a,uid=",
					   "caps:a,uid=-3",
					   "caps:a,uid=99999999999",
					   "caps:a,colour=red",
					   "caps:a,uid=1,uid=2",
					   "x:y:z",
					   "a\n" };
	struct aph_channel *channel;
	struct aph_endpoint *ep;

	(void)state;
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	for (size_t i = 0; i < SUITE_LEN(bad); i++) {
		assert_true(aph_service_open(NULL, ep, bad[i], NULL) < 0);
		assert_true(strlen(aph_error()) > 10);
		assert_true(aph_channel_open(&channel, ep, bad[i], NULL) < 0);
	}
	assert_int_equal(dir_sockets(), 0);
	aph_endpoint_free(ep);
}

static int call_who_waits(int ctl, void *arg)
{
	struct client client;

	(void)ctl;
	client_open(&client, arg);
	CHECK(aph_call(client.channel, "x", 1, NULL, NULL,
		       aph_deadline_ms((uint64_t)check_ms(50))) == APH_REFUSED);
	CHECK(aph_channel_result(client.channel).reason == APH_REASON_DEADLINE);
	client_close(&client);
	return 0;
}

/* Who waits for a service of another name takes no requests meanwhile: they can be refused. */
static void requests_while_waiting_for_a_service(void **state)
{
	struct aph_channel_options options = { .size = sizeof(options), .flags = APH_CHANNEL_WAIT };
	struct aph_channel *channel;
	struct aph_endpoint *ep;
	struct aph_event ev;
	struct child child;
	char name[] = "waits";

	(void)state;
	assert_int_equal(aph_endpoint_new(&ep, NULL), 0);
	assert_int_equal(aph_service_open(NULL, ep, name, NULL), 0);
	child_start(&child, call_who_waits, name);
	options.deadline_ns = aph_deadline_ms((uint64_t)check_ms(400));
	assert_int_equal(aph_channel_open(&channel, ep, "nobody", &options), -ETIMEDOUT);
	assert_int_equal(child_finish(&child, check_hang_ms(5000)), 0);
	assert_int_equal(aph_endpoint_next(ep, &ev, aph_deadline_ms(10)), -ETIMEDOUT);
	aph_endpoint_free(ep);
}

static struct {
	pid_t stopped;
	volatile sig_atomic_t n;
} ticks;

static void tick(int signal)
{
	(void)signal;
	if (++ticks.n == 5)
		(void)kill(ticks.stopped, SIGCONT);
}

/* Signals that come while a service thinks about its answer do not make the list give up on it. */
static void a_list_among_signals(void **state)
{
	struct sigaction action = { .sa_handler = tick }, old;
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
	struct itimerspec often = { .it_value.tv_nsec = 5000000, .it_interval.tv_nsec = 5000000 };
	struct aph_service_info *list;
	struct service service;
	timer_t timer;
	size_t n;

	(void)state;
	if (suite_mode == SERVICE_THREAD)
		suite_skip("needs a service that can be stopped");
	service_start_simple(&service, suite_mode, "thinker");
	child_signal(&service.child, SIGSTOP);
	child_await_state(service.child.pid, 'T', check_hang_ms(2000));
	ticks.stopped = service.child.pid;
	ticks.n = 0;
	assert_int_equal(sigaction(SIGUSR1, &action, &old), 0);
	assert_int_equal(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
	assert_int_equal(timer_settime(timer, 0, &often, NULL), 0);
	assert_int_equal(
		aph_directory_list(&list, &n, aph_deadline_ms((uint64_t)check_hang_ms(3000))), 0);
	assert_int_equal(timer_delete(timer), 0);
	assert_int_equal(sigaction(SIGUSR1, &old, NULL), 0);
	assert_int_equal(n, 1);
	assert_true(list[0].has_stats);
	free(list);
	service_stop(&service);
}

static void the_directory_lists(void **state)
{
	static const char *const names[] = { "alpha", "beta", "alpha" };
	struct aph_service_info *list;
	struct service services[3];
	struct client client;
	struct aph_call *call;
	size_t n;

	(void)state;
	assert_int_equal(aph_directory_list(&list, &n, aph_deadline_ms((uint64_t)check_ms(5000))),
			 0);
	assert_int_equal(n, 0);
	free(list);
	for (int i = 0; i < 3; i++)
		service_start_simple(&services[i], suite_mode, names[i]);
	client_open(&client, "alpha");
	for (int i = 0; i < 10; i++)
		client_echo(client.channel);
	assert_int_equal(aph_call(client.channel, "a\0\0\0", 5, NULL, NULL, APH_FOREVER),
			 APH_ABORTED);
	call = client_begin(client.channel, "h", 1, APH_FOREVER);
	service_await(&services[2].seen->held, 1);
	assert_int_equal(aph_directory_list(&list, &n, aph_deadline_ms((uint64_t)check_ms(3000))),
			 0);
	assert_int_equal(n, 3);
	assert_string_equal(list[0].name.name, "alpha");
	assert_string_equal(list[1].name.name, "alpha");
	assert_string_equal(list[2].name.name, "beta");
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(list[i].name.uid, geteuid());
		assert_int_equal(list[i].owner, geteuid());
		assert_true(list[i].has_stats);
		assert_true(list[i].program[0] != 0);
		assert_int_equal(list[i].violations, 0);
	}
	/* The newest of one name comes first; it is the one that was called. */
	assert_int_equal(list[0].calls, 12);
	assert_int_equal(list[0].channels, 1);
	assert_int_equal(list[0].calls_open, 1);
	assert_int_equal(list[0].ended_aborted, 1);
	assert_int_equal(list[1].calls, 0);
	if (suite_mode == SERVICE_PROCESS) {
		assert_int_equal(list[0].pid, services[2].child.pid);
		assert_int_equal(list[1].pid, services[0].child.pid);
		assert_int_equal(list[2].pid, services[1].child.pid);
	}
	free(list);
	aph_call_free(call);
	client_close(&client);
	/* One that does not answer is listed without figures. */
	if (suite_mode == SERVICE_PROCESS) {
		child_signal(&services[1].child, SIGSTOP);
		child_await_state(services[1].child.pid, 'T', check_hang_ms(2000));
		assert_int_equal(aph_directory_list(&list, &n, aph_deadline_ms(1000)), 0);
		assert_int_equal(n, 3);
		assert_false(list[2].has_stats);
		assert_true(list[0].has_stats);
		free(list);
		child_signal(&services[1].child, SIGCONT);
	}
	for (int i = 0; i < 3; i++)
		service_stop(&services[i]);
}

static void a_newcomer_asks_to_end(void **state)
{
	struct service_config config = { .address = "relay", .end_on_terminate = true };
	struct service old, new;
	struct client client;

	(void)state;
	if (suite_mode == SERVICE_THREAD)
		suite_skip("the service must end by itself");
	service_start(&old, suite_mode, &config);
	client_open(&client, "relay");
	client_echo(client.channel);
	config.options.flags = APH_SERVICE_TERMINATE;
	service_start(&new, suite_mode, &config);
	/* The old one has been told, and it ends as its own program decides. */
	service_gone(&old, 0);
	client_expect(client.ep, APH_EVENT_CLOSED, NULL);
	client_close(&client);
	client_open(&client, "relay");
	client_echo(client.channel);
	client_close(&client);
	service_stop(&new);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SUITE_TEST(newest_first),
		SUITE_TEST(newest_first_among_the_dead),
		SUITE_TEST(exclusive),
		SUITE_TEST(only_one_of_many),
		SUITE_TEST(stale_files_are_replaced),
		SUITE_TEST(stale_files_do_not_pile_up),
		SUITE_TEST(hidden_files_are_removed),
		SUITE_TEST(hidden_notices_are_removed),
		SUITE_TEST(wait_for_the_service),
		SUITE_TEST(rubbish_in_the_directory),
		SUITE_TEST(bad_directories),
		SUITE_TEST(the_directory_is_made),
		SUITE_TEST(names_that_are_not_well_formed),
		SUITE_TEST(the_directory_lists),
		SUITE_TEST(a_list_among_signals),
		SUITE_TEST(requests_while_waiting_for_a_service),
		SUITE_TEST(a_newcomer_asks_to_end),
	};

	return suite_run_both("rendezvous", tests, SUITE_LEN(tests), 60);
}

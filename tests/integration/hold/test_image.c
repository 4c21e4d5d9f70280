/* SPDX-License-Identifier: MIT */
/*
 * The image that keeper and twin share: against a model, and with its writer killed at any
 * instruction. And the records that other processes get.
 */
#include "suite.h"

#include "facade/hold/image.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define SLOTS 16
#define KILLS 200

/* An entry whose every part follows from its serial; its descriptors are only numbers. */
static struct hold_entry *entry_of(uint64_t serial)
{
	int fds[APH_HOLD_FDS_MAX];
	uint32_t n = 1 + (uint32_t)(serial % APH_HOLD_FDS_MAX);
	struct hold_entry *entry;

	for (uint32_t i = 0; i < n; i++)
		fds[i] = (int)(serial % 100000 + i);
	entry = hold_entry_new(0, "x", fds, n);
	CHECK(entry);
	entry->serial = serial;
	entry->token = serial * 3;
	return entry;
}

static void entry_free(struct hold_entry *entry)
{
	if (entry)
		entry->n_fds = 0;
	hold_entry_free(entry);
}

struct seen {
	unsigned n;
	uint64_t serials[SLOTS];
	uint32_t owners[SLOTS];
};

static int look(const struct hold_record *record, const int *fds, uint32_t slot, void *arg)
{
	struct seen *seen = arg;

	CHECK(slot >= 1 && slot <= SLOTS && seen->n < SLOTS);
	CHECK(record->what == HOLD_PUT && strcmp(record->name, "x") == 0);
	CHECK(record->token % 3 == 0);
	/* Moved, it has another serial than what it was made of. */
	CHECK(record->n_fds == 1 + record->token / 3 % APH_HOLD_FDS_MAX);
	for (uint32_t i = 0; i < record->n_fds; i++)
		CHECK(fds[i] == (int)(record->token / 3 % 100000 + i));
	CHECK(record->owner ? record->serial == record->token / 3 + 1000000
			    : record->serial == record->token / 3);
	seen->serials[seen->n] = record->serial;
	seen->owners[seen->n++] = record->owner;
	return 0;
}

static void slots_are_used_again(void **state)
{
	struct hold_entry *entries[SLOTS], *last;
	struct hold_image *image;
	struct seen seen = { 0 };

	(void)state;
	assert_int_equal(hold_image_new(&image, SLOTS), 0);
	for (uint64_t i = 0; i < SLOTS; i++) {
		entries[i] = entry_of(i + 1);
		assert_int_equal(hold_image_put(image, entries[i], NULL), 0);
	}
	last = entry_of(100);
	assert_int_equal(hold_image_put(image, last, NULL), -ENFILE);
	assert_int_equal(last->slot, 0);
	/* In place of another there is room. */
	assert_int_equal(hold_image_put(image, last, entries[3]), 0);
	assert_int_equal(entries[3]->slot, 0);
	assert_int_equal(hold_image_put(image, entries[3], NULL), -ENFILE);
	hold_image_drop(image, entries[7]);
	hold_image_adopt(image);
	assert_int_equal(hold_image_put(image, entries[3], NULL), 0);
	assert_int_equal(hold_image_put(image, entries[7], NULL), -ENFILE);
	hold_image_move(image, last, 7, 1000100, 300);
	assert_int_equal(hold_image_each(image, look, &seen), 0);
	assert_int_equal(seen.n, SLOTS);
	assert_int_equal(seen.serials[3], 1000100);
	assert_int_equal(seen.owners[3], 7);
	assert_int_equal(seen.serials[7], 4);
	for (int i = 0; i < SLOTS; i++)
		entry_free(entries[i]);
	entry_free(last);
	hold_image_free(image);
	hold_image_free(NULL);
}

/* What the writer says outside of the image: between these two, it may be either. */
struct said {
	_Atomic uint64_t before[SLOTS], after[SLOTS];
};

static _Noreturn void write_for_ever(struct hold_image *image, struct said *said, uint64_t seed)
{
	struct hold_entry *entries[SLOTS] = { NULL }, *next;
	struct rng rng = { .state = seed };

	for (uint64_t serial = 1;; serial++) {
		uint32_t i = rng_below(&rng, SLOTS);

		switch (entries[i] ? rng_below(&rng, 4) : 3) {
		case 0:
			said->after[i] = 0;
			hold_image_drop(image, entries[i]);
			said->before[i] = 0;
			entry_free(entries[i]);
			entries[i] = NULL;
			break;
		case 1:
			if (entries[i]->owner)
				break;
			entries[i]->owner = 1;
			said->after[i] = entries[i]->serial + 1000000;
			hold_image_move(image, entries[i], 1, entries[i]->serial + 1000000,
					entries[i]->token);
			said->before[i] = entries[i]->serial + 1000000;
			break;
		default:
			next = entry_of(serial);
			said->after[i] = serial;
			CHECK_OK(hold_image_put(image, next, entries[i]));
			said->before[i] = serial;
			entry_free(entries[i]);
			entries[i] = next;
		}
	}
}

static bool is_seen(const struct seen *seen, uint64_t serial)
{
	for (unsigned i = 0; i < seen->n; i++) {
		if (seen->serials[i] == serial)
			return true;
	}
	return false;
}

static void its_writer_is_killed(void **state)
{
	struct said *said = mmap(NULL, sizeof(*said), PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct rng rng = { .state = check_seed() };

	(void)state;
	assert_true(said != MAP_FAILED);
	for (int k = 0; k < KILLS; k++) {
		struct seen seen = { 0 };
		struct hold_image *image;
		unsigned most = 0;
		pid_t pid;

		memset(said, 0, sizeof(*said));
		assert_int_equal(hold_image_new(&image, SLOTS), 0);
		pid = fork();
		CHECK_OK(pid);
		if (pid == 0)
			write_for_ever(image, said, rng_next(&rng));
		(void)usleep(rng_below(&rng, 1000));
		CHECK_OK(kill(pid, SIGKILL));
		CHECK(waitpid(pid, NULL, 0) == pid);
		assert_int_equal(hold_image_each(image, look, &seen), 0);
		for (int i = 0; i < SLOTS; i++) {
			uint64_t before = said->before[i], after = said->after[i];

			/* What was about to change is one or the other; all else is what it was. */
			if (before == after)
				assert_true(!after || is_seen(&seen, after));
			else
				assert_true(!before || !after || is_seen(&seen, before) ||
					    is_seen(&seen, after));
			most += before || after;
		}
		assert_true(seen.n <= most && seen.n + 1 >= most);
		hold_image_free(image);
	}
	(void)munmap(said, sizeof(*said));
}

/* Records come from other processes: a newcomer's keeper, the service manager. */
static void records_are_checked(void **state)
{
	struct hold_record good, record, got;
	struct hold_entry *entry;
	int ends[2], fds[APH_HOLD_FDS_MAX], one[1];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
	one[0] = ends[0];
	entry = hold_entry_new(3, "name", one, 1);
	assert_non_null(entry);
	hold_record_of(&good, entry);
	entry_free(entry);
	assert_int_equal(hold_record_send(ends[0], &good, one), 0);
	assert_int_equal(hold_record_recv(ends[1], &got, fds, MSG_DONTWAIT), 1);
	assert_memory_equal(&good, &got, sizeof(good));
	close(fds[0]);
	/* None of those leaves a descriptor, which the suite checks. */
	for (int i = 0; i < 7; i++) {
		record = good;
		switch (i) {
		case 0:
			memset(record.name, 'a', sizeof(record.name));
			break;
		case 1:
			record.name[0] = '\0';
			break;
		case 2:
			(void)strcpy(record.name, "../x");
			break;
		case 3:
			record.what = HOLD_GO;
			break;
		case 4:
			record.what = 0;
			break;
		case 5:
			record.n_fds = 0;
			break;
		default:
			assert_int_equal(send(ends[0], &record, sizeof(record) - 1, 0),
					 sizeof(record) - 1);
		}
		if (i < 6)
			assert_int_equal(hold_record_send(ends[0], &record, one), 0);
		assert_int_equal(hold_record_recv(ends[1], &got, fds, MSG_DONTWAIT), -EPROTO);
	}
	assert_int_equal(hold_record_recv(ends[1], &got, fds, MSG_DONTWAIT), -EAGAIN);
	close(ends[0]);
	/* Its copies may be closed a moment later, by a thread. */
	assert_int_equal(hold_record_recv(ends[1], &got, fds, 0), 0);
	close(ends[1]);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(slots_are_used_again),
		cmocka_unit_test(its_writer_is_killed),
		cmocka_unit_test(records_are_checked),
	};

	return suite_run("hold image", tests, SUITE_LEN(tests), 60);
}

/* SPDX-License-Identifier: MIT */
/*
 * The rendezvous directory: one socket file for each service, named NAME,UID,GID,SERIAL in
 * hexadecimal. Whoever owns the file serves it: the kernel says so, and the name says nothing that
 * is not checked against the owner. A file whose process is gone is known by a refused connection.
 *
 * Services of the remote transport have a regular file there instead, see notice.c; its name begins
 * with their address, with + in place of /.
 */
#ifndef ANTIPHON_LOCAL_RENDEZVOUS_H
#define ANTIPHON_LOCAL_RENDEZVOUS_H

#include <antiphon/name.h>

#include <limits.h>
#include <stdbool.h>

#define APH_SERIALS_TRIED 100 /* for a file: others may have the same one */

#define APH_RENDEZVOUS_FILE_MAX (APH_NAME_MAX + 1 + 8 + 1 + 8 + 1 + 16)

struct aph_rendezvous_entry {
	struct aph_name name; /* as registered: APH_ID_ANY where there is none */
	uint64_t serial;      /* newer is larger */
	uid_t owner;
	int dir;	/* which of the directories, see aph_rendezvous_dir() */
	bool is_notice; /* a file of notice.c; its name is an address of another transport */
	char file[APH_RENDEZVOUS_FILE_MAX + 1];
};

/* A serial number that is newer than those so far: the time. */
uint64_t aph_rendezvous_serial(void);

/* Reads a file name. False when it is none of ours. */
bool aph_rendezvous_parse(struct aph_rendezvous_entry *entry, const char *file);
/* Writes one; `file` has APH_RENDEZVOUS_FILE_MAX + 1 bytes. */
void aph_rendezvous_format(char *file, const struct aph_name *name, uint64_t serial);

/* Directory number `i`, most important first, as a path. False when there is none. */
bool aph_rendezvous_dir(int i, char path[PATH_MAX]);

/*
 * Opens the directory that this process registers in, making it if need be. A descriptor, or
 * -ENOENT, -EACCES with a text that says what to do.
 */
int aph_rendezvous_open(char path[PATH_MAX]);

/*
 * All entries that `wanted` may mean to this process, best first: own user before root, newer
 * before older. NULL wants everything. 0 with *n 0 when there is none.
 */
int aph_rendezvous_search(struct aph_rendezvous_entry **out, size_t *n,
			  const struct aph_name *wanted);

/*
 * Connects a new non-blocking SOCK_SEQPACKET socket to an entry. The socket; or -ECONNREFUSED
 * (nobody listens: the file is stale, and was removed if that is ours to do), -EACCES, -EAGAIN (too
 * many wait there), ...
 */
int aph_rendezvous_connect(const struct aph_rendezvous_entry *entry);

/* Opens a notice for reading. A descriptor, or -errno. */
int aph_rendezvous_open_notice(const struct aph_rendezvous_entry *entry);
/* Removes the file of a process that is gone, if that is ours to do. */
void aph_rendezvous_remove(const struct aph_rendezvous_entry *entry);

/*
 * Makes a listening socket and shows it as `file`, which aph_rendezvous_format() made. The socket
 * or -errno; -EADDRINUSE: somebody has registered with the same serial number, or is about to.
 */
int aph_rendezvous_listen(int dir_fd, const char *file);

/*
 * Removes the hidden files of this user (for root: of anybody) whose processes died between the two
 * steps in which they showed a service. They are told from those that are just being made by their
 * age.
 */
void aph_rendezvous_sweep_hidden(int dir_fd);

#endif

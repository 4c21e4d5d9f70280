/* SPDX-License-Identifier: MIT */
/* The rendezvous directory: finding, making, searching it. See rendezvous.h. */
#include "local/rendezvous.h"
#include "base/error.h"
#include "core/transport.h"

#include <antiphon/directory.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define BACKLOG	     4096
#define ID_NONE	     UINT32_MAX
#define LISTINGS_MAX 16
#define HIDDEN_AGE_S 60 /* nobody takes so long from bind() to rename() */

/* -- file names -------------------------------------------------------------------------------- */

static uint32_t id_to_file(int64_t id)
{
	return id < 0 ? ID_NONE : (uint32_t)id;
}

static int64_t id_from_file(uint32_t id)
{
	return id == ID_NONE ? APH_ID_ANY : (int64_t)id;
}

void aph_rendezvous_format(char *file, const struct aph_name *name, uint64_t serial)
{
	(void)snprintf(file, APH_RENDEZVOUS_FILE_MAX + 1,
		       "%.*s,%08" PRIx32 ",%08" PRIx32 ",%016" PRIx64, APH_NAME_MAX, name->name,
		       id_to_file(name->uid), id_to_file(name->gid), serial);
	for (char *slash = file; (slash = strchr(slash, '/')); slash++)
		*slash = '+';
}

/*
 * Whether this is the address of a service of the remote transport, as it is written in a file's
 * name.
 */
static bool is_remote(const char *name, size_t len)
{
	if (len > APH_NAME_MAX || strncmp(name, "rx:", 3) != 0)
		return false;
	for (size_t i = 0; i < len; i++) {
		char c = name[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		      strchr(".:[]%_+-", c)))
			return false;
	}
	return true;
}

uint64_t aph_rendezvous_serial(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* Exactly `digits` lower-case hexadecimal digits. */
static bool parse_hex(uint64_t *out, const char *text, int digits)
{
	uint64_t value = 0;
	int i;

	for (i = 0; i < digits; i++) {
		char c = text[i];

		if (c >= '0' && c <= '9')
			value = value << 4 | (uint64_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			value = value << 4 | (uint64_t)(c - 'a' + 10);
		else
			return false;
	}
	*out = value;
	return true;
}

bool aph_rendezvous_parse(struct aph_rendezvous_entry *entry, const char *file)
{
	const char *comma = strchr(file, ',');
	uint64_t uid, gid, serial;
	bool is_notice;
	size_t len;

	if (!comma)
		return false;
	len = (size_t)(comma - file);
	is_notice = is_remote(file, len);
	if ((!is_notice && !aph_name_is_valid(file, len)) ||
	    strlen(comma) != 1 + 8 + 1 + 8 + 1 + 16)
		return false;
	if (!parse_hex(&uid, comma + 1, 8) || comma[9] != ',' || !parse_hex(&gid, comma + 10, 8) ||
	    comma[18] != ',' || !parse_hex(&serial, comma + 19, 16))
		return false;
	memset(entry, 0, sizeof(*entry));
	memcpy(entry->name.name, file, len);
	for (char *plus = entry->name.name; (plus = strchr(plus, '+')); plus++)
		*plus = '/';
	entry->is_notice = is_notice;
	entry->name.uid = id_from_file((uint32_t)uid);
	entry->name.gid = id_from_file((uint32_t)gid);
	entry->serial = serial;
	memcpy(entry->file, file, strlen(file) + 1);
	return true;
}

/* -- directories ------------------------------------------------------------------------------- */

/* The only directory that counts, where the user has named one. */
static const char *named_dir(void)
{
	const char *named = secure_getenv("ANTIPHON_RUNTIME_DIR");

	return named && *named ? named : NULL;
}

bool aph_rendezvous_dir(int i, char path[PATH_MAX])
{
	const char *named = named_dir();
	const char *xdg = secure_getenv("XDG_RUNTIME_DIR");
	int n;

	if (named)
		n = i == 0 ? snprintf(path, PATH_MAX, "%s", named) : -1;
	else if (i == 0)
		n = snprintf(path, PATH_MAX, "/run/antiphon");
	else if (i == 1 && xdg && *xdg)
		n = snprintf(path, PATH_MAX, "%s/antiphon", xdg);
	else
		n = -1;
	return n > 0 && n < PATH_MAX;
}

/* Nobody but root and this user may be able to take files away from under their owners. */
static int check_dir(int fd, const char *path)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return aph_err(-errno, "cannot look at %s: %s", path, strerror(errno));
	if (st.st_uid != 0 && st.st_uid != geteuid())
		return aph_err(
			-EACCES,
			"the runtime directory %s belongs to user %u: use one that belongs to root or "
			"to you, or set ANTIPHON_RUNTIME_DIR",
			path, (unsigned)st.st_uid);
	if ((st.st_mode & (S_IWGRP | S_IWOTH)) && !(st.st_mode & S_ISVTX))
		return aph_err(
			-EACCES,
			"the runtime directory %s can be changed by others: chmod it to 1777 (shared) or "
			"755 (private)",
			path);
	return 0;
}

static int open_dir(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r;

	if (fd < 0)
		return aph_err(-errno, "cannot open the runtime directory %s: %s%s", path,
			       strerror(errno),
			       errno == ENOTDIR ? "; set ANTIPHON_RUNTIME_DIR to a directory"
						: aph_advice(errno));
	r = check_dir(fd, path);
	if (r < 0) {
		(void)close(fd);
		return r;
	}
	return fd;
}

/* Root's is for everybody; anybody else's is for whom they let in by the services' own rules. */
static int make_dir(const char *path)
{
	bool made = mkdir(path, 0755) == 0;
	int fd;

	if (!made && errno != EEXIST)
		return aph_err(-errno, "cannot make the runtime directory %s: %s%s", path,
			       strerror(errno),
			       errno == ENOENT ? "; make the directory that it is to lie in"
					       : aph_advice(errno));
	fd = open_dir(path);
	/*
	 * What somebody else has made meanwhile is not ours to open: it may be a link to anywhere.
	 */
	if (fd >= 0 && made && geteuid() == 0 && fchmod(fd, 01777) < 0) {
		(void)close(fd);
		return aph_err(-errno, "cannot open %s for all users: %s", path, strerror(errno));
	}
	return fd;
}

/* What is there and of no use is what the user has to hear of. */
static int open_or_make_dir(const char *path, bool *there)
{
	int fd, e;

	*there = access(path, F_OK) == 0;
	fd = *there ? open_dir(path) : make_dir(path);
	if (fd < 0 || faccessat(fd, ".", W_OK, AT_EACCESS) == 0)
		return fd;
	e = errno;
	(void)close(fd);
	return aph_err(
		-EACCES,
		"cannot register in the runtime directory %s (%s): let its owner chmod it to 1777, "
		"or set ANTIPHON_RUNTIME_DIR to a directory of yours",
		path, strerror(e));
}

int aph_rendezvous_open(char path[PATH_MAX])
{
	bool told = named_dir();
	int i, fd = -ENOENT;

	for (i = 0; aph_rendezvous_dir(i, path); i++) {
		bool there;

		fd = open_or_make_dir(path, &there);
		if (fd >= 0)
			return fd;
		told |= there;
	}
	if ((fd == -ENOENT || fd == -EACCES) && !told)
		return aph_err(
			fd,
			"no runtime directory: let root make /run/antiphon with mode 1777, or set "
			"ANTIPHON_RUNTIME_DIR to a directory of yours");
	return fd;
}

int aph_directory_path(char *buf, size_t size)
{
	char path[PATH_MAX];
	int fd = aph_rendezvous_open(path);

	if (fd < 0)
		return fd;
	(void)close(fd);
	if (strlen(path) >= size)
		return aph_err(-ENAMETOOLONG, "the path of the runtime directory needs %zu bytes",
			       strlen(path) + 1);
	memcpy(buf, path, strlen(path) + 1);
	return 0;
}

/* -- searching --------------------------------------------------------------------------------- */

/* An entry's uid is honest when its owner is that user or root. */
static bool is_honest(const struct aph_rendezvous_entry *entry)
{
	return entry->owner == 0 || entry->name.uid == APH_ID_ANY ||
	       entry->name.uid == (int64_t)entry->owner;
}

static bool matches(const struct aph_rendezvous_entry *entry, const struct aph_name *wanted)
{
	if (!is_honest(entry))
		return false;
	if (!wanted)
		return true;
	if (strcmp(entry->name.name, wanted->name) != 0)
		return false;
	if (wanted->gid >= 0 && entry->name.gid != wanted->gid)
		return false;
	if (wanted->uid >= 0)
		return entry->name.uid == wanted->uid;
	if (wanted->uid == APH_ID_ANY || wanted->gid >= 0)
		return true;
	return entry->name.uid == (int64_t)geteuid() || (entry->name.uid == 0 && entry->owner == 0);
}

struct found {
	struct aph_rendezvous_entry *entries;
	size_t n, capacity;
	/* A file was listed and is gone: who came in its place may not have been listed. */
	bool vanished;
};

static int add_found(struct found *found, const struct aph_rendezvous_entry *entry)
{
	if (found->n == found->capacity) {
		size_t capacity = found->capacity ? 2 * found->capacity : 8;
		struct aph_rendezvous_entry *entries =
			reallocarray(found->entries, capacity, sizeof(*entries));

		if (!entries)
			return aph_err(-ENOMEM, "no memory to list services");
		found->entries = entries;
		found->capacity = capacity;
	}
	found->entries[found->n++] = *entry;
	return 0;
}

static int search_dir(struct found *found, int number, const char *path,
		      const struct aph_name *wanted)
{
	int fd = open_dir(path), r = 0;
	struct dirent *file;
	DIR *dir;

	if (fd < 0)
		return fd;
	dir = fdopendir(fd);
	if (!dir) {
		(void)close(fd);
		return aph_err(-ENOMEM, "no memory to read %s", path);
	}
	while (r == 0 && (file = readdir(dir))) {
		struct aph_rendezvous_entry entry;
		struct stat st;

		if (!aph_rendezvous_parse(&entry, file->d_name) ||
		    (wanted && strcmp(entry.name.name, wanted->name) != 0))
			continue;
		if (fstatat(dirfd(dir), file->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
			found->vanished |= errno == ENOENT;
			continue;
		}
		if (entry.is_notice ? !S_ISREG(st.st_mode) : !S_ISSOCK(st.st_mode))
			continue;
		entry.owner = st.st_uid;
		entry.dir = number;
		if (matches(&entry, wanted))
			r = add_found(found, &entry);
	}
	(void)closedir(dir);
	return r;
}

/* Own user before anybody else, then newer before older. */
static int by_preference(const void *a, const void *b)
{
	const struct aph_rendezvous_entry *x = a, *y = b;
	int64_t own = (int64_t)geteuid();

	if ((x->name.uid == own) != (y->name.uid == own))
		return x->name.uid == own ? -1 : 1;
	return x->serial > y->serial ? -1 : x->serial < y->serial;
}

/* By name for lists, then newest first. */
static int by_name(const void *a, const void *b)
{
	const struct aph_rendezvous_entry *x = a, *y = b;
	int order = strcmp(x->name.name, y->name.name);

	if (order)
		return order;
	return x->serial > y->serial ? -1 : x->serial < y->serial;
}

static int search_all(struct found *found, const struct aph_name *wanted)
{
	char path[PATH_MAX];
	int i, r, usable = 0, trouble = 0;

	found->n = 0;
	found->vanished = false;
	for (i = 0; aph_rendezvous_dir(i, path); i++) {
		if (access(path, F_OK) < 0)
			continue;
		r = search_dir(found, i, path, wanted);
		if (r == -ENOMEM)
			return r;
		if (r < 0)
			trouble = r;
		else
			usable++;
	}
	return usable ? 0 : trouble;
}

int aph_rendezvous_search(struct aph_rendezvous_entry **out, size_t *n,
			  const struct aph_name *wanted)
{
	struct found found = { 0 };
	int i, r;

	/* In a handover one file comes and then another goes: one of them has to be seen. */
	for (i = 0, r = 0; i < LISTINGS_MAX && r == 0 && (i == 0 || found.vanished); i++)
		r = search_all(&found, wanted);
	if (r < 0) {
		free(found.entries);
		return r;
	}
	/* Whoever wants any user's service takes the newest; otherwise one's own comes first. */
	if (found.n)
		qsort(found.entries, found.n, sizeof(*found.entries),
		      !wanted || wanted->uid != APH_ID_DEFAULT ? by_name : by_preference);
	*out = found.entries;
	*n = found.n;
	return 0;
}

/* -- sockets ----------------------------------------------------------------------------------- */

static int new_socket(void)
{
	static const int on = 1;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return aph_err(-errno, "cannot make a socket: %s%s", strerror(errno),
			       aph_advice(errno));
	/*
	 * The first message tells who sent it: real ids, and at a client the process that accepts.
	 */
	(void)setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
	return fd;
}

/* Through /proc the path has a bounded length and means the very file that was looked at. */
static void address_of(struct sockaddr_un *address, int fd, const char *file)
{
	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	(void)snprintf(address->sun_path, sizeof(address->sun_path), "/proc/self/fd/%d%s%s", fd,
		       file ? "/" : "", file ? file : "");
}

/* The process is gone. Its user, or root, tidies up after it. */
static void remove_stale(int dir_fd, const struct aph_rendezvous_entry *entry)
{
	uid_t self = geteuid();

	if (self == 0 || self == entry->owner)
		(void)unlinkat(dir_fd, entry->file, 0);
}

static int connect_file(int dir_fd, const struct aph_rendezvous_entry *entry)
{
	int file_fd = openat(dir_fd, entry->file, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct sockaddr_un address;
	struct stat st;
	int sock, r = 0;

	if (file_fd < 0)
		return aph_err(-errno, "cannot open %s: %s", entry->file, strerror(errno));
	if (fstat(file_fd, &st) < 0 || !S_ISSOCK(st.st_mode) || st.st_uid != entry->owner) {
		(void)close(file_fd);
		return aph_err(-ECONNREFUSED, "%s was replaced while it was looked at",
			       entry->file);
	}
	sock = new_socket();
	if (sock >= 0) {
		address_of(&address, file_fd, NULL);
		if (connect(sock, (struct sockaddr *)&address, sizeof(address)) < 0) {
			r = aph_err(-errno, "cannot connect to %s: %s", entry->file,
				    strerror(errno));
			(void)close(sock);
			sock = r;
		}
	}
	(void)close(file_fd);
	if (r == -ECONNREFUSED)
		remove_stale(dir_fd, entry);
	return sock;
}

/* The directory that the entry was found in. */
static int open_dir_of(const struct aph_rendezvous_entry *entry)
{
	char path[PATH_MAX];

	return aph_rendezvous_dir(entry->dir, path) ? open_dir(path) : -ENOENT;
}

int aph_rendezvous_connect(const struct aph_rendezvous_entry *entry)
{
	int dir_fd = open_dir_of(entry), sock;

	if (dir_fd < 0)
		return dir_fd;
	sock = connect_file(dir_fd, entry);
	(void)close(dir_fd);
	return sock;
}

int aph_rendezvous_open_notice(const struct aph_rendezvous_entry *entry)
{
	int dir_fd = open_dir_of(entry), fd;
	struct stat st;

	if (dir_fd < 0)
		return dir_fd;
	fd = openat(dir_fd, entry->file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	(void)close(dir_fd);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_uid != entry->owner) {
		(void)close(fd);
		return -ENOENT;
	}
	return fd;
}

void aph_rendezvous_remove(const struct aph_rendezvous_entry *entry)
{
	int dir_fd = open_dir_of(entry);

	if (dir_fd < 0)
		return;
	remove_stale(dir_fd, entry);
	(void)close(dir_fd);
}

static int cannot_register(int dir_fd, const char *file, int e)
{
	char fd[32], path[PATH_MAX];
	ssize_t len;

	(void)snprintf(fd, sizeof(fd), "/proc/self/fd/%d", dir_fd);
	len = readlink(fd, path, sizeof(path));
	return aph_err(-e, "cannot register %s in %.*s: %s%s", file, len < 0 ? 0 : (int)len, path,
		       strerror(e), aph_advice(e));
}

/* The hidden name is that of the serial number alone: whoever has it, has the number. */
static int bind_and_listen(int sock, int dir_fd, const char *file, const char *hidden)
{
	struct sockaddr_un address;

	address_of(&address, dir_fd, hidden);
	if (bind(sock, (struct sockaddr *)&address, sizeof(address)) < 0)
		return cannot_register(dir_fd, file, errno);
	if (faccessat(dir_fd, file, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
		(void)unlinkat(dir_fd, hidden, 0);
		return aph_err(-EADDRINUSE, "cannot register %s: it is there already", file);
	}
	/* Who gets in is decided by the service, which knows more than a file's mode can say. */
	if (fchmodat(dir_fd, hidden, 0666, 0) < 0 || listen(sock, BACKLOG) < 0 ||
	    renameat(dir_fd, hidden, dir_fd, file) < 0) {
		int e = errno;

		(void)unlinkat(dir_fd, hidden, 0);
		return cannot_register(dir_fd, file, e);
	}
	return 0;
}

int aph_rendezvous_listen(int dir_fd, const char *file)
{
	/* Nobody finds the name before somebody listens. */
	int sock = new_socket(), r;
	char hidden[32];

	if (sock < 0)
		return sock;
	(void)snprintf(hidden, sizeof(hidden), ".%s", strrchr(file, ',') + 1);
	r = bind_and_listen(sock, dir_fd, file, hidden);
	if (r < 0) {
		(void)close(sock);
		return r;
	}
	return sock;
}

/* Whether this is the hidden name of a service that registers: a dot and its serial number. */
static bool is_hidden(const char *file)
{
	uint64_t serial;

	return file[0] == '.' && strlen(file) == 1 + 16 && parse_hex(&serial, file + 1, 16);
}

static void sweep_hidden(int dir_fd, const char *file)
{
	struct aph_rendezvous_entry entry = { 0 };
	struct timespec now;
	struct stat st;
	int sock;

	if (fstatat(dir_fd, file, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
	    (!S_ISSOCK(st.st_mode) && !S_ISREG(st.st_mode)))
		return;
	(void)clock_gettime(CLOCK_REALTIME, &now);
	if (st.st_mtim.tv_sec > now.tv_sec - HIDDEN_AGE_S)
		return;
	entry.owner = st.st_uid;
	memcpy(entry.file, file, strlen(file) + 1);
	if (S_ISREG(st.st_mode)) {
		remove_stale(dir_fd, &entry); /* a notice, which nobody took so long to write */
		return;
	}
	sock = connect_file(dir_fd, &entry); /* removes it if nobody listens */
	if (sock >= 0)
		(void)close(sock);
}

void aph_rendezvous_sweep_hidden(int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *file;
	DIR *dir;

	dir = fd >= 0 ? fdopendir(fd) : NULL;
	if (!dir) {
		if (fd >= 0)
			(void)close(fd);
		return;
	}
	while ((file = readdir(dir))) {
		if (is_hidden(file->d_name))
			sweep_hidden(dir_fd, file->d_name);
	}
	(void)closedir(dir);
}

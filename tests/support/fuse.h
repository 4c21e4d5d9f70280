/* SPDX-License-Identifier: MIT */
/* A file on a FUSE mount whose server does not answer when it is asked about a close(2). */
#ifndef TESTS_SUPPORT_FUSE_H
#define TESTS_SUPPORT_FUSE_H

#include "child.h"

struct fuse_file {
	struct child server;
	pid_t opener;
	int fd; /* whoever closes this or a duplicate of it waits until fuse_end() */
};

/* 0, or the error with which the system does not let us have one. */
int fuse_begin(struct fuse_file *file);
/* Lets everybody go, and closes it. */
void fuse_end(struct fuse_file *file);

#endif

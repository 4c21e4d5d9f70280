/* SPDX-License-Identifier: MIT */
/*
 * The fixture of every test that opens services: a runtime directory of its own, and the promise
 * that the test leaves no descriptor, no process and no socket file behind.
 */
#ifndef TESTS_SUPPORT_DIR_H
#define TESTS_SUPPORT_DIR_H

#include <stddef.h>
#include <stdint.h>

/* For cmocka, before and after each test. They leave `*state` alone. */
int dir_setup(void **state);
int dir_teardown(void **state);

/* The same for programs without cmocka; dir_end() checks. */
void dir_begin(void);
void dir_end(void);

/* The path of the directory in force. */
const char *dir_path(void);

/* How many socket files are in it, at any depth. */
int dir_sockets(void);

/* Checks that there are so many, and says which there are if not. */
void dir_check_sockets(int n);

/* The path of the only socket file in it; checks that there is exactly one. */
void dir_only_socket(char *path, size_t size);

/* Removes the socket files that are left: for tests that kill services. */
void dir_remove_sockets(void);

#endif

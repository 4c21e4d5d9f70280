/* SPDX-License-Identifier: MIT */
/*
 * A conversation with the engine, written in a text file: what a peer sends, what the engine must
 * send, what its user does and is told. README.md has the language.
 */
#ifndef TESTS_INTEROP_VECTOR_H
#define TESTS_INTEROP_VECTOR_H

#include "rx/wire.h"

#include <antiphon/rx.h>

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WORDS_MAX 40
#define VARS_MAX  64
#define CALLS_MAX 40
#define SENT_MAX  2048

/* A line, taken apart: words, and what stands behind the colon. */
struct line {
	const char *file;
	unsigned number;
	char *words[WORDS_MAX];
	unsigned n_words;
	uint8_t body[65536];
	size_t body_len;
	bool has_body;
};

struct vector_var {
	char name[24];
	uint64_t value;
};

struct vector_call {
	char name[16];
	struct aph_rx_call *call;
};

struct vector_datagram {
	uint8_t *bytes;
	size_t len;
	unsigned peer;
};

struct vector {
	const struct line *line;
	struct aph_rx_config config;
	struct aph_rx *rx;
	uint64_t now;
	bool engine_is_client; /* whom the peer speaks to by default */
	uint32_t serial;       /* of the peer's next packet */
	struct vector_var vars[VARS_MAX];
	unsigned n_vars;
	struct vector_call calls[CALLS_MAX];
	unsigned n_calls;
	struct aph_rx_client *clients[26]; /* by letter */
	struct aph_rx_service *services[256];
	struct vector_datagram sent[SENT_MAX];
	unsigned n_sent, next_sent;
	size_t memory;
	uint64_t random;
	jmp_buf failed;
};

_Noreturn void vector_fail(struct vector *v, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* The value of a word `key=value`, or NULL. */
const char *line_value(const struct line *line, const char *key);
bool line_has(const struct line *line, const char *word);
/* A number: decimal, 0x..., negative, or $variable. */
uint64_t vector_number(struct vector *v, const char *text);
uint64_t vector_field(struct vector *v, const char *key, uint64_t otherwise);
void vector_set(struct vector *v, const char *name, uint64_t value);

/* packets.c: lines that begin with > and < */
void vector_send(struct vector *v);
void vector_expect(struct vector *v);

/* vector.c */
void vector_run(struct vector *v, const struct line *line);
void vector_begin(struct vector *v);
void vector_end(struct vector *v);
struct aph_rx_path vector_path(unsigned peer);
/* Takes out what the engine has to send. */
void vector_flush(struct vector *v);

#endif

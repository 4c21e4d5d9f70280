/* SPDX-License-Identifier: MIT */
/*
 * A JSON writer: values go straight to a stream, commas and nesting are its business.
 *
 * Inside an object every value has a key; inside an array, and for the outermost value, it is NULL.
 */
#ifndef ANTIPHON_CLI_JSON_H
#define ANTIPHON_CLI_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define JSON_DEPTH_MAX 32

struct json {
	FILE *out;
	unsigned depth;
	bool array[JSON_DEPTH_MAX];
	bool filled[JSON_DEPTH_MAX]; /* a value was written on this level: a comma goes first */
};

void json_init(struct json *json, FILE *out);

void json_begin_object(struct json *json, const char *key);
void json_begin_array(struct json *json, const char *key);
/* Ends the innermost object or array; the outermost also ends the line. */
void json_end(struct json *json);

/* Bytes that are not UTF-8 are written as the replacement character. */
void json_string(struct json *json, const char *key, const char *value);
void json_int(struct json *json, const char *key, int64_t value);
void json_uint(struct json *json, const char *key, uint64_t value);
/* Six digits behind the point. */
void json_double(struct json *json, const char *key, double value);
void json_bool(struct json *json, const char *key, bool value);
void json_null(struct json *json, const char *key);

#endif

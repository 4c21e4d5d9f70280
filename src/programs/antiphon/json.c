/* SPDX-License-Identifier: MIT */
/*
 * The JSON writer. It keeps one pair of flags a level and no tree: what was written is gone.
 */
#include "json.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

/* The length of the well-formed UTF-8 sequence that begins here, or 0. */
static size_t utf8_length(const unsigned char *s)
{
	uint32_t point;
	size_t len;

	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf)
		len = 2;
	else if (s[0] >= 0xe0 && s[0] <= 0xef)
		len = 3;
	else if (s[0] >= 0xf0 && s[0] <= 0xf4)
		len = 4;
	else
		return 0;

	point = s[0] & (0xffu >> (len + 1));
	for (size_t i = 1; i < len; i++) {
		/* A NUL is no continuation byte, so this never looks past the end. */
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		point = point << 6 | (s[i] & 0x3fu);
	}
	if ((len == 3 && (point < 0x800 || (point >= 0xd800 && point <= 0xdfff))) ||
	    (len == 4 && (point < 0x10000 || point > 0x10ffff)))
		return 0;
	return len;
}

static void write_text(FILE *out, const char *text)
{
	const unsigned char *s = (const unsigned char *)text;

	fputc('"', out);
	while (*s != '\0') {
		size_t len = utf8_length(s);

		if (len == 0) {
			fputs("\\ufffd", out);
			s++;
			continue;
		}
		if (*s == '"' || *s == '\\')
			fprintf(out, "\\%c", *s);
		else if (*s < 0x20 || *s == 0x7f)
			fprintf(out, "\\u%04x", *s);
		else
			fwrite(s, 1, len, out);
		s += len;
	}
	fputc('"', out);
}

static void begin_value(struct json *json, const char *key)
{
	if (json->depth == 0)
		return;
	assert(json->array[json->depth - 1] == (key == NULL));
	if (json->filled[json->depth - 1])
		fputs(", ", json->out);
	json->filled[json->depth - 1] = true;
	if (key != NULL) {
		write_text(json->out, key);
		fputs(": ", json->out);
	}
}

static void begin_level(struct json *json, const char *key, bool array)
{
	assert(json->depth < JSON_DEPTH_MAX);
	begin_value(json, key);
	fputc(array ? '[' : '{', json->out);
	json->array[json->depth] = array;
	json->filled[json->depth] = false;
	json->depth++;
}

void json_init(struct json *json, FILE *out)
{
	memset(json, 0, sizeof(*json));
	json->out = out;
}

void json_begin_object(struct json *json, const char *key)
{
	begin_level(json, key, false);
}

void json_begin_array(struct json *json, const char *key)
{
	begin_level(json, key, true);
}

void json_end(struct json *json)
{
	assert(json->depth > 0);
	json->depth--;
	fputc(json->array[json->depth] ? ']' : '}', json->out);
	if (json->depth == 0)
		fputc('\n', json->out);
}

void json_string(struct json *json, const char *key, const char *value)
{
	begin_value(json, key);
	write_text(json->out, value);
}

void json_int(struct json *json, const char *key, int64_t value)
{
	begin_value(json, key);
	fprintf(json->out, "%" PRId64, value);
}

void json_uint(struct json *json, const char *key, uint64_t value)
{
	begin_value(json, key);
	fprintf(json->out, "%" PRIu64, value);
}

void json_double(struct json *json, const char *key, double value)
{
	/* JSON has no infinity. */
	if (!isfinite(value)) {
		json_null(json, key);
		return;
	}
	begin_value(json, key);
	fprintf(json->out, "%.6f", value);
}

void json_bool(struct json *json, const char *key, bool value)
{
	begin_value(json, key);
	fputs(value ? "true" : "false", json->out);
}

void json_null(struct json *json, const char *key)
{
	begin_value(json, key);
	fputs("null", json->out);
}

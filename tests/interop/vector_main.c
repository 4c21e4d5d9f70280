/* SPDX-License-Identifier: MIT */
/*
 * Runs conversations with the engine from text files, and prints TAP.
 *
 *   vectors FILE...
 *
 * A file holds several, each begun by a line `== NAME`. Of one that fails the line is printed.
 */
#include "check.h"
#include "vector.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_MAX_BYTES 4096

_Noreturn static void refuse(const struct line *line, const char *why)
{
	fprintf(stderr, "%s:%u: %s\n", line->file, line->number, why);
	exit(2);
}

static void add_byte(struct line *line, uint8_t byte)
{
	if (line->body_len == sizeof(line->body))
		refuse(line, "the body is too long");
	line->body[line->body_len++] = byte;
}

/* Pieces: "text", hexadecimal bytes, and N*xx for a byte repeated. */
static void parse_body(struct line *line, const char *at)
{
	line->has_body = true;
	while (*at) {
		char *end;
		unsigned long n;

		if (isspace((unsigned char)*at)) {
			at++;
		} else if (*at == '"') {
			for (at++; *at && *at != '"'; at++)
				add_byte(line, (uint8_t)*at);
			at += *at == '"';
		} else if ((n = strtoul(at, &end, 10)), *end == '*' && end > at) {
			unsigned long byte = strtoul(end + 1, &end, 16);

			while (n-- > 0)
				add_byte(line, (uint8_t)byte);
			at = end;
		} else if (isxdigit((unsigned char)at[0]) && isxdigit((unsigned char)at[1])) {
			const char digits[3] = { at[0], at[1], '\0' };

			add_byte(line, (uint8_t)strtoul(digits, NULL, 16));
			at += 2;
		} else {
			refuse(line, "neither text nor hexadecimal bytes");
		}
	}
}

static void parse(struct line *line, char *text)
{
	char *colon, *save = NULL;

	line->n_words = 0;
	line->body_len = 0;
	line->has_body = false;
	text[strcspn(text, "\r\n")] = '\0';
	if (text[0] == '#')
		return;
	colon = strstr(text, " :");
	if (colon) {
		*colon = '\0';
		parse_body(line, colon + 2);
	}
	for (char *word = strtok_r(text, " \t", &save); word; word = strtok_r(NULL, " \t", &save)) {
		if (line->n_words == WORDS_MAX)
			refuse(line, "too many words");
		line->words[line->n_words++] = word;
	}
}

static struct vector vector;
static unsigned n_run, n_failed;

static void finish(const char *name, volatile bool ok)
{
	if (ok && setjmp(vector.failed))
		ok = false;
	else if (ok)
		vector_end(&vector);
	printf("%s %u - %s\n", ok ? "ok" : "not ok", ++n_run, name);
	n_failed += !ok;
}

static void run_file(const char *path)
{
	static struct line line;
	static char text[LINE_MAX_BYTES], name[128];
	static bool ok;
	FILE *file = fopen(path, "re");

	if (!file) {
		perror(path);
		exit(2);
	}
	line.file = path;
	line.number = 0;
	name[0] = '\0';
	while (fgets(text, sizeof(text), file)) {
		line.number++;
		if (strncmp(text, "== ", 3) == 0) {
			if (*name)
				finish(name, ok);
			memset(&vector, 0, sizeof(vector));
			text[strcspn(text, "\n")] = '\0';
			snprintf(name, sizeof(name), "%.100s", text + 3);
			vector.line = &line;
			ok = true;
			continue;
		}
		parse(&line, text);
		if (line.n_words > 0 && !*name)
			refuse(&line, "before the first ==");
		if (!*name || !ok)
			continue;
		if (setjmp(vector.failed))
			ok = false;
		else
			vector_run(&vector, &line);
	}
	fclose(file);
	if (*name)
		finish(name, ok);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		run_file(argv[i]);
	printf("1..%u\n", n_run);
	return n_run > 0 && n_failed == 0 ? 0 : 1;
}

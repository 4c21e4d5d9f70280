/* SPDX-License-Identifier: MIT */
/*
 * A table of text whose columns are as wide as they must be.
 */
#ifndef ANTIPHON_CLI_TABLE_H
#define ANTIPHON_CLI_TABLE_H

#include <stddef.h>
#include <stdio.h>

/* A heading that begins with '>' makes a column of numbers, aligned to the right. */
struct table {
	const char *const *headings;
	size_t n_columns;
	char **cells; /* row by row */
	size_t n_cells;
	size_t n_cells_max;
};

/* `headings` is borrowed for the table's life. */
void table_init(struct table *table, const char *const *headings, size_t n_columns);
void table_deinit(struct table *table);

/* Adds the next cell, row by row. 0 or -ENOMEM. */
int table_add(struct table *table, const char *text);

/*
 * Prints at most `rows_max` rows under the headings, lines cut at `width_max` (0: neither limit).
 */
void table_print(const struct table *table, FILE *out, size_t rows_max, size_t width_max);

#endif

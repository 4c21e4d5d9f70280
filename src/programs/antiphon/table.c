/* SPDX-License-Identifier: MIT */
/*
 * A table of text. Cells are ASCII by contract of the callers, so that a byte is a column.
 */
#include "table.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS_MAX 16

void table_init(struct table *table, const char *const *headings, size_t n_columns)
{
	memset(table, 0, sizeof(*table));
	table->headings = headings;
	table->n_columns = n_columns < COLUMNS_MAX ? n_columns : COLUMNS_MAX;
}

void table_deinit(struct table *table)
{
	for (size_t i = 0; i < table->n_cells; i++)
		free(table->cells[i]);
	free(table->cells);
	memset(table, 0, sizeof(*table));
}

int table_add(struct table *table, const char *text)
{
	char *copy;

	if (table->n_cells == table->n_cells_max) {
		size_t max = table->n_cells_max == 0 ? 64 : table->n_cells_max * 2;
		char **cells = reallocarray(table->cells, max, sizeof(*cells));

		if (cells == NULL)
			return -ENOMEM;
		table->cells = cells;
		table->n_cells_max = max;
	}
	copy = strdup(text);
	if (copy == NULL)
		return -ENOMEM;
	table->cells[table->n_cells++] = copy;
	return 0;
}

static bool is_number(const char *heading)
{
	return heading[0] == '>';
}

static void print_row(const struct table *table, FILE *out, const char *const *row,
		      const size_t *widths, size_t width_max)
{
	size_t room = width_max == 0 ? SIZE_MAX : width_max;

	for (size_t i = 0; i < table->n_columns; i++) {
		const char *text = row[i] + (is_number(row[i]) ? 1 : 0);
		bool last = i == table->n_columns - 1;
		char line[512];
		int n;

		if (is_number(table->headings[i]))
			n = snprintf(line, sizeof(line), "%*s", (int)widths[i], text);
		else
			n = snprintf(line, sizeof(line), "%-*s", last ? 0 : (int)widths[i], text);
		if (n < 0)
			return;
		if ((size_t)n > sizeof(line) - 1)
			n = (int)sizeof(line) - 1;
		if ((size_t)n > room)
			n = (int)room;
		fprintf(out, "%.*s", n, line);
		room -= (size_t)n;
		/* No part of a column without the gap before it. */
		if (last || room <= 2)
			break;
		fputs("  ", out);
		room -= 2;
	}
	fputc('\n', out);
}

void table_print(const struct table *table, FILE *out, size_t rows_max, size_t width_max)
{
	size_t n_rows = table->n_cells / table->n_columns;
	size_t widths[COLUMNS_MAX] = { 0 };

	for (size_t i = 0; i < table->n_columns; i++) {
		widths[i] = strlen(table->headings[i]) - (is_number(table->headings[i]) ? 1 : 0);
		for (size_t row = 0; row < n_rows; row++) {
			size_t len = strlen(table->cells[row * table->n_columns + i]);

			if (len > widths[i])
				widths[i] = len;
		}
	}

	print_row(table, out, table->headings, widths, width_max);
	for (size_t row = 0; row < n_rows && (rows_max == 0 || row < rows_max); row++)
		print_row(table, out, (const char *const *)&table->cells[row * table->n_columns],
			  widths, width_max);
}

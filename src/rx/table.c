/* SPDX-License-Identifier: MIT */
/*
 * Chained hash tables that double when they are full. The hash is keyed, so nobody outside can
 * choose chains.
 */
#include "rx/engine.h"

#include <errno.h>

static bool grow(struct aph_rx *rx, struct aph_rx_table *table)
{
	uint32_t n_heads = table->n_heads ? table->n_heads * 2 : 64;
	struct aph_rx_node **heads = aph_rx_zalloc(rx, n_heads * sizeof(struct aph_rx_node *));
	uint32_t i;

	if (!heads)
		return false;
	for (i = 0; i < table->n_heads; i++) {
		struct aph_rx_node *node = table->heads[i];

		while (node) {
			struct aph_rx_node *next = node->next;
			struct aph_rx_node **head = &heads[node->hash & (n_heads - 1)];

			node->next = *head;
			*head = node;
			node = next;
		}
	}
	aph_rx_table_deinit(rx, table);
	table->heads = heads;
	table->n_heads = n_heads;
	return true;
}

int aph_rx_table_insert(struct aph_rx *rx, struct aph_rx_table *table, struct aph_rx_node *node)
{
	struct aph_rx_node **head;

	/* A table that cannot grow goes on with longer chains. */
	if (table->n >= table->n_heads && !grow(rx, table) && !table->n_heads)
		return -ENOMEM;
	head = &table->heads[node->hash & (table->n_heads - 1)];
	node->next = *head;
	*head = node;
	table->n++;
	return 0;
}

void aph_rx_table_remove(struct aph_rx_table *table, struct aph_rx_node *node)
{
	struct aph_rx_node **link = &table->heads[node->hash & (table->n_heads - 1)];

	while (*link != node)
		link = &(*link)->next;
	*link = node->next;
	table->n--;
}

void aph_rx_table_deinit(struct aph_rx *rx, struct aph_rx_table *table)
{
	aph_rx_release(rx, table->heads, table->n_heads * sizeof(struct aph_rx_node *));
	table->heads = NULL;
	table->n_heads = 0;
}

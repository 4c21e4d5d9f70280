/* SPDX-License-Identifier: MIT */
#include "suite.h"

#include "base/list.h"

struct item {
	int number;
	struct aph_list link;
};

static int number_of(struct aph_list *link)
{
	return aph_container(link, struct item, link)->number;
}

static void order_is_kept(void **state)
{
	struct item items[5];
	struct aph_list head, *pos, *tmp;
	int n = 0;

	(void)state;
	aph_list_init(&head);
	assert_true(aph_list_empty(&head));
	for (int i = 0; i < 5; i++) {
		items[i].number = i;
		aph_list_append(&head, &items[i].link);
		assert_false(aph_list_empty(&head));
	}
	aph_list_for_each(pos, tmp, &head)
		assert_int_equal(number_of(pos), n++);
	assert_int_equal(n, 5);
}

static void members_may_go_on_the_way(void **state)
{
	struct item items[6];
	struct aph_list head, *pos, *tmp;
	int left = 0;

	(void)state;
	aph_list_init(&head);
	for (int i = 0; i < 6; i++) {
		items[i].number = i;
		aph_list_append(&head, &items[i].link);
	}
	aph_list_for_each(pos, tmp, &head)
		if (number_of(pos) % 2)
			aph_list_remove(pos);
	aph_list_for_each(pos, tmp, &head) {
		assert_int_equal(number_of(pos) % 2, 0);
		left++;
	}
	assert_int_equal(left, 3);
	/* One that is in no list may be removed again. */
	aph_list_remove(&items[1].link);
	assert_true(aph_list_empty(&items[1].link));
	aph_list_for_each(pos, tmp, &head)
		aph_list_remove(pos);
	assert_true(aph_list_empty(&head));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(order_is_kept),
		cmocka_unit_test(members_may_go_on_the_way),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

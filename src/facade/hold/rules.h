/* SPDX-License-Identifier: MIT */
/* Who may do what with whose names, and how much of it one user may have. */
#ifndef ANTIPHON_HOLD_RULES_H
#define ANTIPHON_HOLD_RULES_H

#include "wire.h"

#include <antiphon/credentials.h>

#define HOLD_CAN_STORE	  0x01u
#define HOLD_CAN_RETRIEVE 0x02u
#define HOLD_CAN_LIST	  0x04u
#define HOLD_CAN_TRANSFER 0x08u
#define HOLD_CAN_DELETE	  0x10u
#define HOLD_CAN_ALL	  0x1fu

#define HOLD_OWNER_SELF INT64_C(-3) /* beside the values of aph_name.uid */

struct hold_rule {
	int64_t uid; /* who: APH_ID_ANY, or a number */
	int64_t gid;
	int64_t owner; /* whose names: HOLD_OWNER_SELF, APH_ID_ANY, or a number */
	unsigned can;
	char prefix[APH_HOLD_NAME_MAX + 1];
};

struct hold_limit {
	int64_t uid; /* APH_ID_ANY: of whoever is not named */
	uint32_t n_fds;
};

/*
 * Reads "uid=U,gid=G,owner=self|any|U,prefix=P,can=VERB+VERB". 0, or -EINVAL after hold_complain().
 */
int hold_rule_parse(struct hold_rule *rule, const char *text);
/* Reads "N" or "USER=N". The same. */
int hold_limit_parse(struct hold_limit *limit, const char *text);

/* Whether the rule lets this caller do that with this name of that owner. */
bool hold_rule_fits(const struct hold_rule *rule, const struct aph_credentials *who, unsigned can,
		    uid_t owner, const char *name);

#endif

/* SPDX-License-Identifier: MIT */
/* Rules and limits: read from text, and applied. */
#include "rules.h"

#include "error.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX 256

static const struct {
	const char *name;
	unsigned can;
} verbs[] = {
	{ "store", HOLD_CAN_STORE },   { "retrieve", HOLD_CAN_RETRIEVE },
	{ "list", HOLD_CAN_LIST },     { "transfer", HOLD_CAN_TRANSFER },
	{ "delete", HOLD_CAN_DELETE }, { "all", HOLD_CAN_ALL },
};

/* -1 when it is no number. */
static int64_t read_number(const char *text, int64_t max)
{
	char *end;
	unsigned long long value;

	if (text[0] < '0' || text[0] > '9')
		return -1;
	errno = 0;
	value = strtoull(text, &end, 10);
	return *end || errno || value > (unsigned long long)max ? -1 : (int64_t)value;
}

/* The last id stands for none. */
#define ID_MAX INT64_C(0xfffffffe)

/* Addresses know names of users and groups. */
static bool find_id(struct aph_name *name, const char *key, const char *text)
{
	char address[APH_ADDRESS_MAX + 1];
	int n = snprintf(address, sizeof(address), "caps:x,%s=%s", key, text);

	return n > 0 && n < (int)sizeof(address) && !strchr(text, ',') &&
	       aph_name_parse(name, address) == 0;
}

static int read_user(int64_t *uid, const char *text)
{
	struct aph_name name;

	*uid = read_number(text, ID_MAX);
	if (*uid < 0 && find_id(&name, "uid", text))
		*uid = name.uid;
	return *uid >= 0 ? 0 : hold_complain(-EINVAL, "there is no user '%s'", text);
}

static int read_group(int64_t *gid, const char *text)
{
	struct aph_name name;

	*gid = read_number(text, ID_MAX);
	if (*gid < 0 && find_id(&name, "gid", text))
		*gid = name.gid;
	return *gid >= 0 ? 0 : hold_complain(-EINVAL, "there is no group '%s'", text);
}

static int read_verbs(unsigned *can, char *text)
{
	char *save = NULL;

	*can = 0;
	for (char *word = strtok_r(text, "+", &save); word; word = strtok_r(NULL, "+", &save)) {
		size_t i = 0;

		while (i < sizeof(verbs) / sizeof(verbs[0]) && strcmp(word, verbs[i].name) != 0)
			i++;
		if (i == sizeof(verbs) / sizeof(verbs[0]))
			return hold_complain(
				-EINVAL,
				"'%s' is none of store, retrieve, list, transfer, delete, all",
				word);
		*can |= verbs[i].can;
	}
	return *can ? 0 : hold_complain(-EINVAL, "can= needs something that can be done");
}

static int read_key(struct hold_rule *rule, const char *key, char *value)
{
	if (strcmp(key, "uid") == 0) {
		if (strcmp(value, "any") != 0)
			return read_user(&rule->uid, value);
		rule->uid = APH_ID_ANY;
		return 0;
	}
	if (strcmp(key, "gid") == 0)
		return read_group(&rule->gid, value);
	if (strcmp(key, "owner") == 0) {
		if (strcmp(value, "self") != 0 && strcmp(value, "any") != 0)
			return read_user(&rule->owner, value);
		rule->owner = value[0] == 's' ? HOLD_OWNER_SELF : APH_ID_ANY;
		return 0;
	}
	if (strcmp(key, "prefix") == 0) {
		if (!hold_is_name(value, strlen(value)))
			return hold_complain(-EINVAL, "'%s' cannot begin a name", value);
		memcpy(rule->prefix, value, strlen(value) + 1);
		return 0;
	}
	if (strcmp(key, "can") == 0)
		return read_verbs(&rule->can, value);
	return hold_complain(-EINVAL, "a rule has no '%s': it has uid, gid, owner, prefix and can",
			     key);
}

int hold_rule_parse(struct hold_rule *rule, const char *text)
{
	char copy[TEXT_MAX], *save = NULL;

	*rule = (struct hold_rule){
		.uid = APH_ID_DEFAULT,
		.gid = APH_ID_ANY,
		.owner = HOLD_OWNER_SELF,
		.can = HOLD_CAN_ALL,
	};
	if (strlen(text) >= sizeof(copy))
		return hold_complain(-EINVAL, "a rule has at most %d bytes", TEXT_MAX - 1);
	memcpy(copy, text, strlen(text) + 1);
	for (char *key = strtok_r(copy, ",", &save); key; key = strtok_r(NULL, ",", &save)) {
		char *value = strchr(key, '=');
		int r;

		if (!value)
			return hold_complain(-EINVAL, "'%s' is not KEY=VALUE", key);
		*value++ = '\0';
		r = read_key(rule, key, value);
		if (r < 0)
			return r;
	}
	/* To leave out who is meant must not mean everybody. */
	if (rule->uid == APH_ID_DEFAULT && rule->gid == APH_ID_ANY)
		return hold_complain(-EINVAL,
				     "a rule must say who: uid=USER, uid=any or gid=GROUP");
	if (rule->uid == APH_ID_DEFAULT)
		rule->uid = APH_ID_ANY;
	return 0;
}

int hold_limit_parse(struct hold_limit *limit, const char *text)
{
	const char *number = strrchr(text, '=');
	char user[TEXT_MAX];
	int64_t value;

	limit->uid = APH_ID_ANY;
	if (number) {
		size_t len = (size_t)(number - text);

		if (len >= sizeof(user))
			return hold_complain(-EINVAL, "'%s' is no limit: N or USER=N", text);
		memcpy(user, text, len);
		user[len] = '\0';
		if (read_user(&limit->uid, user) < 0)
			return -EINVAL;
		number++;
	} else {
		number = text;
	}
	value = read_number(number, INT32_MAX);
	if (value < 0)
		return hold_complain(-EINVAL, "'%s' is no limit: N or USER=N", text);
	limit->n_fds = (uint32_t)value;
	return 0;
}

static bool is_member(const struct aph_credentials *who, int64_t gid)
{
	if ((int64_t)who->egid == gid)
		return true;
	for (size_t i = 0; i < who->n_groups; i++) {
		if ((int64_t)who->groups[i] == gid)
			return true;
	}
	return false;
}

bool hold_rule_fits(const struct hold_rule *rule, const struct aph_credentials *who, unsigned can,
		    uid_t owner, const char *name)
{
	int64_t whose = rule->owner == HOLD_OWNER_SELF ? (int64_t)who->euid : rule->owner;

	return (rule->can & can) == can &&
	       (rule->uid == APH_ID_ANY || rule->uid == (int64_t)who->euid) &&
	       (rule->gid == APH_ID_ANY || is_member(who, rule->gid)) &&
	       (whose == APH_ID_ANY || whose == (int64_t)owner) &&
	       strncmp(name, rule->prefix, strlen(rule->prefix)) == 0;
}

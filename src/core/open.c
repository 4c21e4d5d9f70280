/* SPDX-License-Identifier: MIT */
/*
 * Opening services and channels: names and options are checked here, and the address says which
 * transport it is for. What carries other schemes than that of this host lies in other libraries:
 * loaded when first asked for, so that who calls nobody far away pays nothing.
 */
#include "base/error.h"
#include "core/transport.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#define ALLOW_FLAGS (APH_ALLOW_ANY | APH_ALLOW_NONE)
#define SERVICE_FLAGS                                                                             \
	(ALLOW_FLAGS | APH_SERVICE_EXCLUSIVE | APH_SERVICE_EVENTS | APH_SERVICE_RECEIPTS |        \
	 APH_SERVICE_RECEIPTS_NOW | APH_SERVICE_TERMINATE | APH_SERVICE_TAKE | APH_SERVICE_GIVE | \
	 APH_ALLOW_ANONYMOUS)

/* -- schemes ----------------------------------------------------------------------------------- */

/* There when the program is linked with libantiphon-rx itself. */
#pragma weak aph_rx_scheme

static const struct aph_scheme *load_rx(void)
{
	static _Atomic(const struct aph_scheme *) loaded;
	const struct aph_scheme *scheme = loaded;
	static void *library; /* never closed: what it made may live as long as the process */
	const struct aph_scheme *linked = &aph_rx_scheme;

	if (linked)
		return linked;
	if (scheme)
		return scheme;
	library = dlopen("libantiphon-rx.so." APH_ABI, RTLD_NOW | RTLD_LOCAL);
	if (!library)
		return NULL;
	scheme = dlsym(library, "aph_rx_scheme");
	loaded = scheme;
	return scheme;
}

int aph_scheme_find(const struct aph_scheme **out, const char *address)
{
	*out = NULL;
	if (!address || strncmp(address, "rx:", 3) != 0)
		return 0;
	*out = load_rx();
	if (!*out)
		return aph_err(-EPROTONOSUPPORT, "'%s' needs a library that cannot be loaded: %s",
			       address, dlerror());
	return 0;
}

/* -- names ------------------------------------------------------------------------------------- */

static int check_name(const struct aph_name *name)
{
	if (!aph_name_is_valid(name->name, strnlen(name->name, sizeof(name->name))))
		return aph_err(-EINVAL,
			       "that is not a name: use 1 to %d letters, digits, '_' and '.'",
			       APH_NAME_MAX);
	return 0;
}

/* -- channels ---------------------------------------------------------------------------------- */

static int check_channel_options(struct aph_channel_options *filled,
				 const struct aph_channel_options *options)
{
	*filled = (struct aph_channel_options){ .size = sizeof(*filled) };
	if (options && options->size != sizeof(*options))
		return aph_err(-EINVAL,
			       "channel options of an unknown size: set size to sizeof *options");
	if (options)
		*filled = *options;
	if (filled->flags & ~(ALLOW_FLAGS | APH_CHANNEL_WAIT | APH_CHANNEL_ASYNC))
		return aph_err(-EINVAL, "unknown channel flags 0x%x", filled->flags);
	if (!(filled->flags & ALLOW_FLAGS))
		filled->flags |= APH_ALLOW_ANY;
	if (filled->depth > 512 || (filled->depth && filled->depth < 32) ||
	    (filled->depth & (filled->depth - 1)) || filled->calls_max > 4096 ||
	    filled->arena > 16u << 20)
		return aph_err(-EINVAL,
			       "channel options out of range: depth is a power of two from 32 to "
			       "512, calls_max at most 4096, arena at most 16 MiB");
	if ((filled->flags & APH_CHANNEL_WAIT) && (filled->flags & APH_CHANNEL_ASYNC))
		return aph_err(-EINVAL,
			       "APH_CHANNEL_WAIT blocks: it does not go with APH_CHANNEL_ASYNC");
	if (!filled->deadline_ns)
		filled->deadline_ns = aph_deadline_ms(10000);
	return 0;
}

int aph_channel_open_name(struct aph_channel **out, struct aph_endpoint *ep,
			  const struct aph_name *name, const struct aph_channel_options *options)
{
	struct aph_channel_options filled;
	int r = check_channel_options(&filled, options);

	if (r == 0)
		r = check_name(name);
	if (r < 0)
		return r;
	aph_lock(ep);
	r = aph_endpoint_check(ep);
	if (r == 0)
		r = aph_local_channel_open(out, ep, name, &filled);
	aph_unlock(ep);
	return r;
}

int aph_channel_open(struct aph_channel **out, struct aph_endpoint *ep, const char *address,
		     const struct aph_channel_options *options)
{
	struct aph_channel_options filled;
	const struct aph_scheme *scheme;
	struct aph_place place;
	struct aph_name name;
	int r = aph_scheme_find(&scheme, address);

	if (r == 0 && !scheme) {
		r = aph_name_parse(&name, address);
		return r < 0 ? r : aph_channel_open_name(out, ep, &name, options);
	}
	if (r == 0)
		r = check_channel_options(&filled, options);
	if (r == 0)
		r = scheme->resolve(&place, address, false);
	if (r < 0)
		return r;
	aph_lock(ep);
	r = aph_endpoint_check(ep);
	if (r == 0)
		r = scheme->channel_open(out, ep, &place, address, &filled);
	aph_unlock(ep);
	return r;
}

/* -- services ---------------------------------------------------------------------------------- */

static int check_service_options(struct aph_service_options *filled,
				 const struct aph_service_options *options)
{
	*filled = (struct aph_service_options){ .size = sizeof(*filled) };
	if (options && options->size != sizeof(*options))
		return aph_err(-EINVAL,
			       "service options of an unknown size: set size to sizeof *options");
	if (options)
		*filled = *options;
	if (filled->flags & ~SERVICE_FLAGS)
		return aph_err(-EINVAL, "unknown service flags 0x%x", filled->flags);
	if (filled->flags & APH_SERVICE_RECEIPTS_NOW)
		filled->flags |= APH_SERVICE_RECEIPTS;
	if (filled->calls_max > 4096 || filled->arena_max > 16u << 20)
		return aph_err(-EINVAL,
			       "service options out of range: calls_max is at most 4096, arena_max "
			       "at most 16 MiB");
	if (!filled->channels_max)
		filled->channels_max = 65536;
	return 0;
}

int aph_service_open_name(struct aph_service **out, struct aph_endpoint *ep,
			  const struct aph_name *name, const struct aph_service_options *options)
{
	struct aph_service_options filled;
	struct aph_service *service;
	int r = check_service_options(&filled, options);

	if (r == 0)
		r = check_name(name);
	if (r < 0)
		return r;
	if (!(filled.flags & ALLOW_FLAGS))
		filled.flags |= APH_ALLOW_USER;
	aph_lock(ep);
	r = aph_endpoint_check(ep);
	if (r == 0)
		r = aph_local_service_open(&service, ep, name, &filled);
	aph_unlock(ep);
	if (r == 0 && out)
		*out = service;
	return r;
}

int aph_service_open(struct aph_service **out, struct aph_endpoint *ep, const char *address,
		     const struct aph_service_options *options)
{
	struct aph_service_options filled;
	const struct aph_scheme *scheme;
	struct aph_service *service;
	struct aph_place place;
	struct aph_name name;
	int r = aph_scheme_find(&scheme, address);

	if (r == 0 && !scheme) {
		r = aph_name_parse(&name, address);
		return r < 0 ? r : aph_service_open_name(out, ep, &name, options);
	}
	if (r == 0)
		r = check_service_options(&filled, options);
	if (r == 0)
		r = scheme->resolve(&place, address, true);
	if (r < 0)
		return r;
	aph_lock(ep);
	r = aph_endpoint_check(ep);
	if (r == 0)
		r = scheme->service_open(&service, ep, &place, address, &filled);
	if (r == 0)
		service->shown = aph_local_show(service);
	aph_unlock(ep);
	if (r == 0 && out)
		*out = service;
	return r;
}

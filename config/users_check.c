/* What of the users file hangs on relayd.yaml. */
#include "base/base.h"
#include "config/config.h"
#include "config/nearest.h"
#include "config/users.h"

static void complain(const struct config *config, const struct user_entry *entry, struct config_errors *errors)
{
	const char *name = entry->options->relayhost, *option = strstr(entry->options->text, "relayhost=");
	struct config_place place = {config->users_file, entry->line,
				     entry->options_column + (uint32_t)(option ? option - entry->options->text : 0)};
	struct nearest nearest;

	nearest_init(&nearest, slice_of_str(name));
	for (size_t i = 0; i < config->relayhost_count; i++)
		nearest_offer(&nearest, config->relayhosts[i].name);
	if (nearest.best)
		config_errors_add(errors, &place, "relayhost= '%.64s' is no relayhost, did you mean '%.64s'?", name,
				  nearest.best);
	else
		config_errors_add(errors, &place, "relayhost= '%.64s' is no relayhost of this configuration", name);
}

int users_check(const struct users *users, const struct config *config, struct config_errors *errors)
{
	size_t mistakes = errors->error_count;

	for (size_t i = 0; i < users_count(users); i++) {
		struct user_entry entry = users_entry(users, i);
		if (entry.options->relayhost && !config_find_relayhost(config, slice_of_str(entry.options->relayhost)))
			complain(config, &entry, errors);
	}
	return errors->error_count > mistakes ? ERR_CONFIG : 0;
}

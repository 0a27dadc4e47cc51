#include "config/config.h"

#include "base/base.h"
#include "config/environ.h"
#include "config/hostname.h"
#include "config/keys.h"
#include "config/memory.h"
#include "config/read.h"
#include "config/yaml.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* `config` is public; how many hold it is not. */
struct counted {
	struct config config;
	unsigned refs;
};

static struct config *config_new(void)
{
	struct counted *counted = xcalloc(1, sizeof(*counted));
	struct config *config = &counted->config;

	counted->refs = 1;
	config->memory = config_memory_new();
	config->origins = config_memory_alloc(config->memory, config_root_table.count * sizeof(struct config_origin));
	return config;
}

struct config *config_ref(struct config *config)
{
	CONTAINER_OF(config, struct counted, config)->refs++;
	return config;
}

void config_free(struct config **config)
{
	struct counted *counted;

	if (!*config)
		return;
	counted = CONTAINER_OF(*config, struct counted, config);
	*config = NULL;
	if (--counted->refs > 0)
		return;
	config_memory_free(&counted->config.memory);
	free(counted);
}

/* ---- The file. */

/* One octet more than is allowed may come, so that yaml_read() refuses it. */
static int read_all(int fd, struct buf *text)
{
	ssize_t n = 1;

	while (n > 0 && buf_room(text) > 0) {
		size_t want = MIN(buf_room(text), 65536);
		char *at = buf_reserve(text, want);
		do {
			n = read(fd, at, want);
		} while (n < 0 && errno == EINTR);
		if (n > 0)
			buf_commit(text, (size_t)n);
	}
	return n < 0 ? -1 : 0;
}

/* False: it cannot be read, told. A missing file is no mistake unless it was named; config->file is NULL then. */
static bool read_file(struct config_reader *reader, const char *path, bool is_named, struct buf *text)
{
	struct config_place place = {path, 0, 0};
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0 && errno == ENOENT && !is_named)
		return true;
	if (fd < 0 || fstat(fd, &st) < 0) {
		config_errors_add(reader->errors, &place, "cannot open: %s", strerror(errno));
		if (fd >= 0)
			close(fd);
		return false;
	}
	reader->config->file = config_memory_copy(reader->config->memory, slice_of_str(path));
	if (!S_ISREG(st.st_mode))
		config_errors_add(reader->errors, &place, "is not a regular file");
	else if (read_all(fd, text) < 0)
		config_errors_add(reader->errors, &place, "cannot read: %s", strerror(errno));
	close(fd);
	return reader->errors->error_count == 0;
}

/* Absolute, not resolved: Kubernetes changes what its links lead to. */
static void set_folders(struct config_reader *reader)
{
	struct config_memory *memory = reader->config->memory;
	char *here = getcwd(NULL, 0);
	const char *file = reader->config->file;
	ptrdiff_t slash = file ? slice_find_last(slice_of_str(file), '/') : -1;
	struct buf folder;

	reader->working_folder = config_memory_copy(memory, slice_of_str(here ? here : "/"));
	free(here);
	buf_init(&folder, 16384);
	if (!file || file[0] != '/')
		buf_append_str(&folder, reader->working_folder);
	if (slash > 0)
		buf_printf(&folder, "%s%.*s", file[0] == '/' ? "" : "/", (int)slash, file);
	reader->file_folder = config_memory_copy(memory, buf_slice(&folder));
	buf_fini(&folder);
}

/* ---- All together. */

static void read_text(struct config_reader *reader, struct slice text)
{
	struct config_memory *memory = config_memory_new();
	struct yaml_node *root = yaml_read(text, reader->config->file, memory, reader->errors);

	if (root)
		config_read_tree(reader, root);
	config_memory_free(&memory);
}

static void set_hostname(struct config_reader *reader)
{
	char found[CONFIG_HOSTNAME_MAX];

	if (reader->config->hostname)
		return;
	if (reader->source->default_hostname) {
		reader->config->hostname =
		    config_memory_copy(reader->config->memory, slice_of_str(reader->source->default_hostname));
		return;
	}
	config_hostname_find(found);
	reader->config->hostname = config_memory_copy(reader->config->memory, slice_of_str(found));
}

/* `text`: of config->file, when there is one. */
static int load(struct config_reader *reader, struct slice text, struct config **out)
{
	struct config *config = reader->config;
	struct config_target root = config_root_target(config);
	struct config_texts *files = &config->files;

	set_folders(reader);
	config_put_defaults(reader, &root);
	if (config->file) {
		files->items = config_memory_grow(config->memory, files->items, 0, sizeof(*files->items));
		files->items[files->count++] = config->file;
		read_text(reader, text);
	}
	config_read_environment(reader, reader->source->environ);
	set_hostname(reader);
	config_complete(reader);
	config_check(reader);
	config_errors_sort(reader->errors);
	if (reader->errors->error_count > 0) {
		config_free(&reader->config);
		return ERR_CONFIG;
	}
	*out = config;
	return 0;
}

int config_load(const struct config_source *source, struct config **out, struct config_errors *errors)
{
	struct config_reader reader = {.config = config_new(), .errors = errors, .source = source, .user_count = -1};
	const char *variable = config_environment_get(source->environ, "RELAYD_CONFIG");
	const char *path = source->file ? source->file : variable ? variable : CONFIG_DEFAULT_FILE;
	bool is_named = source->file ? source->file_is_named : variable != NULL;
	struct buf text;
	int rc;

	*out = NULL;
	config_errors_init(errors);
	buf_init(&text, YAML_MAX_BYTES + 1);
	if (read_file(&reader, path, is_named, &text)) {
		rc = load(&reader, buf_slice(&text), out);
	} else {
		config_free(&reader.config);
		rc = ERR_CONFIG;
	}
	buf_fini(&text);
	return rc;
}

int config_load_text(const struct config_source *source, struct slice text, struct config **out,
		     struct config_errors *errors)
{
	struct config_reader reader = {.config = config_new(), .errors = errors, .source = source, .user_count = -1};
	const char *name = source->file ? source->file : "relayd.yaml";

	*out = NULL;
	config_errors_init(errors);
	reader.config->file = config_memory_copy(reader.config->memory, slice_of_str(name));
	return load(&reader, text, out);
}

/* ---- Questions. */

const struct config_relayhost *config_find_relayhost(const struct config *config, struct slice name)
{
	for (size_t i = 0; i < config->relayhost_count; i++)
		if (slice_eq(slice_of_str(config->relayhosts[i].name), name))
			return &config->relayhosts[i];
	return NULL;
}

const char **config_endpoint_texts(const struct config_endpoints *endpoints)
{
	struct buf all;
	const char **texts;
	char *at;

	buf_init(&all, SIZE_MAX);
	for (size_t i = 0; i < endpoints->count; i++) {
		config_endpoint_format(&endpoints->items[i], &all);
		buf_append_byte(&all, '\0');
	}
	/* The pointers, and the texts behind them. */
	texts = xmalloc(endpoints->count * sizeof(*texts) + buf_len(&all));
	at = (char *)(texts + endpoints->count);
	if (buf_len(&all))
		memcpy(at, buf_slice(&all).ptr, buf_len(&all));
	for (size_t i = 0; i < endpoints->count; i++) {
		texts[i] = at;
		at += strlen(at) + 1;
	}
	buf_fini(&all);
	return texts;
}

bool config_uses_mx(const struct config *config)
{
	bool has_default = false;

	for (size_t i = 0; i < config->route_count; i++) {
		const struct config_route *route = &config->routes[i];
		for (size_t j = 0; j < route->via.count; j++)
			if (route->via.items[j].kind == CONFIG_VIA_MX)
				return true;
		if (route->from.count == 0 && route->to.count == 0 && route->user.count == 0)
			return false; /* nothing gets past it */
	}
	for (size_t i = 0; i < config->relayhost_count; i++)
		has_default = has_default || config->relayhosts[i].is_default;
	return !has_default;
}

#include "config/hostname.h"

#include "base/base.h"
#include "config/values.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define HOSTS_MAX_BYTES (256 * 1024)

/* The next word of a line, empty at its end. */
static struct slice next_word(struct slice *line)
{
	struct slice word;
	size_t len = 0;

	*line = slice_trim(*line);
	while (len < line->len && line->ptr[len] != ' ' && line->ptr[len] != '\t')
		len++;
	word = slice_to(*line, len);
	*line = slice_from(*line, len);
	return word;
}

/* The first full name on a line of /etc/hosts that names `node`, else empty. */
static struct slice full_name_on_line(struct slice line, struct slice node)
{
	ptrdiff_t comment = slice_find(line, '#');
	struct slice full = {0}, word;
	bool names_node = false;

	if (comment >= 0)
		line = slice_to(line, (size_t)comment);
	next_word(&line); /* the address */
	while ((word = next_word(&line)).len > 0) {
		names_node = names_node || slice_case_eq(word, node);
		if (full.len == 0 && config_is_fqdn(word))
			full = word;
	}
	return names_node ? full : (struct slice){0};
}

void config_hostname_choose(struct slice node, struct slice hosts, char out[CONFIG_HOSTNAME_MAX])
{
	if (node.len > 1 && node.ptr[node.len - 1] == '.')
		node.len--;
	if (!config_is_host_name(node))
		node = SLICE("localhost");
	slice_to_cstr(node, out, CONFIG_HOSTNAME_MAX);
	if (slice_find(node, '.') >= 0)
		return;
	while (hosts.len > 0) {
		ptrdiff_t end = slice_find(hosts, '\n');
		struct slice line = end < 0 ? hosts : slice_to(hosts, (size_t)end);
		struct slice full = full_name_on_line(line, node);
		if (full.len > 0) {
			slice_to_cstr(full, out, CONFIG_HOSTNAME_MAX);
			return;
		}
		hosts = slice_from(hosts, line.len + 1);
	}
}

void config_hostname_find(char out[CONFIG_HOSTNAME_MAX])
{
	char node[CONFIG_HOSTNAME_MAX] = "";
	char *hosts = xmalloc(HOSTS_MAX_BYTES);
	int fd = open("/etc/hosts", O_RDONLY | O_CLOEXEC);
	size_t len = 0;
	ssize_t n = 1;

	if (gethostname(node, sizeof(node) - 1) < 0)
		node[0] = '\0';
	while (fd >= 0 && n > 0 && len < HOSTS_MAX_BYTES) {
		n = read(fd, hosts + len, HOSTS_MAX_BYTES - len);
		len += n > 0 ? (size_t)n : 0;
	}
	if (fd >= 0)
		close(fd);
	config_hostname_choose(slice_of_str(node), slice_of(hosts, len), out);
	free(hosts);
}

/*
 * dns/hosts_file.h - what /etc/hosts says about a name
 *
 * Own code, since c-ares gives one family only and libc's lookup may ask the network. Reads the file each time (it is
 * small, and names that may stand in it are looked up seldom); at most 1 MiB of it.
 */
#ifndef DNS_HOSTS_FILE_H
#define DNS_HOSTS_FILE_H

#include "dns/address.h"

/* All addresses of `name`, in the order of the file, at most `max`. A file that cannot be read has none. */
size_t hosts_file_find(const char *path, const char *name, struct dns_address *out, size_t max);

#endif

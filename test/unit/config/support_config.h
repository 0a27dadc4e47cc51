/* Loading a text and comparing what was found wrong with it. */
#ifndef TEST_CONFIG_SUPPORT_H
#define TEST_CONFIG_SUPPORT_H

#include "config/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* after those */
#include <cmocka.h>

struct load_options {
	char *const *environ;
	bool check_files;
	const char *default_hostname; /* NULL: relay.example.com */
};

/* Loads text named "f". NULL when it was refused; the mistakes are in *errors. */
struct config *load_with(const char *text, const struct load_options *options, struct config_errors *errors);
/* Loads, and fails the test when that is refused. */
struct config *load_good(const char *text);
/* The text, then the mistakes that must be found, each as a whole line, NULL at the end. */
void assert_mistakes(const char *text, const struct load_options *options, ...);
/* One mistake. */
void assert_mistake(const char *text, const char *mistake);
/* A file in a fresh folder under $TMPDIR. The caller frees the path with drop_file(), which removes both. */
char *make_file(const char *name, const char *content);
void drop_file(char *path);
/* All of a file of the repository; the caller frees it. */
char *read_whole(const char *path, size_t *len);

#endif

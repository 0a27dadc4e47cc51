/*
 * relayd/sandbox_internal.h - what the three files of the sandbox know of each other and nobody else does
 */
#ifndef RELAYD_SANDBOX_INTERNAL_H
#define RELAYD_SANDBOX_INTERNAL_H

#include "relayd/sandbox.h"

/* Landlock: 0 and *abi, or a negative errno: -ENOSYS, -EOPNOTSUPP: the kernel has none. no_new_privs is set. */
int sandbox_restrict_files(const struct sandbox_paths *paths, int *abi);
/* seccomp: 0 and the number of calls in the list, or a negative errno. */
int sandbox_restrict_calls(enum sandbox_role role, unsigned *count);

#endif

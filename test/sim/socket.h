/*
 * Sockets and epoll in memory, in place of the kernel's: no system call, so a simulated day costs what the relay
 * costs, and the order of events is ours.
 *
 * The linker puts them under all that is linked into a simulation (--wrap, see the Makefile); descriptors below
 * SIM_FD_FIRST are the kernel's and go there. What is here behaves as a TCP connection does on Linux: level-triggered,
 * a bounded buffer each way, and what is written to somebody who is gone goes out well and is answered by a reset.
 */
#ifndef TEST_SIM_SOCKET_H
#define TEST_SIM_SOCKET_H

#include <stdbool.h>

enum { SIM_FD_FIRST = 1 << 20 };

/* Two connected ends. `is_silent`: the first has sent its SYN, and nobody will ever answer. */
void sim_socket_pair(int fds[2], bool is_silent);
/* The other end has been closed, or will not send any more. */
bool sim_socket_is_left(int fd);
/* Open ends and epolls. */
unsigned sim_socket_count(void);

#endif

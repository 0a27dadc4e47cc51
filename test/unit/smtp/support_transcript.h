/*
 * Runs a script against the server machine: whole, byte by byte, and cut in two at every position. Each run must give
 * the same events and the same output.
 *
 *     ! trusted                  an option of the server; "! limit errors 3" a limit. Before anything else
 *     C: EHLO app                what the client says, with CRLF; "C| " without. \r \n \t \0 \\ \xHH \R5000:x
 *     S: 250-relay.test          an output line; ending in "..." it stands for all that begin so
 *     = MAIL a@example.com       an event. Content stands in COMPLETE: "= COMPLETE |hello\r\n|"
 *     > rcpt 550 5.1.1 No        the answer to the next such event (auth, mail, rcpt, data, stored), instead of a good
 * one; for auth: bad, temporary, shut_out; "> refuse CODE ..." at the next content > hold rcpt                the next
 * such event is not answered until "> answer" > eof, > shutdown, > close 421 4.7.0 text, > wait MS, > tls (the
 * handshake is done), > stuck (output is not taken from now on), > flow (it is again)
 *
 * What is expected after a client's line or an action stands below it; events and output are compared each for itself.
 */
#ifndef SUPPORT_TRANSCRIPT_H
#define SUPPORT_TRANSCRIPT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "smtp/server.h"

void transcript(const char *script);
/* The same lines before it: EHLO of a trusted client, or TLS and AUTH. */
void transcript_trusted(const char *script);

#endif

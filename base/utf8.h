/*
 * base/utf8.h - characters of UTF-8 in texts that strangers wrote
 *
 * Pure: octets in, code points out; nothing here knows what a text is for.
 */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

/* Octets of the well-formed character at the front, its code point in *code; 0: there is none, *code is undefined
 * (RFC 3629 section 4: no surrogates, nothing longer than it needs to be, nothing above U+10FFFF). */
size_t utf8_character(struct slice text, uint32_t *code);
/* False: controls (C0, DEL, C1), separators of lines, and what is invisible, turns text round or is no character: none of
 * these may reach a terminal, a log or somebody's reply. */
bool utf8_is_visible(uint32_t code);
/* Octets of the character at the front, if it is well-formed and visible; else 0. */
size_t utf8_visible(struct slice text);

#endif

/*
 * base/err.h - what can go wrong, as a code and, where a person must read it, in words
 *
 * Functions return 0 or a negative enum err_code; a `struct err *` parameter may be NULL.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

enum err_code {
	ERR_NONE = 0,
	ERR_SYNTAX = -1,   /* the input breaks its grammar */
	ERR_LIMIT = -2,	   /* a ceiling was reached */
	ERR_NO_SPACE = -3, /* ENOSPC, EDQUOT, or the reserve would be touched */
	ERR_IO = -4,	   /* any other failed system call on a file */
	ERR_CORRUPT = -5,  /* stored bytes are not what was written */
	ERR_NOT_FOUND = -6,
	ERR_EXISTS = -7,
	ERR_PERMISSION = -8,
	ERR_UNSUPPORTED = -9, /* known, but not built or not possible here */
	ERR_CLOSED = -10,     /* the peer or the object is gone */
	ERR_TEMPORARY = -11,  /* try again later */
	ERR_LOCKED = -12,     /* another process holds it */
	ERR_VERSION = -13,    /* written by a newer version */
	ERR_CONFIG = -14,
	ERR_CRYPTO = -15, /* a TLS or signature operation failed */
	ERR_SYSTEM = -16, /* any other failed system call */
};

struct err {
	enum err_code code;
	char text[512]; /* one line, no newline, NUL-terminated */
};

const char *err_code_name(enum err_code code);

/* Fills `err` (which may be NULL) and returns `code`, so that it can stand in a return statement. */
int err_set(struct err *err, enum err_code code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The same, with ": " and the words of errno appended; the code is derived from errno. */
int err_set_errno(struct err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* ENOSPC, EDQUOT -> ERR_NO_SPACE; EACCES, EPERM, EROFS -> ERR_PERMISSION; ENOENT -> ERR_NOT_FOUND; ... */
enum err_code err_code_of_errno(int errnum);

#endif

#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *err_code_name(enum err_code code)
{
	switch (code) {
	case ERR_NONE: return "none";
	case ERR_SYNTAX: return "syntax";
	case ERR_LIMIT: return "limit";
	case ERR_NO_SPACE: return "no space";
	case ERR_IO: return "I/O";
	case ERR_CORRUPT: return "corrupt";
	case ERR_NOT_FOUND: return "not found";
	case ERR_EXISTS: return "exists";
	case ERR_PERMISSION: return "permission";
	case ERR_UNSUPPORTED: return "unsupported";
	case ERR_CLOSED: return "closed";
	case ERR_TEMPORARY: return "temporary";
	case ERR_LOCKED: return "locked";
	case ERR_VERSION: return "version";
	case ERR_CONFIG: return "configuration";
	case ERR_CRYPTO: return "crypto";
	case ERR_SYSTEM: return "system";
	}
	return "unknown";
}

enum err_code err_code_of_errno(int errnum)
{
	switch (errnum) {
	case 0: return ERR_NONE;
	case ENOSPC:
	case EDQUOT: return ERR_NO_SPACE;
	case EACCES:
	case EPERM:
	case EROFS: return ERR_PERMISSION;
	case ENOENT: return ERR_NOT_FOUND;
	case EEXIST:
	case EADDRINUSE: return ERR_EXISTS;
	case EIO: return ERR_IO;
	default: return ERR_SYSTEM;
	}
}

int err_set(struct err *err, enum err_code code, const char *format, ...)
{
	va_list args;

	if (!err)
		return code;
	err->code = code;
	va_start(args, format);
	vsnprintf(err->text, sizeof(err->text), format, args);
	va_end(args);
	return code;
}

int err_set_errno(struct err *err, const char *format, ...)
{
	int errnum = errno;
	enum err_code code = err_code_of_errno(errnum);
	va_list args;
	size_t used;

	if (!err)
		return code;
	err->code = code;
	va_start(args, format);
	vsnprintf(err->text, sizeof(err->text), format, args);
	va_end(args);
	used = strlen(err->text);
	snprintf(err->text + used, sizeof(err->text) - used, ": %s", strerror(errnum));
	return code;
}

#include "tls/tls.h"

const char *tls_status_name(enum tls_status status)
{
	switch (status) {
	case TLS_OK: return "ok";
	case TLS_AGAIN: return "again";
	case TLS_CLOSED: return "closed";
	case TLS_FAILED: return "failed";
	}
	return "unknown";
}

const char *tls_version_name(enum tls_version version)
{
	switch (version) {
	case TLS_VERSION_1_2: return "1.2";
	case TLS_VERSION_1_3: return "1.3";
	case TLS_VERSION_LEGACY: return "1.0";
	}
	return "unknown";
}

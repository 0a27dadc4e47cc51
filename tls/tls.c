#include "tls/tls.h"

const char *tls_version_name(enum tls_version version)
{
	switch (version) {
	case TLS_VERSION_1_2: return "1.2";
	case TLS_VERSION_1_3: return "1.3";
	case TLS_VERSION_LEGACY: return "1.0";
	}
	return "unknown";
}

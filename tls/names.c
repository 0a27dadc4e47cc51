#include "tls/names.h"

#include "base/base.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <time.h>

size_t names_parse_address(const char *text, unsigned char out[16])
{
	if (inet_pton(AF_INET, text, out) == 1)
		return 4;
	return inet_pton(AF_INET6, text, out) == 1 ? 16 : 0;
}

bool names_certificate_is_for(gnutls_x509_crt_t certificate, const char *name)
{
	unsigned char address[16];
	size_t len = names_parse_address(name, address);

	if (len)
		return gnutls_x509_crt_check_ip(certificate, address, (unsigned)len, 0);
	return gnutls_x509_crt_check_hostname2(certificate, name, 0);
}

/* A name comes from a stranger and goes into logs and replies. */
static void make_printable(char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)text[i] < 0x20 || (unsigned char)text[i] >= 0x7f)
			text[i] = '?';
}

void names_common_name(gnutls_x509_crt_t certificate, char *out, size_t size)
{
	size_t len = size;

	if (gnutls_x509_crt_get_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, 0, 0, out, &len) < 0)
		len = 0;
	if (len >= size)
		len = size - 1;
	make_printable(out, len);
	out[len] = '\0';
}

static void append_name(struct buf *out, const char *name, size_t len)
{
	char text[INET6_ADDRSTRLEN + 256];

	slice_to_cstr(slice_of(name, len), text, sizeof(text));
	make_printable(text, strlen(text));
	buf_printf(out, "%s%s", buf_len(out) ? ", " : "", text);
}

static void append_address(struct buf *out, const char *address, size_t len)
{
	char text[INET6_ADDRSTRLEN];

	if ((len == 4 || len == 16) && inet_ntop(len == 4 ? AF_INET : AF_INET6, address, text, sizeof(text)))
		append_name(out, text, strlen(text));
}

void names_format(gnutls_x509_crt_t certificate, unsigned most, struct buf *out)
{
	char name[256];
	unsigned found = 0;

	for (unsigned i = 0; found < most; i++) {
		size_t len = sizeof(name);
		int type = gnutls_x509_crt_get_subject_alt_name(certificate, i, name, &len, NULL);

		if (type == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
			break;
		if (type == GNUTLS_SAN_IPADDRESS)
			append_address(out, name, len);
		else if (type == GNUTLS_SAN_DNSNAME || type == GNUTLS_SAN_RFC822NAME)
			append_name(out, name, len);
		else if (type < 0 && type != GNUTLS_E_SHORT_MEMORY_BUFFER)
			break;
		else
			continue;
		found++;
	}
	if (!found) {
		names_common_name(certificate, name, sizeof(name));
		buf_append_str(out, name);
	}
}

bool names_is_selfsigned(gnutls_x509_crt_t certificate)
{
	return gnutls_x509_crt_check_issuer(certificate, certificate);
}

void names_format_date(time_t at, char out[16])
{
	struct tm tm;

	if (!gmtime_r(&at, &tm) || !strftime(out, 16, "%Y-%m-%d", &tm))
		snprintf(out, 16, "?");
}

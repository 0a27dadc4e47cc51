/* PROMISE table C: what comes after 354. Smuggling in all its spellings: one message or a refusal, and one reply. */
#include "support_transcript.h"

#include "base/buf.h"

#include <stdio.h>

#define BEGIN                                                                                                          \
	"C: MAIL FROM:<a@example.com>\nC: RCPT TO:<b@example.org>\nC: DATA\n"                                          \
	"= MAIL a@example.com\nS: 250 2.1.0 Ok\n= RCPT b@example.org\nS: 250 2.1.5 Ok\n= DATA\nS: 354 ...\n"
#define STORED "S: 250 2.0.0 Ok\n"
#define BARE "= ABORTED message_refused\n= REJECTED bare_newline 550\nS: 550 5.6.11 ...\n"
#define NUL "= ABORTED message_refused\n= REJECTED nul 550\nS: 550 5.6.0 ...\n"
#define LONG "= ABORTED message_refused\n= REJECTED long_line 550\nS: 550 5.6.0 ...\n"
#define TOO_BIG "= ABORTED message_refused\n= REJECTED too_big 552\nS: 552 5.3.4 ...\n"
#define ALIVE "C: NOOP\nS: 250 2.0.0 Ok\n"
#define SECOND "MAIL FROM:<evil@example.com>\\r\\nRCPT TO:<x@example.org>\\r\\nDATA\\r\\nevil\\r\\n.\\r\\n"

/* Behind each stands a second transaction that must stay content; then comes the true end. */
static void C1_C2_C3_C4_smuggling_is_refused_as_a_whole(void **state)
{
	static const char *const ends[] = {
	    "\\n.\\n",		"\\n.\\r\\n",	    "\\r\\n.\\n",
	    "\\r.\\r",		"\\r.\\r\\n",	    "\\r\\n.\\r",
	    "\\r.\\n",		"\\n.\\r",	    "\\r\\r\\n.\\r\\r\\n",
	    "\\r\\n.\\r\\r\\n", "\\n\\r.\\n\\r",    "\\r\\n.\\r.\\r\\n",
	    "\\n\\n.\\r\\n",	"\\r\\n\\r.\\r\\n",
	};
	char script[2000];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
		/* What opens the way into the content: one that begins with CR LF CR LF . would be an end. */
		snprintf(script, sizeof(script),
			 BEGIN "C| a: b\\r\\n\\r\\nfirst%s"
			       "MAIL FROM:<evil@example.com>\\r\\nDATA\\r\\nevil\\r\\n.\\r\\n\n" BARE ALIVE,
			 ends[i]);
		transcript_trusted(script);
	}
}

static void C4_C5_other_octets_around_the_dot(void **state)
{
	static const char *const texts[] = {"\\r\\n\\x0c.\\r\\n",
					    "\\r\\n.\\x0b\\r\\n",
					    "\\r\\n .\\r\\n",
					    "\\r\\n. \\r\\n",
					    "\\r\\n.\\t\\r\\n",
					    "\\xc2\\x85.\\xc2\\x85",
					    "\\xe2\\x80\\xa8.\\xe2\\x80\\xa8"};
	char script[2000];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		snprintf(script, sizeof(script), BEGIN "C| first%s" SECOND "\n= COMPLETE%s |first...\n" STORED,
			 texts[i], i > 4 ? " 8bit" : "");
		/* The true end stands in SECOND; "evil" is the end of the one message. */
		transcript_trusted(script);
	}
	transcript_trusted(BEGIN "C| first\\r\\n\\0.\\r\\n" SECOND "\n" NUL ALIVE);
	transcript_trusted(BEGIN "C| first\\r\\n.\\0\\r\\n" SECOND "\n" NUL ALIVE);
	transcript_trusted(BEGIN "C| first\\r\\n\\0.\\0\\r\\n.\\r\\n\n" NUL ALIVE);
}

static void C5_unicode_line_ends_are_text(void **state)
{
	(void)state;
	transcript_trusted(BEGIN "C| a\\xe2\\x80\\xa8.\\xe2\\x80\\xa8b\\r\\n.\\r\\n\n"
				 "= COMPLETE 8bit |a\\xe2\\x80\\xa8.\\xe2\\x80\\xa8b\\r\\n|\n" STORED);
}

/* C15: NUL too. */
static void C6_bare_newlines_and_C15_nul(void **state)
{
	(void)state;
	transcript_trusted(BEGIN "C| a: b\\nc: d\\r\\n\\r\\nx\\r\\n.\\r\\n\n" BARE);
	transcript_trusted(BEGIN "C| a: b\\r\\n\\r\\nx\\ry\\r\\n.\\r\\n\n" BARE ALIVE);
	transcript_trusted(BEGIN "C| a: b\\r\\n\\r\\nx\\0y\\r\\n.\\r\\n\n" NUL ALIVE);
	/* The reason does not depend on which came first. */
	transcript_trusted(BEGIN "C| a\\nb\\0c\\r\\n.\\r\\n\n" NUL ALIVE);
}

static void C8_dots(void **state)
{
	(void)state;
	transcript_trusted(BEGIN "C| ..\\r\\n...\\r\\n..a\\r\\n.b\\r\\na.\\r\\n..\\r\\n.\\r\\n\n"
				 "= COMPLETE |.\\r\\n..\\r\\n.a\\r\\nb\\r\\na.\\r\\n.\\r\\n|\n" STORED);
	transcript_trusted(BEGIN "C| .\\r\\n\n= COMPLETE ||\n" STORED);
	transcript_trusted(BEGIN "C| \\r\\n.\\r\\n\n= COMPLETE |\\r\\n|\n" STORED);
	/* At the edges of our own buffer of 32 KiB. */
	transcript_trusted(BEGIN
			   "C| \\R32766:x\\r\\n..\\R32760:y\\r\\n..\\r\\n.\\r\\n\n= COMPLETE long |xxx...\n" STORED);
	transcript_trusted(BEGIN "C| \\R32767:x\\r\\n..\\r\\n.\\r\\n\n= COMPLETE long |xxx...\n" STORED);
	transcript_trusted(BEGIN "C| \\R32768:x\\r\\n..\\r\\n.\\r\\n\n= COMPLETE long |xxx...\n" STORED);
}

/* C10: content before the 354, in the same segment. */
static void C10_content_ahead_of_the_354(void **state)
{
	(void)state;
	transcript_trusted("C: MAIL FROM:<a@example.com>\nC: RCPT TO:<b@example.org>\nC: DATA\nC: x\nC: .\nC: QUIT\n"
			   "= MAIL a@example.com\nS: 250 2.1.0 Ok\n= RCPT b@example.org\nS: 250 2.1.5 Ok\n"
			   "= DATA\nS: 354 ...\n= COMPLETE |x\\r\\n|\n" STORED "S: 221 2.0.0 Bye\n= CLOSE quit\n");
}

static void C12_long_lines(void **state)
{
	(void)state;
	transcript_trusted(BEGIN "C| \\R998:x\\r\\n.\\r\\n\n= COMPLETE |xxx...\n" STORED);
	transcript_trusted(BEGIN "C| \\R999:x\\r\\n.\\r\\n\n= COMPLETE long |xxx...\n" STORED);
	transcript_trusted(BEGIN "C| \\R100000:.\\r\\n.\\r\\n\n= COMPLETE long |.....\n" STORED);
	transcript_trusted("! reject_long_lines\n" BEGIN
			   "C| \\R998:x\\r\\n.\\R998:.\\r\\n.\\r\\n\n= COMPLETE |xxx...\n" STORED);
	transcript_trusted("! reject_long_lines\n" BEGIN "C| \\R999:x\\r\\ny\\r\\n.\\r\\n\n" LONG ALIVE);
}

static void C13_C18_octets_stay(void **state)
{
	(void)state;
	transcript_trusted(
	    BEGIN "C| Subject: \\xc3\\xbc\\r\\nX:  a \\t\\r\\n\\tfold \\r\\n\\r\\nx  \\r\\n\\r\\n\\r\\n.\\r\\n\n"
		  "= COMPLETE 8bit |Subject: \\xc3\\xbc\\r\\nX:  a \\x09\\r\\n\\x09fold \\r\\n\\r\\nx  "
		  "\\r\\n\\r\\n\\r\\n|\n" STORED);
}

/* C23, F7: more than SIZE said, and more than there may be. */
static void C23_F7_too_big(void **state)
{
	(void)state;
	transcript_trusted(
	    "C: MAIL FROM:<a@example.com> SIZE=1\n= MAIL a@example.com size=1\nS: 250 2.1.0 Ok\n"
	    "C: RCPT TO:<b@example.org>\n= RCPT b@example.org\nS: 250 2.1.5 Ok\nC: DATA\n= DATA\nS: 354 ...\n"
	    "C: \\R100:x\nC: .\n= COMPLETE |xxx...\n" STORED);
	transcript("! trusted\n! limit message_bytes 100\nS: 220 ...\nC: HELO app\n= HELO\nS: 250 relay.test\n" BEGIN
		   "C| \\R98:x\\r\\n.\\r\\n\n= COMPLETE |xxx...\n" STORED BEGIN
		   "C| \\R99:x\\r\\n.\\r\\n\n" TOO_BIG BEGIN "C| \\R1000:x\\r\\n..\\r\\n.\\r\\n\n" TOO_BIG ALIVE);
}

static void normalize_mends_bare_newlines(void **state)
{
	(void)state;
	transcript_trusted("! normalize\n" BEGIN "C| a: b\\nc: d\\n\\nx\\r\\n.\\r\\n\n"
			   "= COMPLETE bare |a: b\\r\\nc: d\\r\\n\\r\\nx\\r\\n|\n" STORED);
	/* A CR alone never makes a line: a header value with one stays one. CRs before CRLF go. */
	transcript_trusted("! normalize\n" BEGIN "C| s: a\\rBcc: x\\r\\n\\r\\r\\nx\\r\\r\\r\\n.\\r\\n\n"
			   "= COMPLETE bare |s: a Bcc: x\\r\\n\\r\\nx\\r\\n|\n" STORED);
	/* The end is CRLF.CRLF alone; dots behind a bare LF: a doubled one is halved, a single one stays. */
	transcript_trusted("! normalize\n" BEGIN "C| a\\n.\\nb\\n..c\\n.\\r\\nd\\r\\n..e\\r\\n.\\r\\n\n"
			   "= COMPLETE bare |a\\r\\n.\\r\\nb\\r\\n.c\\r\\n.\\r\\nd\\r\\n.e\\r\\n|\n" STORED);
	transcript_trusted("! normalize\n" BEGIN "C| a\\r\\n.\\rb\\r\\n.\\r\\r\\n..\\n\\r\\n.\\r\\n\n"
			   "= COMPLETE bare |a\\r\\n b\\r\\n\\r\\n.\\r\\n\\r\\n|\n" STORED);
	transcript_trusted("! normalize\n" BEGIN "C| \\r\\r\\r\\r\\r\\n\\n\\n.\\r\\n\\r\\n.\\r\\n\n"
			   "= COMPLETE bare |\\r\\n\\r\\n\\r\\n.\\r\\n\\r\\n|\n" STORED);
	/* NUL is not taken here either. */
	transcript_trusted("! normalize\n" BEGIN "C| a\\n\\0\\r\\n.\\r\\n\n" NUL ALIVE);
	transcript_trusted("! normalize\n" BEGIN "C| a\\r\\nb\\r\\n.\\r\\n\n= COMPLETE |a\\r\\nb\\r\\n|\n" STORED);
}

/* What goes on must be free of bare newlines, whatever came in, and the end must be found at the same octet. */
static void every_short_content_of_cr_lf_and_dots(void **state)
{
	static const char alphabet[] = {'\r', '\n', '.', 'x'};
	enum { LEN = 7 };

	(void)state;
	for (unsigned word = 0; word < 1u << 2 * LEN; word++) {
		for (int normalize = 0; normalize < 2; normalize++) {
			char in[LEN + 5], out[64], *end;
			size_t len = 0, at = 0, taken;
			struct content content;
			struct slice piece;
			enum content_status status;

			for (int i = 0; i < LEN; i++)
				in[i] = alphabet[word >> 2 * i & 3];
			memcpy(in + LEN, "\r\n.\r\n", 5);
			content_init(&content, normalize ? CONTENT_BARE_NORMALIZE : CONTENT_BARE_REJECT);
			while ((status = content_next(&content, slice_of(in + at, sizeof(in) - at), &taken, &piece)) ==
			       CONTENT_PIECE) {
				memcpy(out + len, piece.ptr, piece.len);
				len += piece.len;
				at += taken;
			}
			at += taken;
			/* The first CRLF.CRLF, or .CRLF at the very start. */
			end = memcmp(in, ".\r\n", 3) == 0 ? in : (char *)memmem(in, sizeof(in), "\r\n.\r\n", 5) + 2;
			assert_int_equal(status, CONTENT_END);
			assert_int_equal(at, end - in + 3);
			for (size_t i = 0; i < len && normalize; i++) {
				assert_true(out[i] != '\r' || (i + 1 < len && out[i + 1] == '\n'));
				assert_true(out[i] != '\n' || (i > 0 && out[i - 1] == '\r'));
			}
			if (!normalize && !(content.flags & CONTENT_BARE_NEWLINE))
				assert_true(len == 0 || memcmp(out + len - 2, "\r\n", 2) == 0);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(C1_C2_C3_C4_smuggling_is_refused_as_a_whole),
	    cmocka_unit_test(C4_C5_other_octets_around_the_dot),
	    cmocka_unit_test(C5_unicode_line_ends_are_text),
	    cmocka_unit_test(C6_bare_newlines_and_C15_nul),
	    cmocka_unit_test(C8_dots),
	    cmocka_unit_test(C10_content_ahead_of_the_354),
	    cmocka_unit_test(C12_long_lines),
	    cmocka_unit_test(C13_C18_octets_stay),
	    cmocka_unit_test(C23_F7_too_big),
	    cmocka_unit_test(normalize_mends_bare_newlines),
	    cmocka_unit_test(every_short_content_of_cr_lf_and_dots),
	};
	return cmocka_run_group_tests_name("smtp server: content", tests, NULL, NULL);
}

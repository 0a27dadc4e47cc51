"""The promise's tables A, B, C and E as a client would try them: one daemon a table, one line a try, and the codes that will do.
What needs more than a line stands in test_submission.py, test_limits.py and test_tls_server.py."""
import base64
import re

import pytest

from conftest import relayhost
from wire import Wire, plain

OPEN = "listen:\n  - {address: '127.0.0.1:0', tls: off, auth: optional, trusted: [127.0.0.0/8]}\n"
CLEAR = "listen:\n  - {address: '127.0.0.1:0', tls: off, allow_plaintext_auth: true}\n"
REFUSED = range(500, 600)


def well_formed(reply):
    """RFC 5321 section 4.5.3.1.5, and an enhanced code on each line that may have one."""
    for line in reply.split("\n"):
        assert len(line) <= 510 and line.isascii() and line.isprintable()
        assert re.match(r"\d\d\d[ -]", line)
    if reply.code in (250, 220, 334, 354):
        return
    assert all(re.match(r"\d\d\d[ -][245]\.\d{1,3}\.\d{1,3} \S", line) for line in reply.split("\n")), reply


def ask(client, line):
    """The reply to one line, which is the only one: what comes next answers RSET."""
    client.send((line if isinstance(line, bytes) else line.encode()) + b"\r\n")
    reply = client.reply()
    assert reply is not None, line[:100]
    well_formed(reply)
    return reply


def still_in_step(client, may_end=False):
    """The next reply is that of the next command; or none comes any more, where that is as good."""
    try:
        reply = client.cmd("RSET")
    except OSError:
        reply = None
    return reply.startswith("250 2.0.0") if reply else may_end


LINES = [
    ("A4", "EHLO", {501}), ("A4", "HELO", {501}), ("A4", "EHLO ", {501}),
    ("A5", "eHlO app", {250}), ("A5", "noop", {250}), ("A5", "Mail from:<a@example.org> body=8bitmime size=10", {250}),
    ("A6", "FROBNICATE", {500, 502}), ("A6", "MAILX FROM:<a@b>", {500, 502}), ("A6", "MAIL", {501}), ("A6", "X" * 100, {500, 502}),
    ("A7", b"\xff\xfe\xc3\x28 x", REFUSED), ("A7", b"NO\x80P", REFUSED),
    ("A8", "", {500}), ("A8", "   ", {500}), ("A8", "\t", {500}),
    ("A9", "NOOP " + "x" * 2000, {250, 500, 501}), ("A10", "EHLO " + "x" * 12000, REFUSED), ("A10", "EHLO " + "x" * 400, {250, 501}),
    ("A11", "x" * (1 << 20), {500}), *[("A11", "x" * n + "NOOP", {500}) for n in (508, 509, 512, 1020, 1024, 2048, 4092, 4096, 8192, 16384)],
    ("A16", b"NO\0OP", REFUSED), ("A16", b"NOOP\0", REFUSED), ("A16", b"MAIL FROM:<a\0b@example.org>", REFUSED), ("A16", b"\0NOOP", REFUSED),
    *[("A17", b"MAIL FROM:<a" + bytes([c]) + b"b@example.org>", REFUSED) for c in (7, 9, 27, 127)],
    ("A18", "MAIL FROM:<m\u00fcller@example.org>", {500, 501, 550, 553}), ("A18", "MAIL FROM:<a@ex\u00e4mple.org>", {500, 501, 550, 553}),
    ("A19", "RSET  ", {250}), ("A19", "NOOP \t ", {250}), ("A19", "EHLO app  ", {250}),
    ("A20", "VRFY root", {252, *REFUSED}), ("A20", "EXPN staff", {252, *REFUSED}), ("A20", "VRFY", REFUSED),
    *[("A21", verb, REFUSED) for verb in ("TURN", "SEND FROM:<a@b>", "SOML FROM:<a@b>", "SAML FROM:<a@b>", "DEBUG", "WIZ", "ATRN", "ETRN x",
                                          "BURL imap://x", "XCLIENT ADDR=127.0.0.1", "XFORWARD NAME=x")],
    *[("A25", f"{verb}%s%n%x%s%s%n", {250, 252, *REFUSED}) for verb in ("EHLO ", "VRFY ", "MAIL FROM:<", "NOOP ", "AUTH ", "")],
]


def test_lines_and_commands(relayd):
    """A4, A5, A6, A7, A8, A9, A10, A11, A16, A17, A18, A19, A20, A21, A25"""
    daemon = relayd(listen=OPEN)
    for row, line, codes in LINES:
        with Wire(daemon.port) as client:
            client.ehlo()
            reply = ask(client, line)
            assert reply.code in codes, (row, line[:80], reply)
            assert still_in_step(client), (row, line[:80])


def test_greetings(relayd):
    """A1, A2, A3, A22"""
    daemon = relayd(listen=OPEN)
    with Wire(daemon.port) as client:
        assert re.fullmatch(r"220 relay\.example\.org .*", client.greeting)
        first, *keywords = client.ehlo().split("\n")
        assert re.fullmatch(r"250-relay\.example\.org", first)
        names = [line[4:].split()[0] for line in keywords]
        assert all(re.fullmatch(r"250[ -][A-Z0-9][A-Z0-9-]*( [!-~]+)*", line) for line in keywords)
        assert len(set(names)) == len(names) and {"SIZE", "PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8", "DSN"} <= set(names)
        assert not {"CHUNKING", "BINARYMIME", "ETRN", "STARTTLS", "REQUIRETLS", "EXPN"} & set(names)
        assert re.fullmatch(r"250 relay\.example\.org", client.cmd("HELO again"))
        assert client.cmd("QUIT").code == 221 and client.is_closed()
    with Wire(daemon.port) as client:
        assert client.cmd("QUIT").code == 221 and client.is_closed()


def test_what_is_no_line_end(relayd):
    """A12, A14, A15: LF alone and CR alone end nothing, and a line without end is not waited for in memory."""
    daemon = relayd(listen=OPEN)
    for text in (b"NOOP\nNOOP\r\n", b"NOOP\n\r\n", b"NOOP\rMAIL FROM:<a@example.org>\r\n", b"NOOP\r\rNOOP\r\n"):
        with Wire(daemon.port) as client:
            client.ehlo()
            client.send(text)
            assert client.reply().code in REFUSED
            assert still_in_step(client, may_end=True)
    with Wire(daemon.port) as client, Wire(daemon.port) as other:
        try:
            client.send(b"x" * (8 << 20))
            client.send(b"\r\n")
        except OSError:
            pass
        reply = client.reply()
        assert reply is None or reply.code in REFUSED
        assert other.ehlo().code == 250


LONG_DOMAIN = ".".join(["d" * 60] * 5)
PATHS = [
    ("B8", "<>", {250}, None), ("B9", None, REFUSED, "<>"), ("B9", None, REFUSED, "<@>"), ("B9", None, REFUSED, "<a@>"), ("B9", None, REFUSED, "<@b>"),
    ("B9", "<@>", REFUSED, None), ("B10", None, {250}, r'<"a\"b@x"@example.net>'), ("B10", None, {250}, '<"x>y"@example.net>'),
    ("B10", None, REFUSED, '<"a@example.net>'), ("B10", None, REFUSED, '<"a"b@example.net>'), ("B10", None, {250}, '<"a b"@example.net>'),
    ("B11", None, {250, *REFUSED}, "<@one.example,@two.example:a@example.net>"), ("B12", None, {250}, "<a%b@example.net>"), ("B12", None, {250}, "<a!b@example.net>"),
    ("B13", None, {250, *REFUSED}, "<a@[192.0.2.1]>"), ("B13", None, {250, *REFUSED}, "<a@[IPv6:2001:db8::1]>"), ("B13", None, REFUSED, "<a@[192.0.2.256]>"),
    ("B13", None, REFUSED, "<a@[IPv6:2001::db8::1]>"), ("B13", None, REFUSED, "<a@[192.0.2.1>"), ("B13", None, REFUSED, "<a@[]>"), ("B13", None, REFUSED, "<a@192.0.2.1]>"),
    ("B14", None, {250}, f"<{'x' * 64}@example.net>"), ("B14", None, {250, *REFUSED}, f"<{'x' * 65}@example.net>"), ("B14", None, REFUSED, f"<{'x' * 300}@example.net>"),
    ("B14", None, REFUSED, f"<{'x' * 10000}@example.net>"), ("B15", None, REFUSED, f"<a@{'x' * 64}.example>"), ("B15", None, REFUSED, f"<a@{LONG_DOMAIN}>"),
    ("B15", None, REFUSED, "<a@b..example>"), ("B15", None, REFUSED, "<a@.example>"), ("B15", None, {250, *REFUSED}, "<a@example.net.>"),
    ("B16", None, REFUSED, "<a@b@example.net>"), ("B16", None, REFUSED, "<a b@example.net>"), ("B16", None, REFUSED, "<a,b@example.net>"), ("B16", None, REFUSED, "<a:b@example.net>"),
    ("B16", None, REFUSED, "<a(b)@example.net>"), ("B16", None, REFUSED, "<a@exam ple.net>"), ("B16", None, {250, *REFUSED}, "a@example.net"), ("B16", None, REFUSED, "<a@example.net"),
    ("B16", None, REFUSED, "<<a@example.net>>"), ("B16", None, REFUSED, "<.a@example.net>"), ("B16", None, REFUSED, "<a..b@example.net>"), ("B16", None, REFUSED, "<a@example_net> x y"),
    *[("B17", None, {250, *REFUSED}, f"<{local}@example.net>") for local in ("|touch/tmp/canary", "`touch$IFS/tmp/canary`", "$(touch/tmp/canary)", "${run{/bin/sh}}", "/etc/passwd",
                                                                           "../../x", ";id", "-oQ/tmp")],
    ("B18", "<a@example.org%0d%0aRCPT TO:<c@d>>", REFUSED, None), ("B18", "<a@example.org\rRCPT TO:<c@d>>", REFUSED, None), ("B18", "<a@example.org\nRCPT TO:<c@d>>", REFUSED, None),
    ("B19", "<m\u00fcller@example.org> SMTPUTF8", {250}, None), ("B19", "<a@example.org> SMTPUTF8=1", {501}, None), ("B19", "<a@example.org> SMTPUTF8 SMTPUTF8", {501}, None),
    ("B21", "<a@example.org> SIZE=10240", {250}, None), ("B21", "<a@example.org> SIZE=10241", {552}, None), ("B21", "<a@example.org> SIZE=999999999", {552}, None),
    ("B22", "<a@example.org> SIZE=18446744073709551616", {552, 501}, None), ("B22", "<a@example.org> SIZE=4294967297", {552, 501}, None),
    ("B22", "<a@example.org> SIZE=-1", {501}, None), ("B22", "<a@example.org> SIZE=abc", {501}, None), ("B22", "<a@example.org> SIZE=", {501}, None), ("B22", "<a@example.org> SIZE", {501}, None),
    ("B23", "<a@example.org> BODY=BOGUS", REFUSED, None), ("B23", "<a@example.org> BODY=BINARYMIME", REFUSED, None), ("B23", "<a@example.org> BODY=8BITMIME", {250}, None),
    ("B23", "<a@example.org> BODY=7BIT", {250}, None), ("B24", "<a@example.org> FROB=1", {555}, None), ("B24", None, {555}, "<b@example.net> FROB=1"), ("B24", None, {555}, "<b@example.net> SIZE=1"),
    ("B25", "<a@example.org>" + " X=1" * 300, REFUSED, None), ("B25", '<a@example.org> ="x" =', REFUSED, None), ("B25", "<a@example.org> SIZE=10 SIZE=10", {501}, None),
    ("B26", "<a@example.org> RET=FULL ENVID=abc+2B", {250}, None), ("B26", "<a@example.org> RET=HDRS", {250}, None), ("B26", "<a@example.org> RET=SOME", {501}, None),
    ("B26", "<a@example.org> RET=FULL RET=FULL", {501}, None), ("B26", "<a@example.org> ENVID=a+ZZ", {501}, None), ("B26", "<a@example.org> ENVID=" + "x" * 101, {501}, None),
    ("B26", None, {250}, "<b@example.net> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;b@example.net"), ("B26", None, {250}, "<b@example.net> NOTIFY=NEVER"),
    ("B26", None, {501}, "<b@example.net> NOTIFY=NEVER,FAILURE"), ("B26", None, {501}, "<b@example.net> NOTIFY=BOGUS"), ("B26", None, {501}, "<b@example.net> NOTIFY="),
    ("B26", None, {501}, "<b@example.net> NOTIFY=DELAY NOTIFY=DELAY"), ("B26", None, {501}, "<b@example.net> ORCPT=b@example.net"), ("B26", None, {501}, "<b@example.net> ORCPT=rfc822;"),
]


def test_paths_and_parameters(relayd, upstream):
    """B8, B9, B10, B11, B12, B13, B14, B15, B16, B17, B18, B19, B21, B22, B23, B24, B25, B26"""
    daemon = relayd(relayhost(upstream.port) + "limits: {message_size: 10K}\n", listen=OPEN)
    for row, sender, codes, recipient in PATHS:
        with Wire(daemon.port) as client:
            client.ehlo()
            if sender is None:
                assert client.cmd("MAIL FROM:<a@example.org>").code == 250
            reply = ask(client, f"MAIL FROM:{sender}" if recipient is None else f"RCPT TO:{recipient}")
            assert reply.code in codes, (row, sender, (recipient or "")[:80], reply)
            if reply.code in REFUSED and sender is None:
                # The transaction lives on, without that recipient.
                assert client.cmd("DATA").code in (503, 554)
            assert still_in_step(client, may_end=row == "B18"), (row, sender, (recipient or "")[:80])
    assert upstream.messages.empty() and daemon.json("queue") == []


def test_order(relayd):
    """B1, B2, B3"""
    daemon = relayd(listen=OPEN)
    with Wire(daemon.port) as client:
        for line in ("MAIL FROM:<a@example.org>", "RCPT TO:<b@example.net>", "DATA", "AUTH PLAIN"):
            assert ask(client, line).code in (503, 530, 554)
        client.ehlo()
        assert ask(client, "RCPT TO:<b@example.net>").code == 503
        assert ask(client, "DATA").code in (503, 554)
        assert ask(client, "MAIL FROM:<a@example.org>").code == 250
        assert ask(client, "DATA").code in (503, 554)
        assert ask(client, "MAIL FROM:<other@example.org>").code == 503
        assert ask(client, "RCPT TO:<b@example.net>").code == 250
        assert ask(client, "MAIL FROM:<other@example.org>").code == 503
        assert ask(client, "STARTTLS").code in REFUSED
        assert ask(client, "DATA").code == 354


def test_eight_bits(relayd, make_upstream):
    """C13: declared or not, the octets arrive, and the next hop is told."""
    upstream = make_upstream()
    daemon = relayd(relayhost(upstream.port), listen=OPEN)
    for parameter in ("", " BODY=8BITMIME", " BODY=7BIT"):
        for content in (b"Subject: x\r\n\r\n\xe4\xf6\xfc\xff\r\n", "Subject: Grüße\r\n\r\nx\r\n".encode()):
            with Wire(daemon.port) as client:
                client.ehlo()
                assert client.cmd(f"MAIL FROM:<a@example.org>{parameter}").code == 250
                assert client.cmd("RCPT TO:<b@example.net>").code == 250
                assert client.data(content).code == 250
            mail = upstream.get()
            assert mail.data.endswith(content[content.index(b"\r\n\r\n"):]) and content.split(b"\r\n")[0] in mail.data
            assert "BODY=8BITMIME" in mail.mail_options


def test_content_that_is_not_waited_for(relayd, upstream):
    """C9, C10, C11, C23: ahead of the 354, behind a refused DATA, behind the end, and more than was announced."""
    daemon = relayd(relayhost(upstream.port), listen=OPEN)
    begin = b"EHLO a\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"
    evil = b"Subject: %s\r\n\r\nMAIL FROM:<evil@example.org>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\nx\r\n.\r\n"
    with Wire(daemon.port) as client:
        client.send(begin + evil % b"ahead" + b"NOOP\r\nQUIT\r\n")
        assert [client.reply().code for _ in range(7)] == [250, 250, 250, 354, 250, 250, 221]
    with Wire(daemon.port) as client:
        client.ehlo()
        client.send(b"DATA\r\n" + evil % b"refused")
        codes = []
        while (reply := client.reply()) is not None:
            codes.append(reply.code)
            if len(codes) == 12:
                break
        assert codes and not {250, 354} & set(codes)
    with Wire(daemon.port) as client:
        client.ehlo()
        client.cmd("MAIL FROM:<a@example.org> SIZE=10")
        client.cmd("RCPT TO:<b@example.net>")
        assert client.data(b"Subject: more\r\n\r\n" + b"x" * 70 + b"\r\n" + (b"y" * 78 + b"\r\n") * 1250).code in (250, 552)
    mails = upstream.get_many(2)
    assert [mail.rcpt_tos for mail in mails] == [["b@example.net"]] * 2
    assert upstream.messages.empty()


def test_bdat(relayd, upstream):
    """C25, C26: not offered; its octets are never commands."""
    daemon = relayd(relayhost(upstream.port), listen=OPEN)
    for chunk in ("BDAT 20 LAST", "BDAT 0", "BDAT 0 LAST", "BDAT 18446744073709551615 LAST", "BDAT -1", "BDAT x", "BDAT"):
        with Wire(daemon.port) as client:
            client.ehlo()
            client.envelope()
            client.send(chunk.encode() + b"\r\nRSET\r\nMAIL FROM:<e@example.org>\r\n.\r\n")
            assert client.reply().code in (500, 501, 502, 503)
            assert client.is_closed()
    assert upstream.messages.empty()


def b64(text):
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


GOOD, TOLD, WRONG = {235}, {501}, {535, 501}
AUTHS = [
    ("E1", ["AUTH PLAIN " + plain("app", "secret")], GOOD), ("E1", ["AUTH PLAIN", plain("app", "secret")], GOOD), ("E1", ["auth login", b64("app"), b64("secret")], GOOD),
    ("E1", ["AUTH LOGIN " + b64("app"), b64("secret")], GOOD), ("E1", ["aUtH pLaIn " + plain("app", "secret")], GOOD),
    ("E2", ["AUTH PLAIN", "*"], TOLD), ("E2", ["AUTH LOGIN", "*"], TOLD), ("E2", ["AUTH LOGIN", b64("app"), "*"], TOLD),
    ("E3", ["AUTH PLAIN !!!!"], WRONG), ("E3", ["AUTH PLAIN ="], WRONG), ("E3", ["AUTH PLAIN", ""], WRONG), ("E3", ["AUTH PLAIN QQ"], WRONG), ("E3", ["AUTH PLAIN " + plain("app", "secret") + "="], WRONG),
    ("E3", ["AUTH LOGIN", ""], WRONG), ("E3", ["AUTH LOGIN", b64("app"), ""], WRONG), ("E3", ["AUTH PLAIN " + plain("app", "secret")[:-3]], WRONG), ("E3", ["AUTH PLAIN " + plain("app", "secret") + " x"], WRONG),
    ("E4", ["AUTH PLAIN " + "QUFB" * 3250], {500, 501, 535}), ("E4", ["AUTH PLAIN " + "QUFB" * 25000], {500, 501, 535}), ("E4", ["AUTH PLAIN", "QUFB" * 262144], {500, 501, 535}),
    ("E5", ["AUTH PLAIN " + b64("app secret")], WRONG), ("E5", ["AUTH PLAIN " + b64("app\0secret")], WRONG), ("E5", ["AUTH PLAIN " + b64("\0app\0secret\0x")], WRONG),
    ("E5", ["AUTH PLAIN " + b64("\0app\0sec\0ret")], WRONG), ("E5", ["AUTH PLAIN " + b64("\0\0secret")], WRONG), ("E5", ["AUTH PLAIN " + b64("\0app\0")], WRONG), ("E5", ["AUTH PLAIN " + b64("\0\0")], WRONG),
    ("E6", ["AUTH PLAIN " + plain("app", "secret", "root")], WRONG), ("E6", ["AUTH PLAIN " + plain("app", "secret", "app")], {235, 535}),
    ("E7", ["AUTH PLAIN " + plain("app", "Secret")], WRONG), ("E7", ["AUTH PLAIN " + plain("app", "secre")], WRONG), ("E7", ["AUTH PLAIN " + plain("app", "secrets")], WRONG), ("E7", ["AUTH PLAIN " + plain("app", "secret ")], WRONG),
    ("E7", ["AUTH PLAIN " + plain("app", "secret\r\n")], WRONG), ("E8", ["AUTH PLAIN " + plain("nobody", "secret")], WRONG),
    ("E10", ["AUTH EXTERNAL ="], {504}), ("E10", ["AUTH NTLM"], {504}), ("E10", ["AUTH CRAM-MD5"], {504}), ("E10", ["AUTH"], {501, 504}), ("E10", ["AUTH XOAUTH2 " + "A" * 100], {504}), ("E10", ["AUTH PLAINX"], {504}),
]


def test_auth(relayd, upstream):
    """E1, E2, E3, E4, E5, E6, E7, E8, E9, E10, E12, E14: and who did not get in has no more rights than before."""
    daemon = relayd(relayhost(upstream.port), listen=CLEAR)
    for number, (row, lines, codes) in enumerate(AUTHS):
        with Wire(daemon.port, source=(f"127.0.3.{number + 1}", 0)) as client:
            client.ehlo()
            for line in lines[:-1]:
                reply = ask(client, line)
                assert reply.code == 334, (row, lines[0][:80], reply)
            reply = ask(client, lines[-1])
            assert reply.code in codes, (row, lines[0][:80], reply)
            assert ask(client, "MAIL FROM:<a@example.org>").code == (250 if reply.code == 235 else 530), (row, lines[0][:80])
            if reply.code == 235:
                assert ask(client, "AUTH PLAIN " + plain("app", "secret")).code == 503
                assert still_in_step(client)
                assert ask(client, "AUTH PLAIN " + plain("app", "secret")).code == 503
                assert client.ehlo().code == 250
                assert ask(client, "MAIL FROM:<a@example.org>").code == 250
            else:
                assert ask(client, "RCPT TO:<b@example.net>").code == 530
                assert ask(client, "DATA").code in (503, 530)
                assert still_in_step(client)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_the_challenges_are_as_clients_expect_them(relayd, mechanism):
    """E1: an empty one, and the two that Alertmanager insists on."""
    daemon = relayd(listen=CLEAR)
    with Wire(daemon.port) as client:
        assert re.search(r"(?m)^250[ -]AUTH PLAIN LOGIN$", client.ehlo())
        client.send(f"AUTH {mechanism}\r\n")
        assert client.line() == {"PLAIN": "334 ", "LOGIN": "334 VXNlcm5hbWU6"}[mechanism]
        if mechanism == "LOGIN":
            client.send(b64("app") + "\r\n")
            assert client.line() == "334 UGFzc3dvcmQ6"


def test_a_parameter_that_names_another_is_not_believed(relayd, upstream):
    """B27: AUTH= changes nothing."""
    daemon = relayd(relayhost(upstream.port), listen=CLEAR)
    with Wire(daemon.port) as client:
        client.ehlo()
        assert ask(client, "MAIL FROM:<a@example.org> AUTH=app@example.org").code == 530
        assert client.login().code == 235
        for value, code in (("<>", 250), ("root+40example.org", 250), ("bad+ZZ", 501), ("", 501)):
            assert ask(client, f"MAIL FROM:<a@example.org> AUTH={value}").code == code, value
            client.cmd("RSET")

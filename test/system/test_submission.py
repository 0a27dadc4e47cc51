"""Who may submit, and what is refused with which words."""
import re
import smtplib
import socket
import ssl
import subprocess

import pytest

from conftest import PATIENCE, USERS_SECRET, message, no_verification, relayhost, users_line
from wire import Wire, plain

OPEN = "listen:\n  - {address: '127.0.0.1:0', tls: off, auth: optional, trusted: [127.0.0.0/8]}\n"


def dialog(port, *lines):
    """Sends lines one by one in clear text; returns the replies, greeting first."""
    replies = []
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        stream = connection.makefile("rb")

        def reply():
            text = b""
            while True:
                line = stream.readline()
                text += line
                if len(line) < 4 or line[3:4] != b"-":
                    return text.decode()
        replies.append(reply())
        for line in lines:
            connection.sendall(line.encode() + b"\r\n")
            replies.append(reply())
    return replies


def test_no_tls_no_auth_no_mail(relayd, upstream):
    """D1, D2, E12, E15"""
    daemon = relayd(relayhost(upstream.port))
    greeting, ehlo, mail, auth = dialog(daemon.port, "EHLO app", "MAIL FROM:<a@example.org>", "AUTH PLAIN AGFwcABzZWNyZXQ=")
    assert greeting.startswith("220 relay.example.org")
    assert "STARTTLS" in ehlo and "AUTH" not in ehlo
    assert mail.startswith("530 5.7.0")
    assert auth[:3] in ("530", "538")


def test_authenticated_only_after_the_right_password(relayd, upstream):
    daemon = relayd(relayhost(upstream.port))
    with daemon.smtp(user=None) as client:
        assert client.mail("a@example.org")[0] == 530
        with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
            client.login("app", "wrong")
        assert refused.value.smtp_code == 535
        assert client.mail("a@example.org")[0] == 530
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("nobody", USERS_SECRET)
        client.login("app", USERS_SECRET)
        assert client.mail("a@example.org")[0] == 250
    assert "wrong" not in "\n".join(daemon.lines)
    # smtplib tries a refused password with each mechanism: twice two.
    assert daemon.metric('relayd_auth_attempts_total{result="failed"}') == 4


@pytest.mark.parametrize("mechanism", ["auth_plain", "auth_login"])
def test_mechanisms(relayd, upstream, mechanism):
    daemon = relayd(relayhost(upstream.port))
    with daemon.smtp(user=None) as client:
        client.user, client.password = "app", USERS_SECRET
        name = mechanism.split("_")[1].upper()
        assert client.auth(name, getattr(client, mechanism), initial_response_ok=False)[0] == 235


def test_trusted_addresses_need_neither(relayd, upstream):
    daemon = relayd(relayhost(upstream.port),
                    listen="listen:\n  - {address: '127.0.0.1:0', tls: off, auth: optional, trusted: [127.0.0.0/8]}\n")
    with daemon.smtp(user=None, tls=False) as client:
        client.send_message(message())
    assert upstream.get().rcpt_tos == ["user@example.net"]


def test_untrusted_addresses_hear_what_to_set_up(relayd, upstream):
    daemon = relayd(relayhost(upstream.port),
                    listen="listen:\n  - {address: '127.0.0.1:0', tls: off, auth: optional, trusted: [192.0.2.0/24]}\n")
    replies = dialog(daemon.port, "EHLO app", "MAIL FROM:<a@example.org>")
    assert replies[-1][:9] in ("530 5.7.0", "554 5.7.1") and "trusted" in replies[-1]


def test_implicit_tls(relayd, upstream):
    daemon = relayd(relayhost(upstream.port), listen="listen:\n  - {address: '127.0.0.1:0', tls: implicit}\n")
    with smtplib.SMTP_SSL("127.0.0.1", daemon.port, context=no_verification(), timeout=PATIENCE) as client:
        client.login("app", USERS_SECRET)
        client.send_message(message())
    assert upstream.get().rcpt_tos == ["user@example.net"]


def test_over_size_is_refused_and_the_session_lives(relayd, upstream):
    """B21, F7"""
    daemon = relayd(relayhost(upstream.port) + "limits: {message_size: 10K}\n")
    with daemon.smtp() as client:
        assert client.mail("a@example.org", ["SIZE=20000"])[0] == 552
        client.mail("a@example.org")
        client.rcpt("b@example.net")
        code, text = client.data("From: a@example.org\r\n\r\n" + "x" * 70 + "\r\n" + ("y" * 70 + "\r\n") * 300)
        assert code == 552 and b"5.3.4" in text
        client.send_message(message("small"))
    assert b"small" in upstream.get().data
    assert daemon.json("queue") == []


def test_unknown_command_and_order(relayd, upstream):
    daemon = relayd(relayhost(upstream.port))
    with daemon.smtp() as client:
        assert client.docmd("FROBNICATE")[0] in (500, 502)
        assert client.docmd("RCPT", "TO:<b@example.net>")[0] == 503
        assert client.docmd("DATA")[0] == 503
        assert client.docmd("VRFY", "x")[0] == 252
        assert client.docmd("HELP")[0] == 214
        assert client.docmd("NOOP")[0] == 250
        client.send_message(message())
    upstream.get()


def test_client_gone_in_the_middle_leaves_nothing(relayd, upstream):
    daemon = relayd(relayhost(upstream.port))
    client = daemon.smtp()
    client.mail("a@example.org")
    client.rcpt("b@example.net")
    client.docmd("DATA")
    client.send(b"From: a@example.org\r\nSubject: half\r\n\r\nnot the e")
    client.sock.close()
    with daemon.smtp() as other:
        other.send_message(message("whole"))
    assert b"whole" in upstream.get().data
    assert daemon.json("queue") == [] and upstream.messages.empty()


def test_bare_newlines_never_split_a_message(relayd, upstream):
    """C6"""
    daemon = relayd(relayhost(upstream.port))
    smuggled = b"From: a@example.org\r\nSubject: one\r\n\r\nhello\n.\nMAIL FROM:<evil@example.org>\r\nRCPT TO:<c@example.net>\r\nDATA\r\n"
    with daemon.smtp() as client:
        client.mail("a@example.org")
        client.rcpt("b@example.net")
        client.docmd("DATA")
        client.send(smuggled + b"\r\n.\r\n")
        code, text = client.getreply()
        assert code == 550 and text.startswith(b"5.6.11")
        client.send_message(message("after"))
    assert b"after" in upstream.get().data
    assert upstream.messages.empty()


def test_from_policy_of_the_user(relayd, upstream):
    """B28"""
    daemon = relayd(relayhost(upstream.port), users=users_line(options=":from=@example.org"))
    with daemon.smtp() as client:
        client.send_message(message("allowed"))
        with pytest.raises(smtplib.SMTPException):
            client.send_message(message("forged", sender="ceo@example.com"), from_addr="ceo@example.com")
        with pytest.raises(smtplib.SMTPException):
            client.send_message(message("forged too", sender="ceo@example.com"), from_addr="app@example.org")
    assert b"allowed" in upstream.get().data
    assert upstream.messages.empty()


def test_swaks_and_curl(relayd, upstream, folder):
    daemon = relayd(relayhost(upstream.port))
    done = subprocess.run(["swaks", "--server", "127.0.0.1", "--port", str(daemon.port), "--tls", "--auth", "LOGIN", "--auth-user",
                           "app", "--auth-password", USERS_SECRET, "--from", "app@example.org", "--to", "user@example.net",
                           "--pipeline", "--helo", "app.test"], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "queued as" in done.stdout
    upstream.get()
    (folder / "mail.eml").write_text("From: app@example.org\nTo: user@example.net\nSubject: by curl\n\nbody\n".replace("\n", "\r\n"))
    done = subprocess.run(["curl", "-sS", "--ssl-reqd", "--insecure", "--user", f"app:{USERS_SECRET}",
                           f"smtp://127.0.0.1:{daemon.port}/app.test", "--mail-from", "app@example.org", "--mail-rcpt",
                           "user@example.net", "--upload-file", str(folder / "mail.eml")],
                          capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert b"by curl" in upstream.get().data


def test_local_users_submit_over_the_socket(relayd, upstream, folder):
    daemon = relayd(relayhost(upstream.port))
    done = daemon.ctl("send", "--from", "root@example.org", "--to", "user@example.net", input="just a line\n")
    assert "accepted as" in done.stdout and "delivered" in done.stdout
    assert b"just a line\r\n" in upstream.get().data
    upstream.stop()
    done = daemon.ctl("send", "--from", "root@example.org", "--to", "user@example.net", input="waits\n", check=False)
    assert done.returncode == 5, done
    assert re.search(r"^user@example\.net: deferred .*\n  next attempt in \w+: .", done.stdout, re.M), done.stdout


# ---- lines and commands: what concerns more than the machine (whose own table is test/unit/smtp/test_server_*.c)


def test_a_dialogue_octet_by_octet(relayd, upstream):
    """A13: each octet a segment of its own, CR and LF apart."""
    daemon = relayd(relayhost(upstream.port), listen=OPEN)
    with Wire(daemon.port) as client:
        def trickle(text):
            for at in range(len(text)):
                client.send(text[at:at + 1])
            return client.reply()

        assert trickle(b"EHLO app\r\n").code == 250
        assert trickle(b"MAIL FROM:<app@example.org> SIZE=100\r\n").code == 250
        assert trickle(b"RCPT TO:<user@example.net>\r\n").code == 250
        assert trickle(b"DATA\r\n").code == 354
        assert trickle(b"Subject: drop by drop\r\n\r\n..\r\nx\r\n.\r\n").code == 250
        assert trickle(b"QUIT\r\n").code == 221
        assert client.is_closed()
    assert upstream.get().data.endswith(b"\r\n\r\n.\r\nx\r\n")


def test_other_protocols_are_hung_up_on(relayd, upstream):
    """A23, A26: HTTP with a dialogue for a body, and TLS in clear text."""
    daemon = relayd(relayhost(upstream.port), listen=OPEN)
    dialogue = b"EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\nQUIT\r\n"
    for first in (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n",
                  b"\x16\x03\x01\x00\x05\x01\0\0\1\3"):
        with Wire(daemon.port) as client:
            try:
                client.send(first + dialogue)
            except OSError:
                pass
            assert client.is_closed()
    with Wire(daemon.port) as client:
        client.ehlo()
        assert client.message(b"Subject: the only one\r\n\r\nx\r\n").code == 250
    assert b"the only one" in upstream.get().data
    assert upstream.messages.empty()
    for line in daemon.lines:
        assert line.isprintable()


def test_who_talks_before_the_greeting_loses_nothing(relayd, upstream):
    """A24: The greeting comes first, then the answers in their order."""
    daemon = relayd(relayhost(upstream.port), listen=OPEN)
    with Wire(daemon.port, greet=False) as client:
        client.send(b"EHLO early\r\nNOOP\r\n")
        assert [client.reply().code for _ in range(3)] == [220, 250, 250]


def test_the_log_cannot_be_forged(relayd):
    """A25, A27"""
    daemon = relayd(listen="listen:\n  - {address: '127.0.0.1:0', tls: off, allow_plaintext_auth: true}\n")
    mark = len(daemon.lines)
    forged = ["EHLO a\x1b[2J event=accepted", "EHLO %s%n%x%s%s", "EHLO x", "MAIL FROM:<a\x07@b> event=accepted", "MAIL FROM:<%n@b>",
              "AUTH PLAIN " + plain("evil\nlevel=error event=corruption\x1b[31m\u202e", "x"),
              "AUTH PLAIN " + plain('evil" level=error event=corruption \u202e\u2028', "x"), "VRFY %s%n"]
    with Wire(daemon.port) as client:
        for line in forged:
            reply = client.cmd(line.encode())
            assert reply.isascii() and "\x1b" not in reply
        client.close()
    daemon.wait_log("event=auth_failed", since=mark)
    for line in daemon.lines[mark:]:
        assert line.startswith("time=") and line.isprintable()
        assert line.count(" event=") == 1 or '"' in line
    assert not [line for line in daemon.lines[mark:] if re.match(r"time=\S+ level=\S+ event=(accepted|corruption)", line)]


# ---- the PROXY protocol

# Not 192.0.2.0/24: a sandbox may have its default gateway there, which is trusted only when it is named exactly.
BALANCED = """listen:
  - {address: '127.0.0.1:0', tls: optional, auth: optional, trusted: [198.51.100.0/24, "2001:db8::/32", 127.0.0.0/8],
     proxy_protocol: [127.0.0.0/8]}
  - {address: '127.0.0.1:0', tls: implicit, auth: required, proxy_protocol: [127.0.0.1]}
"""


def proxy_v2(address, port=4711, command=0x21):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    size = 16 if family == socket.AF_INET6 else 4
    body = socket.inet_pton(family, address) + bytes(size) + port.to_bytes(2, "big") + b"\0\x19" + b"\x04\0\x01x"
    return (b"\r\n\r\n\0\r\nQUIT\n" + bytes([command, 0x21 if size == 16 else 0x11]) + len(body).to_bytes(2, "big") + body)


@pytest.mark.parametrize("header, client", [
    (b"PROXY TCP4 198.51.100.7 203.0.113.1 4711 587\r\n", "[198.51.100.7]:4711"),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 587\r\n", "[IPv6:2001:db8::7]:4711"),
    (proxy_v2("198.51.100.9"), "[198.51.100.9]:4711"),
    (proxy_v2("2001:db8::9"), "[IPv6:2001:db8::9]:4711"),
], ids=["v1-4", "v1-6", "v2-4", "v2-6"])
def test_the_address_in_a_proxy_header_is_the_client(relayd, upstream, header, client):
    daemon = relayd(relayhost(upstream.port) + "hide_client: false\n", listen=BALANCED)
    for cut in (0, 1, len(header) - 1, len(header)):
        with Wire(daemon.port, greet=False) as wire:
            wire.send(header[:cut])
            wire.send(header[cut:] + b"EHLO behind\r\n")
            assert wire.reply().code == 220 and wire.reply().code == 250
            assert wire.message().code == 250
        assert client in daemon.wait_log("event=accepted", since=0)[-1]
        assert client.split("]")[0].strip("[").removeprefix("IPv6:") in upstream.get().head.split("\r\n\r\n")[0]


def test_a_client_behind_the_balancer_is_not_trusted_for_the_balancers_address(relayd):
    daemon = relayd(listen=BALANCED)
    for header in (b"PROXY TCP4 203.0.113.5 203.0.113.1 4711 587\r\n", b"PROXY UNKNOWN\r\n", proxy_v2("198.51.100.9", command=0x20),
                   b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0"):
        with Wire(daemon.port, greet=False) as wire:
            wire.send(header)
            assert wire.reply().code == 220
            wire.ehlo()
            assert wire.cmd("MAIL FROM:<a@example.org>").code in (530, 554)


def test_what_is_no_proxy_header_closes_the_connection(relayd, upstream):
    daemon = relayd(relayhost(upstream.port), listen=BALANCED)
    broken = [b"EHLO x\r\n", b"PROXY TCP4 198.51.100.7\r\n", b"PROXY TCP4 198.51.100.7 203.0.113.1 4711 587\n", b"PROXY UNKNOWN " + b"x" * 200,
              b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff" + b"x" * 100, b"\x16\x03\x01"]
    for header in broken:
        with Wire(daemon.port, greet=False) as wire:
            wire.send(header + b"\r\nNOOP\r\n")
            assert wire.reply() is None
    daemon.wait_log("event=proxy_header_refused .*client=.?.?127.0.0.1", count=len(broken))
    with Wire(daemon.port, greet=False), Wire(daemon.port, greet=False) as fine:
        fine.send(b"PROXY TCP4 198.51.100.7 203.0.113.1 4711 587\r\n")
        assert fine.reply().code == 220  # who waits holds nobody up


def test_implicit_tls_behind_a_balancer(relayd, upstream):
    """Header and ClientHello may come in one segment."""
    daemon = relayd(relayhost(upstream.port), listen=BALANCED)
    port = int(daemon.addresses[1].rsplit(":", 1)[1])
    sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    context = no_verification()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    first = proxy_v2("198.51.100.33")
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            sock.sendall(first + outgoing.read())
            first = b""
            incoming.write(sock.recv(65536))
    sock.sendall(outgoing.read())
    greeting = b""
    while b"\r\n" not in greeting:
        try:
            greeting += tls.read(4096)
        except ssl.SSLWantReadError:
            incoming.write(sock.recv(65536))
    assert greeting.startswith(b"220 ")
    sock.close()


def test_a_proxy_header_is_a_bad_command_where_none_is_configured(relayd, upstream):
    """A28: And it makes nobody trusted."""
    daemon = relayd(relayhost(upstream.port), listen="listen:\n  - {address: '127.0.0.1:0', tls: off, auth: optional, trusted: [198.51.100.0/24]}\n")
    with Wire(daemon.port) as wire:
        assert wire.cmd("PROXY TCP4 198.51.100.7 203.0.113.1 4711 587").code == 500
        wire.ehlo()
        assert wire.cmd("MAIL FROM:<a@example.org>").code in (530, 554)
    with Wire(daemon.port) as wire:
        wire.send(proxy_v2("198.51.100.9"))
        wire.send(b"\r\nEHLO x\r\nMAIL FROM:<a@example.org>\r\n")
        codes = []
        while (reply := wire.reply()) is not None:
            codes.append(reply.code)
            if reply.code in (530, 554):
                break
        assert 250 not in codes[-1:] and codes[0] == 500


def test_limits_count_the_client_and_not_the_balancer(relayd):
    daemon = relayd("limits: {connections_per_address: 2}\n", listen=BALANCED)
    wires = []
    for number in range(6):
        wire = Wire(daemon.port, greet=False)
        wire.send(f"PROXY TCP4 198.51.100.{number} 203.0.113.1 4711 587\r\n")
        assert wire.reply().code == 220
        wire.ehlo()
        assert wire.cmd("MAIL FROM:<a@example.org>").code == 250
        wires.append(wire)
    for number in range(2):
        wire = Wire(daemon.port, greet=False)
        wire.send(b"PROXY TCP4 198.51.100.1 203.0.113.1 4711 587\r\n")
        assert wire.reply().code == (421 if number else 220)
        if not number:
            wire.ehlo()
            assert wire.cmd("MAIL FROM:<a@example.org>").code == 250
        wires.append(wire)
    for wire in wires:
        wire.close()


# ---- what is relayed: octet by octet


HEADERS = (b"From: app@example.org\r\nTo:  two   blanks  <user@example.net>\t\r\nSUBJECT: odd case \r\nX-Empty:\r\n"
           b"X-Folded: a\r\n\tb\r\n  c\r\nDate: not a date\r\nMessage-ID: <odd id>\r\n")
BODIES = {
    "empty": b"", "blank lines at the end": b"x\r\n\r\n\r\n\r\n", "blanks at the end": b"x \t \r\n \r\n\t\r\n",
    "dots": b"..\r\n...\r\n. \r\n.x\r\n a\r\n.." + b"." * 2000 + b"\r\n", "long lines": (b"y" * 998 + b"\r\n") + b"z" * 5000 + b"\r\n" + b"w" * 100000 + b"\r\n",
    "8 bit": bytes(range(128, 256)) * 20 + b"\r\n", "nel and separators": "a\u0085b\u2028.\u2028c\r\n".encode(), "controls": b"\x0b.\x0c\x01\x7f\x1b[2J\r\n",
    "a header again": b"Bcc: stays@example.net\r\nX-Relayd-Tag: stays\r\n\r\nx\r\n", "looks like a dialogue": b"QUIT\r\nMAIL FROM:<x@y>\r\nDATA\r\n",
    "two hundred kilobytes": b"0123456789abcdef" * 4 * 3200 + b"\r\n",
}


def stuffed(body):
    return re.sub(rb"(?m)^\.", b"..", body)


def test_content_arrives_octet_by_octet(relayd, upstream):
    """C8, C12, C13, C18: In one piece, and cut at odd places."""
    daemon = relayd(relayhost(upstream.port), listen=OPEN)
    with Wire(daemon.port) as client:
        client.ehlo()
        for step in (None, 7, 1000):
            for name, body in BODIES.items():
                if step == 7 and len(body) > 10000:
                    continue
                client.envelope()
                assert client.cmd("DATA").code == 354
                content = HEADERS + b"\r\n" + stuffed(body) + b".\r\n"
                for at in range(0, len(content), step or len(content)):
                    client.send(content[at:at + (step or len(content))])
                assert client.reply().code == 250, name
                data = upstream.get().data
                added, rest = data.split(b"From: app@example.org\r\n", 1)
                assert added.startswith(b"Received: ") and b"\r\nDate" not in added and b"Message-ID" not in added
                assert rest == HEADERS.split(b"\r\n", 1)[1] + b"\r\n" + body, name
    assert upstream.messages.empty()


def test_odd_headers_lose_nothing(relayd, upstream):
    """C16, C17, C19, C21: What is no header is body; Bcc, Return-Path and our own fields go, in any case and folded."""
    daemon = relayd(relayhost(upstream.port), listen=OPEN)
    rows = [(b"\r\nbody\r\n", b"\r\n\r\nbody\r\n"), (b"just text\r\nmore\r\n", b"\r\n\r\njust text\r\nmore\r\n"),
            (b"Subject: x\r\n", b"Subject: x\r\n\r\n"), (b"Subject: x\r\nno field\r\nY: z\r\n", b"Subject: x\r\n\r\nno field\r\nY: z\r\n"),
            (b"bCC: a@b,\r\n c@d\r\nSubject: x\r\nBCC:\r\nReturn-Path: <x@y>\r\nX-RELAYD-Tag: t\r\nResent-Bcc: q@r\r\n\r\nb\r\n", b"Subject: x\r\n\r\nb\r\n"),
            (b"Resent-From: a@example.org\r\nSubject: x\r\nSubject: y\r\n\r\nb\r\n", b"Resent-From: a@example.org\r\nSubject: x\r\nSubject: y\r\n\r\nb\r\n")]
    with Wire(daemon.port) as client:
        client.ehlo()
        for content, end in rows:
            assert client.message(content).code == 250
            data = upstream.get().data
            head = data.split(b"\r\n\r\n")[0].lower()
            assert data.endswith(end), (content, data)
            for name in (b"\r\ndate:", b"\r\nmessage-id:", b"\r\nfrom:"):
                assert head.count(name) == 1
            assert not re.search(rb"(?m)^(bcc|return-path|x-relayd-tag|resent-bcc):", head)
        assert client.message(b"From: a@example.org\r\nFrom: b@example.org\r\n\r\nx\r\n").code == 550
        loop = b"Received: from a by b; Tue, 25 Nov 2025 10:00:00 +0000\r\n" * 120
        assert client.message(loop + b"\r\nx\r\n").startswith("554 5.4.6")
    assert upstream.messages.empty()


def test_huge_headers_are_bounded(relayd, upstream):
    """C22, F8: Each is taken whole or refused, in bounded time."""
    daemon = relayd(relayhost(upstream.port), listen=OPEN)
    contents = {
        "fields": b"X: y\r\n" * 10000 + b"\r\nx\r\n", "more fields": b"X: y\r\n" * 50000 + b"\r\nx\r\n",
        "field": b"X: " + b"z " * 524288 + b"\r\n\r\nx\r\n",
        "addresses": b"To: " + b",\r\n ".join(b"user%d@example.net" % n for n in range(5000)) + b"\r\n\r\nx\r\n",
        "comments": b"From: " + b"(" * 50000 + b")" * 50000 + b"a@example.org\r\n\r\nx\r\n",
        "quotes": b"From: " + b"\"\\" * 30000 + b"\r\n\r\nx\r\n", "groups": b"From: " + b"a:b;," * 20000 + b"\r\n\r\nx\r\n",
        "mime": b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(500)) + b"x\r\n",
    }
    taken = 0
    with Wire(daemon.port) as client:
        client.ehlo()
        for name, content in contents.items():
            reply = client.message(content)
            assert reply.code in (250, 550, 552), (name, reply)
            taken += reply.code == 250
            assert client.cmd("NOOP").code == 250
    upstream.get_many(taken)
    assert taken >= 3 and upstream.messages.empty()
    assert daemon.metric("relayd_loop_turn_max_seconds") < 1


ENDINGS = [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\r.\n", b"\n.\r", b"\r\r\n.\r\r\n", b"\r\n.\r\r\n",
           b"\n\r.\n\r", b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\n.\x0c\r\n", b"\r\n\x0b.\r\n", b"\r\n .\r\n", b"\r\n.\t\r\n", b"\r\n. \r\n",
           b"\xc2\x85.\xc2\x85", b"\xe2\x80\xa8.\xe2\x80\xa8", b"\r\n..\r\n"]


@pytest.mark.parametrize("bare", ["reject", "normalize"])
def test_one_message_comes_out_however_its_end_is_forged(relayd, upstream, bare):
    """C1, C2, C3, C4, C5, C7: SMTP smuggling in all its spellings, in one segment and cut at each octet of the forged end."""
    daemon = relayd(relayhost(upstream.port), listen=OPEN.replace("tls: off", f"tls: off, bare_newlines: {bare}"))
    inner = b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\nSubject: smuggled\r\n\r\nx"
    taken = 0
    for ending in ENDINGS:
        for cut in {0, 1, 2, len(ending) - 1}:
            with Wire(daemon.port) as client:
                client.ehlo()
                client.envelope()
                assert client.cmd("DATA").code == 354
                client.send(b"Subject: outer\r\n\r\nhello" + ending[:cut])
                client.send(ending[cut:] + inner + b"\r\n.\r\n")
                assert (reply := client.reply()).code in (250, 550, 554), (ending, reply)
                taken += reply.code == 250
                # The only reply: the next command is answered next.
                assert client.cmd("RSET").startswith("250 ") and client.cmd("VRFY x").code == 252
    for mail in upstream.get_many(taken):
        assert mail.rcpt_tos == ["user@example.net"] and mail.mail_from == "app@example.org"
        assert b"\0" not in mail.data and not re.search(rb"(?<!\r)\n|\r(?!\n)", mail.data)
    assert upstream.messages.empty()


def test_paths_are_relayed_as_they_are_written(relayd, upstream):
    """B8, B10, B12, B14: Local parts are opaque."""
    daemon = relayd(relayhost(upstream.port), listen=OPEN)
    recipients = ['"a b"@example.net', '"x>y"@example.net', r'"a\"b@c"@example.net', "a%b@example.net", "a!b@example.net", "!#$&'*+-/=?^_`{|}~@example.net",
                  "x" * 64 + "@example.net", "MiXed.Case@example.net"]
    with Wire(daemon.port) as client:
        client.ehlo()
        client.envelope("", *recipients)
        assert client.data(b"Subject: paths\r\n\r\nx\r\n").code == 250
    seen = []
    while len(seen) < len(recipients):
        mail = upstream.get()
        assert mail.mail_from in ("", None, "<>")
        seen += mail.rcpt_tos
    assert sorted(seen) == sorted(recipients)


def test_smtputf8_goes_on_only_where_it_is_offered(relayd, make_upstream):
    """B19, B20: An address that needs it fails with 5.6.7 at a next hop without; nothing is rewritten."""
    new, old = make_upstream(), make_upstream(smtputf8=False)
    daemon = relayd(relayhost(new.port))
    with Wire(daemon.port).ready() as client:
        assert client.cmd("MAIL FROM:<app@example.org>").code == 250
        assert client.cmd("RCPT TO:<müller@example.net>".encode()).code == 553
        client.cmd("RSET")
        assert client.cmd("MAIL FROM:<app@example.org> SMTPUTF8").code == 250
        assert client.cmd("RCPT TO:<müller@example.net>".encode()).code == 250
        assert client.cmd(b"RCPT TO:<m\xfcller@example.net>").code == 501
        assert client.data("Subject: Grüße\r\n\r\nx\r\n".encode()).code == 250
    received = new.get()
    assert received.rcpt_tos == ["müller@example.net"] and "SMTPUTF8" in received.mail_options
    daemon.stop()
    other = relayd(relayhost(old.port) + "bounce: {mode: none}\n")
    with Wire(other.port).ready() as client:
        client.cmd("MAIL FROM:<app@example.org> SMTPUTF8")
        client.cmd("RCPT TO:<müller@example.net>".encode())
        assert client.data(b"Subject: x\r\n\r\nx\r\n").code == 250
    other.wait_log("outcome=failed.*enhanced=5.6.7")
    assert old.messages.empty()


def test_a_session_does_not_mix_its_messages(relayd, upstream):
    """B4, B5, B6, B7: Recipients of one message never reach the next, whatever ended the first."""
    daemon = relayd(relayhost(upstream.port), listen=OPEN)
    with Wire(daemon.port) as client:
        client.ehlo()
        for end in ("RSET", "EHLO again"):
            client.envelope("a@example.org", "lost@example.net")
            assert client.cmd(end).code == 250
        client.envelope("a@example.org", "first@example.net")
        assert client.cmd("RCPT TO:<broken").code == 501
        assert client.cmd("MAIL FROM:<other@example.org>").code == 503
        assert client.cmd("NOOP").code == 250
        assert client.data(b"Subject: first\r\n\r\nx\r\n").code == 250
        client.envelope("a@example.org", "second@example.net")
        assert client.data(b"Subject: second\r\n\r\nx\r\n").code == 250
        client.envelope("a@example.org", "never@example.net")
        assert client.cmd("QUIT").code == 221
        assert client.is_closed()
    assert sorted(mail.rcpt_tos for mail in upstream.get_many(2)) == [["first@example.net"], ["second@example.net"]]
    assert upstream.messages.empty() and daemon.json("queue") == []


def test_the_envelope_rules(relayd, upstream):
    """C24: whom To and Cc name gets nothing, and who is named only in the envelope gets it."""
    daemon = relayd(relayhost(upstream.port), listen=OPEN)
    content = b"From: a@example.org\r\nTo: shown@example.net\r\nCc: also@example.net, more@example.com\r\nSubject: x\r\n\r\nx\r\n"
    with Wire(daemon.port) as client:
        client.ehlo()
        assert client.message(content, "other@example.org", "true@example.net").code == 250
    mail = upstream.get()
    assert mail.mail_from == "other@example.org" and mail.rcpt_tos == ["true@example.net"]
    assert mail.data.endswith(content) and upstream.messages.empty() and daemon.json("queue") == []


# ---- X-Relayd-*: class, lifetime, tag


def test_class_lifetime_and_tag_are_kept_and_removed(relayd, upstream):
    upstream.replies["data"] = ["451 4.3.0 not now"]
    daemon = relayd(relayhost(upstream.port) + "retry: {default: [1s], greylist: [1s]}\n")
    header = b"X-Relayd-Class: transactional\r\nx-relayd-lifetime:\r\n 10m\r\nX-Relayd-Tag: password-reset\r\nX-Relayd-Other: goes too\r\n"
    with Wire(daemon.port).ready() as client:
        reply = client.message(b"From: app@example.org\r\n" + header + b"Subject: code\r\n\r\n1234\r\n")
        assert reply.code == 250
    shown = daemon.json("show", reply.split()[-1])
    assert shown["class"] == "transactional" and shown["tag"] == "password-reset"
    mail = upstream.get()
    assert "x-relayd" not in mail.head.lower() and "Subject: code" in mail.head
    # It was kept in the journal, and is told with each outcome.
    daemon.wait_log("event=delivered .*tag=password-reset")


@pytest.mark.parametrize("field", ["X-Relayd-Class: urgent", "X-Relayd-Lifetime: soon", "X-Relayd-Lifetime: 0", "X-Relayd-Tag: two words",
                                   "X-Relayd-Tag: " + "x" * 65])
def test_values_that_mean_nothing_are_refused_with_the_name_of_the_field(relayd, upstream, field):
    daemon = relayd(relayhost(upstream.port), listen=OPEN)
    with Wire(daemon.port) as client:
        client.ehlo()
        reply = client.message(f"From: a@example.org\r\n{field}\r\n\r\nx\r\n".encode())
        assert reply.code == 550 and field.split(":")[0] in reply
    assert upstream.messages.empty()


def test_a_message_outlives_a_restart_with_its_class_and_tag(relayd, upstream):
    upstream.replies["data"] = ["451 4.3.0 not now"] * 2
    daemon = relayd(relayhost(upstream.port) + "retry: {default: [1h], greylist: [1h]}\n")
    with Wire(daemon.port).ready() as client:
        reply = client.message(b"From: a@example.org\r\nX-Relayd-Class: bulk\r\nX-Relayd-Tag: news\r\n\r\nx\r\n")
    daemon.kill()
    daemon.start()
    shown = daemon.json("show", reply.split()[-1])
    assert shown["class"] == "bulk" and shown["tag"] == "news"


# ---- the same message again


def submit(client, message_id="<one@example.org>", body="body", sender="app@example.org", recipients=("user@example.net",)):
    field = f"Message-ID: {message_id}\r\n" if message_id else ""
    return client.message(f"From: app@example.org\r\n{field}Date: Tue, 25 Nov 2025 10:00:00 +0000\r\n\r\n{body}\r\n".encode(), sender, *recipients)


def test_a_repeated_submission_is_answered_with_the_first_id(relayd, upstream):
    daemon = relayd(relayhost(upstream.port) + "dedupe_window: 10m\n", users=users_line() + users_line("other"))
    with Wire(daemon.port).ready() as client, Wire(daemon.port).ready("other") as other:
        first = submit(client)
        assert re.fullmatch(r"250 2\.0\.0 Ok: queued as \w{13}", first)
        for again in (submit(client), submit(Wire(daemon.port).ready())):
            assert again == f"{first} (resubmission)"
        different = [submit(client, message_id="<two@example.org>"), submit(client, body="other body"), submit(client, sender="b@example.org"),
                     submit(client, recipients=("user@example.net", "more@example.net")), submit(other)]
        # Without a Message-ID of its own, two equal messages are two.
        different += [submit(client, message_id=None), submit(client, message_id=None)]
        assert len({reply for reply in different} | {first}) == 8
        assert not [reply for reply in different if "resubmission" in reply]
    recipients = []
    while len(recipients) < 9:
        recipients += upstream.get().rcpt_tos
    daemon.wait_log("event=resubmitted", count=2)
    assert upstream.messages.empty()


def test_a_client_that_lost_the_answer_asks_again_and_hears_the_id(relayd, upstream):
    """The first connection breaks right behind the final dot."""
    daemon = relayd(relayhost(upstream.port) + "dedupe_window: 10m\n", listen=OPEN)
    ids = set()
    for number in range(20):
        first = Wire(daemon.port)
        first.ehlo()
        first.envelope()
        first.cmd("DATA")
        content = f"From: app@example.org\r\nMessage-ID: <lost{number}@example.org>\r\n\r\nbody\r\n"
        first.send(content + ".\r\n")
        first.abort() if number % 2 else first.close()
        with Wire(daemon.port) as again:
            again.ehlo()
            reply = again.message(content.encode())
            assert reply.code == 250
            ids.add(reply.split()[5])
    assert len(ids) == 20
    names = [line for mail in upstream.get_many(20) for line in mail.head.splitlines() if line.startswith("Message-ID")]
    assert len(set(names)) == 20 and upstream.messages.empty()


def test_without_a_window_and_after_a_restart_each_submission_counts(relayd, upstream):
    """I8"""
    daemon = relayd(relayhost(upstream.port))
    with Wire(daemon.port).ready() as client:
        assert submit(client).split()[5] != submit(client).split()[5]
    daemon.stop()
    daemon.write_config(daemon.config + "dedupe_window: 10m\n")
    replies = []
    for _ in range(2):
        daemon.start()
        with Wire(daemon.port).ready() as client:
            replies.append(submit(client))
        daemon.stop()
    assert replies[0] != replies[1] and "resubmission" not in replies[1]
    daemon.start()
    upstream.get_many(4)

"""Hostile and broken servers (PROMISE.md, tables G and H): the right outcome, and mail for everybody else goes on.

Silence that lasts minutes is tested in virtual time: test/unit/smtp/test_client_hostile.c, test/sim.
"""
import re
import socket
import ssl
import threading

import pytest

from conftest import message, relayhost
from peers import free_udp_port, make_certificate
from scripted import Scripted

RETRY = "retry: {greylist: [1h], throttle: [1h], connect: [1h], dns: [1h], tls: [1h], default: [1h]}\n"


@pytest.fixture
def scripted():
    started = []

    def start(script, **options):
        server = Scripted(script, **options)
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


def answering(**answers):
    """A script that is good but for these."""
    named = {{"BANNER": "BANNER", "DOT": "."}.get(verb, verb): answer for verb, answer in answers.items()}
    return lambda session: session.serve(named)


def close(session):
    raise EOFError


def forever(data, most=64 << 20):
    """Says the same until the client has had enough; more than `most` would be a client without a limit."""

    def say(session):
        said = 0
        while said < most:
            session.say(data)
            said += len(data)
        session.server.commands.append(b"NO LIMIT")
    return say


def deliver_to(relayd, hostile, good, extra=""):
    """A message for the hostile server and one for a good one; the log line of the first, after the second has arrived."""
    daemon = relayd(relayhost(hostile.port, name="hostile") + relayhost(good.port, name="good").split("\n", 1)[1] +
                    "routes:\n  - {to: ['@hostile.example'], via: [hostile]}\n  - {via: [good]}\n" + RETRY + extra)
    with daemon.smtp() as client:
        client.send_message(message("first"), to_addrs=["one@hostile.example"])
        client.send_message(message("second"), to_addrs=["two@good.example"])
    good.get()
    (line,) = daemon.wait_log(r"event=(delivered|deferred|failed) .*rcpt=one@hostile.example")
    assert b"NO LIMIT" not in hostile.commands
    return daemon, line


LINE_64K = b"250 " + b"x" * 65536 + b"\r\n"
DEFERRED = {
    "endless banner": dict(BANNER=forever(b"220-" + b"welcome" * 100 + b"\r\n")),
    "banner without an end of line": dict(BANNER=forever(b"2" * 4096)),
    "banner of garbage": dict(BANNER=b"\x00\xff\x1b[2J garbage\r\n"),
    "banner 421": dict(BANNER=b"421 4.3.2 not now\r\n"),
    "banner 554": dict(BANNER=b"554 5.7.1 we do not like your address\r\n"),
    "banner and nothing": dict(BANNER=close),
    "EHLO reply of a million lines": dict(EHLO=forever(b"250-X" + b"A" * 50 + b"\r\n")),
    "EHLO reply without an end of line": dict(EHLO=forever(b"250-" + b"A" * 4096)),
    "EHLO with different codes": dict(EHLO=b"250-scripted.test\r\n550 no\r\n", HELO=b"550 no\r\n"),
    "EHLO 421": dict(EHLO=b"421 4.3.2 closing\r\n"),
    "EHLO and HELO close": dict(EHLO=close, HELO=close),
    "MAIL 421": dict(MAIL=b"421 4.3.2 closing\r\n"),
    "MAIL answered by garbage": dict(MAIL=b"\x80\x81\xfe\r\n"),
    "MAIL answered by 999": dict(MAIL=b"999 what\r\n"),
    "MAIL answered by 000": dict(MAIL=b"000 what\r\n"),
    "MAIL answered by two digits": dict(MAIL=b"25\r\n"),
    "MAIL answered by an empty line": dict(MAIL=b"\r\n"),
    "MAIL answered by 250x": dict(MAIL=b"250x yes\r\n"),
    "MAIL answered by 354": dict(MAIL=b"354 go\r\n"),
    "MAIL closes": dict(MAIL=close),
    "RCPT 421": dict(RCPT=b"421 4.3.2 closing\r\n"),
    "RCPT with different codes": dict(RCPT=b"250-yes\r\n450 no\r\n"),
    "RCPT closes": dict(RCPT=close),
    "DATA 421": dict(DATA=b"421 4.3.2 closing\r\n"),
    "DATA answered by 250": dict(DATA=b"250 2.0.0 taken already\r\n"),
    "DATA closes": dict(DATA=close),
    "final dot 421": dict(DOT=b"421 4.3.2 closing\r\n"),
    "final dot 450": dict(DOT=b"450 4.3.0 later\r\n"),
    "final dot answered by 354": dict(DOT=b"354 more\r\n"),
    "final dot closes": dict(DOT=close),
    "64 KiB at MAIL, of 4yz": dict(MAIL=b"450 " + b"x" * 65536 + b"\r\n"),
}


@pytest.mark.parametrize("what", DEFERRED)
def test_trouble_is_temporary_and_others_go_on(relayd, scripted, upstream, what):
    """G2, G3, G4, G5, G6, G8, G10, G12, G13, G25, G27, G28"""
    hostile = scripted(answering(**DEFERRED[what]))
    _, line = deliver_to(relayd, hostile, upstream)
    assert "event=deferred" in line, line
    assert line.isprintable()


FINE = {
    "250 without text": dict(MAIL=b"250\r\n", RCPT=b"250 \r\n", DOT=b"250\r\n"),
    "8-bit text": dict(MAIL=b"250 \xff\xfe\x80 ok\r\n", DOT=b"250 2.0.0 \xc3\xa9t\xe9 \x1b[31m\r\n"),
    "64 lines at each command": dict(MAIL=b"250-more\r\n" * 63 + b"250 ok\r\n", DOT=b"250-more\r\n" * 63 + b"250 ok\r\n"),
    "251": dict(RCPT=b"251 2.1.5 will forward\r\n"),
    "contradicting enhanced codes": dict(MAIL=b"250 5.1.1 ok\r\n", RCPT=b"250 4.7.1 ok\r\n", DOT=b"250 5.7.1 taken\r\n"),
    "closes instead of 221": dict(QUIT=close),
    "HELO only": dict(EHLO=b"502 5.5.1 what\r\n"),
}


@pytest.mark.parametrize("what", FINE)
def test_odd_but_fine(relayd, scripted, upstream, what):
    """G5, G8, G11, G23, G29, G36"""
    server = scripted(answering(**FINE[what]))
    _, line = deliver_to(relayd, server, upstream)
    assert "event=delivered" in line, line
    assert line.isprintable()


def test_contradicting_enhanced_codes_of_a_refusal(relayd, scripted, upstream):
    """G36"""
    _, line = deliver_to(relayd, scripted(answering(RCPT=b"550 2.0.0 no such user\r\n")), upstream)
    assert "event=failed" in line and "code=550" in line


def test_a_421_on_a_reused_connection_is_no_attempt(relayd, scripted, upstream):
    """G33"""
    def script(session):
        if session.number > 1:
            session.serve()
        answers = {}
        answers["."] = lambda s: (answers.update(MAIL=b"421 4.4.2 idle too long\r\n"), s.say(b"250 2.0.0 taken\r\n"))
        session.serve(answers)
    server = scripted(script)
    daemon = relayd(relayhost(server.port) + RETRY)
    with daemon.smtp() as client:
        client.send_message(message("first"))
        daemon.wait_log("event=delivered")
        client.send_message(message("second"))
    lines = daemon.wait_log("event=delivered", count=2)
    assert "attempts=1" in lines[1] and server.sessions == 2
    assert not [line for line in daemon.lines if "event=deferred" in line]


# ---- TLS ----

def starttls(session, context=None, after=b""):
    """A server with STARTTLS; `after`: said in clear text behind the 220, in the same packet."""
    session.say(b"220 scripted.test ESMTP\r\n")
    while True:
        command = session.line()
        session.server.commands.append(command)
        verb = command.split(b" ")[0].upper()
        if verb == b"STARTTLS":
            session.say(b"220 go\r\n" + after)
            session.sock = context.wrap_socket(session.sock, server_side=True)
            session.serve({"BANNER": b""})
            return
        session.say(b"250-scripted.test\r\n250 STARTTLS\r\n" if verb == b"EHLO" else b"250 ok\r\n")


def tls_context(folder, **options):
    certificate, key = make_certificate(folder, **options)
    certificate.chmod(0o644)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


@pytest.mark.parametrize("what", ["another name", "unknown authority", "extra data", "no STARTTLS", "garbage"])
def test_a_relayhost_whose_tls_is_wrong_gets_nothing(relayd, scripted, upstream, folder, what):
    """G15, G16, G17, G18"""
    context, certificate = tls_context(folder, ips=("127.0.0.9",) if what == "another name" else ("127.0.0.1",))
    scripts = {"no STARTTLS": lambda s: s.serve(),
               "extra data": lambda s: starttls(s, context, after=b"250 injected\r\n"),
               "garbage": lambda s: s.serve({"EHLO": b"250-scripted.test\r\n250 STARTTLS\r\n",
                                             "STARTTLS": b"220 go\r\nthis is not TLS\r\n" * 50})}
    server = scripted(scripts.get(what, lambda s: starttls(s, context)))
    trust = "" if what == "unknown authority" else f"    ca_file: {certificate}\n"
    daemon = relayd(relayhost(server.port, tls="verify") + trust + RETRY)
    with daemon.smtp() as client:
        client.send_message(message())
    (line,) = daemon.wait_log("event=deferred")
    assert "stage=tls" in line, line
    assert not any(command.upper().startswith((b"MAIL", b"AUTH")) for command in server.commands)
    assert not server.taken


# ---- MX ----

def by_mx(dns_port, port, more=""):
    return f"dns: {{servers: ['127.0.0.1:{dns_port}']}}\ndelivery: {{port: {port}, allow_loopback: true{more}}}\n" + RETRY


def two_hosts(scripted, first, second=None, equal=False):
    """Scripted servers on 127.0.0.2 (preferred) and 127.0.0.3, on the same port, and the zone."""
    better = scripted(first, host="127.0.0.2")
    worse = scripted(second or answering(), host="127.0.0.3", port=better.port)
    zone = f"@ MX 10 mx1\n@ MX {10 if equal else 20} mx2\nmx1 A 127.0.0.2\nmx2 A 127.0.0.3\n"
    return better, worse, zone


MOVES_ON = {
    **{what: DEFERRED[what] for what in (
        "banner 421", "banner 554", "EHLO 421", "EHLO and HELO close", "MAIL 421", "MAIL closes", "RCPT 421", "RCPT closes",
        "DATA 421", "DATA closes", "final dot 421", "final dot 450")},
    "MAIL 451": dict(MAIL=b"451 4.3.0 some trouble here\r\n"),
    "RCPT 451": dict(RCPT=b"451 4.3.0 temporary lookup failure\r\n"),
    "DATA 451": dict(DATA=b"451 4.3.0 queue file write error\r\n"),
}


@pytest.mark.parametrize("what", MOVES_ON)
def test_the_next_mx_at_once(relayd, scripted, dns, what):
    """G9, G10, G12, G27, G33"""
    better, worse, zone = two_hosts(scripted, answering(**MOVES_ON[what]))
    dns.start({"example.net": zone})
    daemon = relayd(by_mx(dns.port, better.port))
    with daemon.smtp() as client:
        client.send_message(message())
    (line,) = daemon.wait_log("event=(delivered|deferred)")
    assert "event=delivered" in line and "attempts=1" in line and "mx2.example.net[127.0.0.3]" in line, line
    assert better.sessions >= 1 and len(worse.taken) == 1


def test_a_host_that_closes_at_the_final_dot_is_not_first_the_next_time(relayd, scripted, dns):
    """G27: it may have taken the message, so nobody else is asked at once; but it hides no other."""
    better, worse, zone = two_hosts(scripted, answering(DOT=close))
    dns.start({"example.net": zone})
    daemon = relayd(by_mx(dns.port, better.port).replace("connect: [1h]", "connect: [1s]"))
    with daemon.smtp() as client:
        client.send_message(message())
    (line,) = daemon.wait_log("event=delivered")
    assert "attempts=2" in line and "mx2.example.net" in line and better.sessions == 1


def test_a_host_that_says_421_for_its_policy_is_not_first_the_next_time(relayd, scripted, dns):
    """It is about us, so its neighbour is not bothered at once."""
    better, worse, zone = two_hosts(scripted, answering(RCPT=b"421 4.7.0 not you, not now\r\n"))
    dns.start({"example.net": zone})
    daemon = relayd(by_mx(dns.port, better.port).replace("default: [1h]", "default: [1s]"))
    with daemon.smtp() as client:
        client.send_message(message())
    (line,) = daemon.wait_log("event=delivered")
    assert "attempts=2" in line and "mx2.example.net" in line and better.sessions == 1


def test_only_who_was_not_taken_moves_on(relayd, scripted, dns):
    def picky(session):
        named = {"bad": b"451 4.3.0 temporary lookup failure\r\n", "gone": b"550 5.1.1 no such user\r\n"}
        session.serve({"RCPT": lambda s: s.say(named.get(s.server.commands[-1].split(b"<")[1].split(b"@")[0].decode(),
                                                         b"250 ok\r\n"))})
    better, worse, zone = two_hosts(scripted, picky)
    dns.start({"example.net": zone})
    daemon = relayd(by_mx(dns.port, better.port))
    with daemon.smtp() as client:
        client.send_message(message(), from_addr="", to_addrs=["good@example.net", "bad@example.net", "gone@example.net"])
    daemon.wait_log(r"event=delivered .*rcpt=good@.*attempts=1", count=1)
    daemon.wait_log(r"event=failed .*rcpt=gone@.*code=550", count=1)
    (line,) = daemon.wait_log(r"event=delivered .*rcpt=bad@")
    assert "mx2.example.net" in line and "attempts=1" in line
    assert len(better.taken) == 1 and len(worse.taken) == 1
    assert [command for command in worse.commands if command.startswith(b"RCPT")] == [b"RCPT TO:<bad@example.net>"]


def test_when_no_host_takes_it_each_was_asked_once_and_the_domain_rests(relayd, scripted, dns):
    """G33: 421 at each RCPT, for ever: no more is tried than it takes to see that it is not the messages."""
    refusing = answering(RCPT=b"421 4.3.2 closing\r\n")
    better, worse, zone = two_hosts(scripted, refusing, refusing)
    dns.start({"example.net": zone})
    daemon = relayd(by_mx(dns.port, better.port, ", per_destination: 1"))
    with daemon.smtp() as client:
        client.send_message(message())
        (line,) = daemon.wait_log("event=deferred")
        assert "code=421" in line and "attempts=1" in line and (better.sessions, worse.sessions) == (1, 1)
        for count in range(2, 40):
            client.send_message(message())
    daemon.wait_log("event=destination_trouble .*code=421 .*stage=rcpt")
    daemon.wait_queued(39)
    assert better.sessions <= 10 and worse.sessions <= 10


def test_what_is_deleted_on_its_way_to_the_next_mx_is_not_sent_there(relayd, scripted, dns):
    asked, deleted = threading.Event(), threading.Event()

    def refuse_late(session):
        asked.set()
        assert deleted.wait(30)
        session.say(b"421 4.3.2 not now\r\n")

    better, worse, zone = two_hosts(scripted, answering(RCPT=refuse_late))
    dns.start({"example.net": zone})
    daemon = relayd(by_mx(dns.port, better.port))
    with daemon.smtp() as client:
        client.send_message(message())
    assert asked.wait(30)
    daemon.ctl("delete", daemon.json("queue")[0]["id"])
    deleted.set()
    daemon.wait_log("event=deleted .*outcome=deleted")
    assert not any(command.startswith(b"MAIL") for command in worse.commands) and not worse.taken


@pytest.mark.parametrize("verb", ["RCPT", "DOT"])
def test_a_greylister_is_not_asked_at_its_other_mx(relayd, scripted, dns, verb):
    better, worse, zone = two_hosts(scripted, answering(**{verb: b"450 4.7.1 Greylisted, come back later\r\n"}))
    dns.start({"example.net": zone})
    daemon = relayd(by_mx(dns.port, better.port))
    with daemon.smtp() as client:
        client.send_message(message())
    daemon.wait_log("event=deferred .*class=greylist")
    assert worse.sessions == 0


def test_who_has_had_too_much_of_us_is_not_asked_at_its_other_mx(relayd, scripted, dns):
    greeting = b"421 4.7.0 [TSS04] Messages from 127.0.0.1 temporarily deferred due to unexpected volume\r\n"
    better, worse, zone = two_hosts(scripted, answering(BANNER=greeting))
    dns.start({"example.net": zone})
    daemon = relayd(by_mx(dns.port, better.port))
    with daemon.smtp() as client:
        client.send_message(message())
    daemon.wait_log("event=deferred .*class=throttle")
    assert better.sessions == 1 and worse.sessions == 0


def test_a_host_that_failed_is_tried_last(relayd, scripted, dns):
    better, worse, zone = two_hosts(scripted, answering(BANNER=b"421 4.3.2 not now\r\n"))
    dns.start({"example.net": zone, "example.com": zone})
    daemon = relayd(by_mx(dns.port, better.port))
    with daemon.smtp() as client:
        client.send_message(message(), to_addrs=["one@example.net"])
        daemon.wait_log("event=delivered")
        client.send_message(message(), to_addrs=["two@example.com"])
    daemon.wait_log("event=delivered", count=2)
    assert better.sessions == 1 and len(worse.taken) == 2


def test_domains_share_a_connection_to_their_mx(relayd, scripted, dns):
    server = scripted(answering(), host="127.0.0.2")
    hosts = {"hosting.example": "mx A 127.0.0.2\n"}
    for name in ("example.net", "example.com", "example.org"):
        hosts[name] = "@ MX 10 mx.hosting.example.\n"
    dns.start(hosts)
    daemon = relayd(by_mx(dns.port, server.port))
    with daemon.smtp() as client:
        for count, name in enumerate(("example.net", "example.com", "example.org"), 1):
            client.send_message(message(), to_addrs=[f"user@{name}"])
            daemon.wait_log("event=delivered", count=count)
    assert server.sessions == 1 and len(server.taken) == 3


def test_a_shared_connection_leads_to_no_other_host_of_its_former_domain(relayd, scripted, dns):
    """What the shared host refuses of one domain must not go to a host of another."""
    def refuse_the_second(session):
        answers = {}
        answers["."] = lambda s: (answers.update(MAIL=b"451 4.3.0 some trouble here\r\n"), s.say(b"250 2.0.0 taken\r\n"))
        session.serve(answers)
    shared, other, zone = two_hosts(scripted, refuse_the_second)
    dns.start({"example.net": zone, "example.com": "@ MX 10 mx1.example.net.\n"})
    daemon = relayd(by_mx(dns.port, shared.port))
    with daemon.smtp() as client:
        client.send_message(message(), to_addrs=["one@example.net"])
        daemon.wait_log("event=delivered")
        client.send_message(message(), to_addrs=["two@example.com"])
    daemon.wait_log("event=(deferred|delivered) .*rcpt=two@example.com")
    assert shared.sessions == 1 and other.sessions == 0


def test_a_silent_address_costs_300_ms(relayd, scripted, dns):
    """The first address answers no SYN: its backlog is full. The next one of the same preference is not kept waiting for
    the connection's time-out, which is longer than this test waits."""
    full = socket.socket()
    full.bind(("127.0.0.2", 0))
    full.listen(0)
    port = full.getsockname()[1]
    fill = []
    for _ in range(4):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.2", port))
        fill.append(sock)
    server = scripted(answering(), host="127.0.0.3", port=port)
    dns.start({"example.net": "@ MX 10 mx\nmx A 127.0.0.2\nmx A 127.0.0.3\n"})
    daemon = relayd(by_mx(dns.port, port, ", connect_timeout: 600s"))
    with daemon.smtp() as client:
        client.send_message(message())
    (line,) = daemon.wait_log("event=(delivered|deferred)")
    assert "event=delivered" in line and len(server.taken) == 1
    for sock in fill + [full]:
        sock.close()


def test_all_hosts_say_521(relayd, scripted, dns):
    """G9"""
    better, worse, zone = two_hosts(scripted, answering(BANNER=b"521 we take no mail\r\n"),
                                    answering(BANNER=b"521 neither do we\r\n"))
    dns.start({"example.net": zone})
    daemon = relayd(by_mx(dns.port, better.port))
    with daemon.smtp() as client:
        client.send_message(message(sender="app@example.org"), from_addr="")
    (line,) = daemon.wait_log("event=(failed|deferred)")
    assert "event=failed" in line and "code=521" in line and "enhanced=5.3.2" in line, line
    assert better.sessions == 1 and worse.sessions == 1


def test_one_host_says_521_and_the_other_is_away(relayd, scripted, dns):
    """G9"""
    better, worse, zone = two_hosts(scripted, answering(BANNER=b"421 4.3.2 not now\r\n"),
                                    answering(BANNER=b"521 we take no mail\r\n"))
    dns.start({"example.net": zone})
    daemon = relayd(by_mx(dns.port, better.port))
    with daemon.smtp() as client:
        client.send_message(message())
    daemon.wait_log("event=deferred")


def test_ourselves_by_name(relayd, scripted, dns):
    """G35"""
    server = scripted(answering(BANNER=b"220 Relay.Example.ORG ESMTP\r\n", EHLO=b"250 relay.example.org\r\n"), host="127.0.0.2")
    dns.start({"example.net": "@ MX 10 mx\nmx A 127.0.0.2\n"})
    daemon = relayd(by_mx(dns.port, server.port))
    with daemon.smtp() as client:
        client.send_message(message(), from_addr="")
    (line,) = daemon.wait_log("event=(failed|deferred)")
    assert "event=failed" in line and "enhanced=5.4.6" in line and "loops back" in line
    assert not any(command.upper().startswith(b"MAIL") for command in server.commands)


@pytest.mark.parametrize("record", ["localhost.", "here"])
def test_mx_to_loopback_is_a_loop(relayd, dns, record):
    """H5"""
    dns.start({"example.net": f"@ MX 10 {record}\nhere A 127.0.0.1\n", "localhost": "@ A 127.0.0.1\n"})
    daemon = relayd(by_mx(dns.port, 25).replace("allow_loopback: true", "allow_loopback: false"))
    with daemon.smtp() as client:
        client.send_message(message(), from_addr="")
    (line,) = daemon.wait_log("event=(failed|deferred)")
    assert "event=failed" in line and "enhanced=5.4.6" in line, line


# ---- DNS ----

class DnsPeer:
    """Answers each UDP question by `answer(question)`: bytes, or None for silence. TCP is refused."""

    def __init__(self, answer):
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        self.questions = 0
        threading.Thread(target=self._run, args=(answer,), daemon=True).start()

    def _run(self, answer):
        while True:
            try:
                question, peer = self.sock.recvfrom(4096)
            except OSError:
                return
            self.questions += 1
            reply = answer(question)
            if reply is not None:
                self.sock.sendto(reply, peer)

    def stop(self):
        self.sock.close()


def header(question, flags, answers=0):
    return question[:2] + flags.to_bytes(2, "big") + b"\0\1" + answers.to_bytes(2, "big") + b"\0\0\0\0"


def body(question):
    end = 12
    while question[end]:
        end += question[end] + 1
    return question[12:end + 5]


POINTER_LOOP = b"\xc0\x0c\0\x0f\0\1\0\0\0\x3c\0\x04\0\x0a\xc0\x2f"  # behind hostile.example: to itself
DNS = {
    "SERVFAIL": lambda q: header(q, 0x8182) + body(q),
    "REFUSED": lambda q: header(q, 0x8185) + body(q),
    "truncated": lambda q: header(q, 0x8380) + body(q),
    "garbage": lambda q: q[:2] + b"\xff" * 200,
    "short": lambda q: q[:5],
    "pointer loop": lambda q: header(q, 0x8180, 1) + body(q) + POINTER_LOOP,
    "too long record": lambda q: header(q, 0x8180, 1) + body(q) + b"\xc0\x0c\0\x0f\0\1\0\0\0\x3c\xff\xff\0\x0a",
}


@pytest.mark.parametrize("what", DNS)
def test_dns_in_trouble_is_temporary(relayd, upstream, what):
    """H13, H14, H15"""
    resolver = DnsPeer(DNS[what])
    daemon = relayd(relayhost(upstream.port) + "routes:\n  - {to: ['@hostile.example'], via: [mx]}\n  - {via: [main]}\n" +
                    f"dns: {{servers: ['127.0.0.1:{resolver.port}']}}\n" + RETRY)
    with daemon.smtp() as client:
        client.send_message(message("first"), to_addrs=["one@hostile.example"])
        client.send_message(message("second"), to_addrs=["two@good.example"])
    upstream.get()
    (line,) = daemon.wait_log("event=(deferred|failed) .*rcpt=one@hostile.example")
    assert "event=deferred" in line and "class=dns" in line, line
    assert resolver.questions > 0
    resolver.stop()


def test_a_domain_that_does_not_exist(relayd, dns):
    """H11"""
    dns.start({"example": ""})
    daemon = relayd(by_mx(dns.port, 25))
    with daemon.smtp() as client:
        client.send_message(message(), to_addrs=["one@nobody.example"], from_addr="")
    (line,) = daemon.wait_log("event=(failed|deferred)")
    assert "event=failed" in line and "enhanced=5.1.2" in line


def test_no_resolver_at_all_is_temporary(relayd):
    """H13"""
    daemon = relayd(by_mx(free_udp_port(), 25))
    with daemon.smtp() as client:
        client.send_message(message())
    (line,) = daemon.wait_log("event=(failed|deferred)")
    assert "event=deferred" in line and "class=dns" in line
    assert re.search(r"enhanced=4\.4\.3", line)


def test_silent_hosts_of_many_domains_hold_up_no_other(relayd, scripted, dns):
    """G1: the host says nothing at all, and more domains name it than there may be connections."""
    def say_nothing(session):
        session.sock.settimeout(None)
        session.until_closed()

    silent = scripted(say_nothing, host="127.0.0.2")
    good = scripted(answering(), host="127.0.0.3", port=silent.port)
    dns.start({"trap.example": "* MX 10 mx\nmx A 127.0.0.2\n", "good.example": "@ MX 10 mx\nmx A 127.0.0.3\n"})
    daemon = relayd(by_mx(dns.port, silent.port, ", connections: 5"))
    with daemon.smtp() as client:
        for n in range(8):
            client.send_message(message(to=f"user@d{n}.trap.example"))
        client.send_message(message(to="user@good.example"))
    daemon.wait_log("event=delivered .*rcpt=user@good.example")
    assert len(good.taken) == 1
    (line,) = daemon.wait_log("event=deferred .*rcpt=user@d0.trap.example")
    assert "class=connect" in line and "other domains wait" in line

"""Delivery to a receiving server as it is in the world: Postfix, and postgrey that makes strangers wait."""
import email
import email.policy
import os
import re

import pytest

from conftest import message, relayhost
from receivers import Postfix, Postgrey
from secure_peers import Authority
from test_dkim import judge, keys  # noqa: F401 (a fixture)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="Postfix is started by root only")

ZONES = {name: "@ MX 10 mx1.example.net.\nmx1 A 127.0.0.2\n" for name in ("example.net", "example.org")}
BODY = "Hello\n.a dot\n..\n" + "words and more words\n" * 3000 + "y" * 950 + "\n\nthe end\n"


@pytest.fixture
def make(folder):
    """make(Postfix or Postgrey, ...) -> a started one; all are ended."""
    started = []

    def start(kind, *arguments, **options):
        started.append(kind(folder / kind.__name__.lower(), *arguments, **options))
        return started[-1].start()

    yield start
    for program in reversed(started):
        program.end()


@pytest.fixture
def by_mx(relayd, dns, keys):  # noqa: F811
    """by_mx(postfix, extra yaml) -> relayd that signs and finds this Postfix in the DNS."""
    dns.start(ZONES)

    def start(postfix, extra=""):
        return relayd(f"dns: {{servers: ['127.0.0.1:{dns.port}']}}\n"
                      f"delivery: {{port: {postfix.port}, allow_loopback: true}}\n" + keys[0] + extra)

    return start


def send(daemon, mail, to="user@example.net", sender="app@example.org", options=()):
    """`mail`: a message or its octets."""
    octets = mail if isinstance(mail, bytes) else mail.as_bytes(policy=email.policy.SMTP)
    with daemon.smtp() as client:
        client.sendmail(sender, [to] if isinstance(to, str) else to, octets, mail_options=list(options))


def body_of(octets):
    return octets.split(b"\r\n\r\n", 1)[1]


def content_of(mail):
    return body_of(mail.as_bytes(policy=email.policy.SMTP))


def commands(postfix, count=1):
    """What Postfix counted in each connection that has ended: {verb: count}."""
    lines = postfix.wait_log(r"smtpd\[\d+\]: disconnect from", count)
    return [dict(re.findall(r"(\w+)=(\S+)", line)) for line in lines]


def report_of(octets):
    """(whole message, the fields of each recipient) of a DSN."""
    whole = email.message_from_bytes(octets, policy=email.policy.default)
    assert whole.get_content_type() == "multipart/report"
    return whole, list(whole.iter_parts())[1].get_payload()[1:]


def test_postgrey(make, by_mx, keys):  # noqa: F811
    """Made to wait once, through in the next attempt; then the client is known, and anybody's mail goes at once."""
    postgrey = make(Postgrey, delay=2, known_after=1)
    postfix = make(Postfix, ("user@example.net", "other@example.net"),
                   smtpd_recipient_restrictions=f"check_policy_service inet:127.0.0.1:{postgrey.port}")
    daemon = by_mx(postfix, "retry: {greylist: [3s]}\n")
    mail = message("the first", body=BODY)
    send(daemon, mail)
    daemon.wait_log(r"event=deferred .*rcpt=user@example\.net .*class=greylist code=450 .*attempts=1 ")
    daemon.wait_log(r"event=delivered .*rcpt=user@example\.net .*attempts=2 ")
    [arrived] = postfix.mail("user@example.net")
    assert re.search(rb"^X-Greylist: delayed \d+ seconds by postgrey", arrived, re.M)
    assert body_of(arrived) == content_of(mail) and judge(arrived, keys[1]) == [True, True]
    send(daemon, message("the next", sender="second@example.org"), to="other@example.net", sender="second@example.org")
    [arrived] = postfix.mail("other@example.net")
    assert b"Subject: the next" in arrived and b"X-Greylist: delayed" not in arrived
    daemon.wait_log(r"event=delivered .*rcpt=other@example\.net ")
    assert len([line for line in daemon.lines if "event=deferred" in line]) == 1
    actions = [re.search(r"action=(\w+), reason=([^,]+)", line).groups() for line in postgrey.wait_log("action=", 3)]
    assert actions == [("greylist", "new"), ("pass", "triplet found"), ("pass", "client AWL")]


@pytest.mark.parametrize("discarded, used", [("", "bdat"), ("chunking", "data"), ("chunking, pipelining", "data"),
                                             ("chunking, pipelining, dsn, size, enhancedstatuscodes", "data")])
def test_whole_and_signed(make, by_mx, keys, discarded, used):  # noqa: F811
    """By what Postfix offers: BDAT or DATA, one flight or command by command."""
    postfix = make(Postfix, smtpd_discard_ehlo_keywords=discarded)
    daemon = by_mx(postfix)
    mail = message(body=BODY)
    send(daemon, mail)
    [arrived] = postfix.mail("user@example.net")
    assert body_of(arrived) == content_of(mail) and judge(arrived, keys[1]) == [True, True]
    assert b"Return-Path: <app@example.org>\r\n" in arrived
    daemon.wait_log(r"event=delivered .*host=mx1\.example\.net\[127\.0\.0\.2\]")
    daemon.stop()
    [counted] = commands(postfix)
    assert counted.get(used) == "1" and {"bdat": "data", "data": "bdat"}[used] not in counted
    assert (counted["ehlo"], counted["mail"], counted["rcpt"], counted["quit"]) == ("1", "1", "1", "1")


def test_many_messages_on_few_connections(make, by_mx, keys):  # noqa: F811
    postfix = make(Postfix)
    daemon = by_mx(postfix)
    for number in range(30):
        send(daemon, message(f"number {number}", body=f"{number}\n" * 500))
    arrived = postfix.mail("user@example.net", 30)
    assert {re.search(rb"Subject: number (\d+)", text).group(1) for text in arrived} == {b"%d" % n for n in range(30)}
    assert all(judge(text, keys[1]) == [True, True] for text in arrived)
    daemon.wait_log(r"event=delivered ", count=30)
    daemon.stop()
    connections = len([line for line in postfix.lines if "]: connect from" in line])
    counted = commands(postfix, connections)
    assert connections < 30 and sum(int(each["mail"]) for each in counted) == 30


def test_verified_tls(relayd, make, folder):
    """To a relayhost that takes nothing in clear text, by an authority of its own."""
    issued = Authority(folder).issue("127.0.0.2")
    postfix = make(Postfix, smtpd_tls_security_level="encrypt", smtpd_tls_cert_file=issued.chain,
                   smtpd_tls_key_file=issued.key, smtpd_tls_loglevel="1", smtpd_tls_received_header="yes")
    daemon = relayd(relayhost(postfix.port, "127.0.0.2", tls="verify", ca_file=folder / "authority.pem"))
    mail = message(body=BODY)
    send(daemon, mail)
    [arrived] = postfix.mail("user@example.net")
    assert body_of(arrived) == content_of(mail) and b"(using TLSv1.3 with cipher" in arrived
    daemon.stop()
    [counted] = commands(postfix)
    assert (counted["starttls"], counted["ehlo"], counted["bdat"]) == ("1", "2", "1")


def test_opportunistic_tls(make, by_mx, folder):
    """By MX, with a certificate that nobody vouches for."""
    issued = Authority(folder).issue("elsewhere.example")
    postfix = make(Postfix, smtpd_tls_security_level="may", smtpd_tls_cert_file=issued.chain,
                   smtpd_tls_key_file=issued.key, smtpd_tls_received_header="yes")
    daemon = by_mx(postfix)
    send(daemon, message())
    [arrived] = postfix.mail("user@example.net")
    assert b"(using TLSv1.3 with cipher" in arrived


@pytest.mark.parametrize("discarded", ["", "size"])
def test_too_large(make, by_mx, discarded):
    """Whether Postfix says its limit with EHLO or only when it is reached: the sender is told, and has the header back."""
    postfix = make(Postfix, message_size_limit="40000", smtpd_discard_ehlo_keywords=discarded)
    daemon = by_mx(postfix)
    send(daemon, message("too large", body=BODY))
    [report] = postfix.mail("app@example.org")
    whole, [recipient] = report_of(report)
    assert (recipient["Action"], recipient["Status"]) == ("failed", "5.3.4")
    assert b"Subject: too large" in report and len(report) < 40000
    assert not (postfix.folder / "mail" / postfix.place("user@example.net")).exists()
    send(daemon, message("small enough"))
    assert b"Subject: small enough" in postfix.mail("user@example.net")[0]


def test_each_recipient_has_its_own_outcome(make, by_mx, keys):  # noqa: F811
    """Two are taken, two are unknown, one's mailbox is full for now: one message, one DSN."""
    postfix = make(Postfix, ("user@example.net", "app@example.org", "second@example.net", "full@example.net"),
                   smtpd_recipient_restrictions="check_recipient_access inline:{ "
                   "{ full@example.net = 452 4.2.2 The mailbox is full } }")
    daemon = by_mx(postfix)
    people = [f"{name}@example.net" for name in ("user", "gone", "full", "second", "away")]
    send(daemon, message("to five", body=BODY), to=people)
    for name in ("user@example.net", "second@example.net"):
        [arrived] = postfix.mail(name)
        assert body_of(arrived) == content_of(message(body=BODY)) and judge(arrived, keys[1]) == [True, True]
        daemon.wait_log(rf"event=delivered .*rcpt={name} ")
    daemon.wait_log(r"event=deferred .*rcpt=full@example\.net .*class=mailbox")
    daemon.wait_log(r"event=bounce .*kind=failed recipients=2 ")
    told = {}
    for recipient in report_of(postfix.mail("app@example.org")[0])[1]:
        told[recipient["Final-Recipient"]] = (recipient["Action"], recipient["Status"])
        assert "User unknown in virtual mailbox table" in recipient["Diagnostic-Code"]
    assert told == {f"rfc822; {name}@example.net": ("failed", "5.1.1") for name in ("gone", "away")}


def test_eight_bits(make, by_mx, keys):  # noqa: F811
    """Octets above 127 arrive as they were sent."""
    postfix = make(Postfix)
    daemon = by_mx(postfix)
    body = "Grüße, 世界\r\n".encode() + bytes(range(128, 256)) + b"\r\n"
    send(daemon, b"From: app@example.org\r\nTo: user@example.net\r\nSubject: eight\r\nMIME-Version: 1.0\r\n"
                 b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + body,
         options=["BODY=8BITMIME"])
    [arrived] = postfix.mail("user@example.net")
    assert body_of(arrived) == body and judge(arrived, keys[1]) == [True, True]


def test_eight_bits_to_a_server_without(make, by_mx):
    """A host that does not offer 8BITMIME is not sent 8 bits: the sender is told."""
    postfix = make(Postfix, smtpd_discard_ehlo_keywords="8bitmime, smtputf8")
    daemon = by_mx(postfix)
    send(daemon, b"From: app@example.org\r\nSubject: eight\r\n\r\n\xc3\xa4\r\n", options=["BODY=8BITMIME"])
    _, [recipient] = report_of(postfix.mail("app@example.org")[0])
    assert recipient["Status"] == "5.6.3"


def test_addresses_in_utf8(make, by_mx, keys):  # noqa: F811
    """An address and a header in UTF-8 to a server that offers SMTPUTF8."""
    postfix = make(Postfix, ("jürgen@example.net", "app@example.org"))
    daemon = by_mx(postfix)
    text = "From: Jürgen <app@example.org>\r\nTo: jürgen@example.net\r\nSubject: Grüße\r\n\r\nüber\r\n"
    with daemon.smtp() as client:
        client.ehlo("app.test")
        client.mail("app@example.org", ["SMTPUTF8", "BODY=8BITMIME"])
        client.command_encoding = "utf-8"
        assert client.rcpt("jürgen@example.net")[0] == 250
        assert client.data(text.encode())[0] == 250
    [arrived] = postfix.mail("jürgen@example.net")
    assert "Subject: Grüße\r\n".encode() in arrived and body_of(arrived) == "über\r\n".encode()
    assert judge(arrived, keys[1]) == [True, True]


def test_addresses_in_utf8_to_a_server_without(make, by_mx):
    postfix = make(Postfix, smtpd_discard_ehlo_keywords="smtputf8")
    daemon = by_mx(postfix)
    with daemon.smtp() as client:
        client.mail("app@example.org", ["SMTPUTF8"])
        client.command_encoding = "utf-8"
        assert client.rcpt("jürgen@example.net")[0] == 250
        assert client.data(b"From: app@example.org\r\nSubject: plain\r\n\r\nplain\r\n")[0] == 250
    whole = email.message_from_bytes(postfix.mail("app@example.org")[0], policy=email.policy.default)
    status = list(whole.iter_parts())[1]
    assert "5.6.7" in str(status)

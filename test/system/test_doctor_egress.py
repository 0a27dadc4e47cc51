"""relayctl doctor on how receivers see us: port 25, EHLO name, PTR, blocklists, SPF. Everything is on loopback; a receiver
says in its EHLO reply what address we come from."""
import pytest

from doctor import Doctor
from peers import free_port
from scripted import Scripted

SEEN = "192.0.2.10"
RECEIVERS = ("gmail.com", "outlook.com", "yahoo.com")


@pytest.fixture
def receiver():
    """A receiver that sees us come from SEEN; `say` replaces what it says."""
    say = {}

    def script(session):
        session.serve({"EHLO": f"250-mx.test at your service, [{SEEN}]\r\n250 PIPELINING\r\n".encode(), **say})

    server = Scripted(script)
    server.say = say
    yield server
    server.stop()


@pytest.fixture
def doctor(folder, dns, receiver):
    """start(zones) starts DNS; the three large receivers are `receiver`."""
    doctor = Doctor(folder, dns)

    def start(zones=None, receivers=None):
        mx = {name: "@ MX 10 mx\nmx A 127.0.0.1\n" for name in RECEIVERS}
        dns.start({**mx, **(receivers or {}), "example.org": "relay A 192.0.2.10\n",
                   "2.0.192.in-addr.arpa": "10 PTR relay.example.org.\n", **(zones or {})})

    def look(*arguments, yaml="", delivery="", port=receiver.port):
        yaml = f"delivery: {{port: {port}, ip: '4', allow_loopback: true{delivery}}}\n" + yaml
        return doctor("example.org", *arguments, yaml=yaml)

    doctor.start, doctor.look = start, look
    return doctor


# ---- port 25


def test_port25_is_open(doctor, receiver):
    doctor.start()
    _, found = doctor.look()
    assert found.one("port25", "IPv4")["level"] == "ok"
    assert any(command.startswith(b"EHLO relay.example.org") for command in receiver.commands)


def test_port25_is_closed(doctor):
    doctor.start()
    code, found = doctor.look(port=free_port())
    finding = found.one("port25")
    assert code == 1 and finding["level"] == "fail" and "refused" in finding["found"] and "relayhost" in finding["advice"]


def test_port25_of_one_receiver_is_closed(doctor):
    doctor.start(receivers={"outlook.com": "@ MX 10 mx\nmx A 127.0.0.9\n"})
    _, found = doctor.look()
    assert found.one("port25")["level"] == "warn" and "outlook.com" in found.one("port25")["found"]


def test_receivers_that_refuse_us_say_why(doctor, receiver):
    doctor.start()
    receiver.say["BANNER"] = b"554 5.7.1 your address is on a blocklist\r\n"
    _, found = doctor.look()
    assert found.one("port25")["level"] == "fail" and "554 5.7.1 your address is on a" in found.one("port25")["found"]


def test_a_receiver_that_says_nothing(doctor, receiver):
    doctor.start()
    receiver.say["BANNER"] = lambda session: session.until_closed()
    _, found = doctor.look()
    assert found.one("port25")["level"] == "fail" and "nobody speaks SMTP" in found.one("port25")["found"]


def test_delivery_by_relayhost_needs_no_port25(doctor):
    doctor.start()
    _, found = doctor.look(yaml="relayhosts: {main: {address: '127.0.0.1:9', tls: none}}\n")
    assert not found.of("port25") and not found.of("helo") and not found.of("ptr")


# ---- our names


def test_helo_and_ptr_as_they_should_be(doctor):
    doctor.start()
    _, found = doctor.look()
    assert found.one("helo", "relay.example.org")["level"] == "ok" and found.one("ptr", SEEN)["level"] == "ok"


@pytest.mark.parametrize("zone, words, advice", [
    ("relay A 192.0.2.99\n", "another machine", f"relay.example.org. IN A {SEEN}"),
    ("relay TXT hello\n", "no public address", f"relay.example.org. IN A {SEEN}"),
    ("relay A 10.0.0.1\n", "no public address", f"relay.example.org. IN A {SEEN}"),
])
def test_helo_name_that_is_not_ours(doctor, zone, words, advice):
    doctor.start({"example.org": zone})
    _, found = doctor.look()
    assert found.one("helo")["level"] == "fail" and words in found.one("helo")["found"]
    assert advice in found.one("helo")["advice"]


def test_helo_name_that_is_none(doctor):
    doctor.start()
    doctor.base["hostname"] = "localhost"
    _, found = doctor.look()
    assert found.one("helo")["level"] == "fail" and "no full name" in found.one("helo")["found"]


@pytest.mark.parametrize("reverse, forward, level, words", [
    ("", "", "fail", "no name"),
    ("10 PTR host.example.org.\n", "host A 192.0.2.77\n", "fail", "not its address"),
    ("10 PTR host.example.org.\n", "host A 192.0.2.10\n", "warn", "EHLO says relay.example.org"),
    ("10 PTR host.example.org.\n10 PTR relay.example.org.\n", "host A 192.0.2.77\n", "ok", "relay.example.org"),
])
def test_ptr(doctor, reverse, forward, level, words):
    doctor.start({"example.org": "relay A 192.0.2.10\n" + forward, "2.0.192.in-addr.arpa": reverse})
    _, found = doctor.look()
    assert found.one("ptr", SEEN)["level"] == level and words in found.one("ptr")["found"]
    assert level == "ok" or "relay.example.org" in found.one("ptr")["advice"]


@pytest.mark.parametrize("entry, level, words", [
    ("", "ok", "not listed"), ("10.2.0.192 A 127.0.0.4\n", "warn", "is listed (127.0.0.4)"),
    ("10.2.0.192 A 127.255.255.254\n", "warn", "does not answer our resolver")])
def test_blocklist(doctor, entry, level, words):
    doctor.start({"bl.test": entry, "other.test": ""})
    _, found = doctor.look("--blocklist", "bl.test, other.test")
    finding = found.one("blocklist", f"{SEEN} at bl.test")
    assert finding["level"] == level and words in finding["found"]
    assert found.one("blocklist", f"{SEEN} at other.test")["level"] == "ok"
    assert not doctor.look()[1].of("blocklist")


# ---- SPF


@pytest.mark.parametrize("spf, level, words, record", [
    ("v=spf1 ip4:192.0.2.0/28 -all", "ok", "pass for 192.0.2.10 (as others see us)", None),
    ("v=spf1 a:relay.example.org -all", "ok", "1 of 10 lookups", None),
    ("v=spf1 -all", "fail", "fail for", "v=spf1 ip4:192.0.2.10 -all"),
    ("v=spf1 mx include:gmail.com ~all", "fail", "permerror", None),
    ("v=spf1 ip4:192.0.2.77 ~all", "warn", "softfail", "v=spf1 ip4:192.0.2.77 ip4:192.0.2.10 ~all"),
    ("v=spf1 ip4:192.0.2.77", "warn", "neutral", "v=spf1 ip4:192.0.2.77 ip4:192.0.2.10"),
    ("v=spf1 redirect=_spf.example.org", "warn", "neutral", "v=spf1 ip4:192.0.2.10 redirect=_spf.example.org"),
    ("unrelated", "warn", "no SPF record", "v=spf1 ip4:192.0.2.10 ~all"),
    ("v=spf1 hello -all", "fail", "'hello'", None),
])
def test_spf_of_direct_mail(doctor, spf, level, words, record):
    doctor.start({"example.org": f'relay A 192.0.2.10\n@ TXT "{spf}"\n_spf TXT "v=spf1 ?all"\n'})
    _, found = doctor.look()
    finding = found.one("spf", "example.org")
    assert finding["level"] == level and words in finding["found"]
    assert finding.get("record") == (record and {"name": "example.org", "type": "TXT", "value": record})


def test_two_spf_records(doctor):
    doctor.start({"example.org": 'relay A 192.0.2.10\n@ TXT "v=spf1 -all"\n@ TXT "v=spf1 +all"\n'})
    _, found = doctor.look()
    assert found.one("spf")["level"] == "fail" and "2 SPF records" in found.one("spf")["found"]


@pytest.mark.parametrize("spf, level, words", [
    ("v=spf1 ip4:127.0.0.9 -all", "ok", "pass for relayhost main"), ("v=spf1 -all", "info", "does not name"),
    ("unrelated", "warn", "no SPF record"), ("v=spf1 hello", "fail", "permerror")])
def test_spf_of_mail_through_a_host_on_this_network(doctor, spf, level, words):
    doctor.start({"example.org": f'smart A 127.0.0.9\n@ TXT "{spf}"\n'})
    _, found = doctor.look(yaml="relayhosts: {main: {address: 'smart.example.org:25', tls: none}}\n")
    assert found.one("spf")["level"] == level and words in found.one("spf")["found"]
    assert level == "ok" or "addresses that main" in found.one("spf")["advice"]


RELAYHOST = "relayhosts: {{main: {{address: '{}:587', username: a, password_file: /etc/hostname}}}}\n"


@pytest.mark.parametrize("host, spf, level, words, record", [
    ("smtp.mailgun.org", "v=spf1 include:mailgun.org ~all", "ok", "includes mailgun.org", None),
    ("SMTP.Mailgun.org", "v=spf1 include:mailgun.org ~all", "ok", "includes mailgun.org", None),
    ("smtp.mailgun.org", "v=spf1 include:nested.example.org ~all", "ok", "includes mailgun.org", None),
    ("smtp.mailgun.org", "v=spf1 mx ~all", "warn", "does not include", "v=spf1 mx include:mailgun.org ~all"),
    ("email-smtp.eu-west-1.amazonaws.com", "v=spf1 ~all", "info", "amazonses.com", "v=spf1 include:amazonses.com ~all"),
    ("smart.example.org", "v=spf1 ip4:192.0.2.25 -all", "ok", "pass for relayhost main", None),
    ("smart.example.org", "v=spf1 ip4:192.0.2.26 -all", "info", "does not name relayhost main", None),
])
def test_spf_of_mail_through_a_relayhost(doctor, host, spf, level, words, record):
    doctor.start({"example.org": f'smart A 192.0.2.25\n@ TXT "{spf}"\nnested TXT "v=spf1 include:mailgun.org ?all"\n',
                  "mailgun.org": '@ TXT "v=spf1 ip4:192.0.2.128/25 ~all"\nsmtp A 127.0.0.9\n',
                  "amazonaws.com": "email-smtp.eu-west-1 A 127.0.0.9\n"})
    _, found = doctor.look(yaml=RELAYHOST.format(host), delivery=", connect_timeout: 1s")
    finding = found.one("spf", "example.org")
    assert finding["level"] == level and words in finding["found"], finding
    assert finding.get("record", {}).get("value") == record

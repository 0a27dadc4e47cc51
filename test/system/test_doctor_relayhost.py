"""relayctl doctor at relayhosts: real SMTP servers that let it in, or do not. No mail is ever sent."""
import pytest

from doctor import Doctor
from peers import free_port
from scripted import Scripted
from secure_peers import Authority


@pytest.fixture
def doctor(folder, dns):
    """look(port, ...) -> what is found of the relayhost "main" at 127.0.0.1 and that port."""
    dns.start({"example.org": "one A 127.0.0.1\ntwo A 127.0.0.1\ntwo A 127.0.0.9\n"})
    doctor = Doctor(folder, dns)
    (folder / "password").write_text("secret\n")

    def look(port, host="127.0.0.1", yaml="", **options):
        keys = "".join(f"    {key}: {value}\n" for key, value in options.items())
        text = f"relayhosts:\n  main:\n    address: '{host}:{port}'\n{keys}{yaml}"
        return doctor("example.org", yaml=text)[1].of("relayhost")

    doctor.look = look
    doctor.login = {"username": "app", "password_file": folder / "password"}
    return doctor


def only(findings):
    assert len(findings) == 1, findings
    return findings[0]


@pytest.fixture
def authority(folder):
    return Authority(folder)


def test_a_relayhost_that_lets_us_in(doctor, make_upstream, authority):
    upstream = make_upstream(tls_context=authority.issue("127.0.0.1").context(), require_tls=True, credentials=("app", "secret"))
    finding = only(doctor.look(upstream.port, ca_file=authority.pem, **doctor.login))
    assert finding["level"] == "ok" and "logged in as app" in finding["found"] and "TLSv1." in finding["found"]
    assert finding["subject"] == f"main at 127.0.0.1[127.0.0.1]:{upstream.port}"
    assert upstream.messages.empty()


def test_a_password_that_is_refused(doctor, make_upstream, authority, folder):
    upstream = make_upstream(tls_context=authority.issue("127.0.0.1").context(), credentials=("app", "other"))
    finding = only(doctor.look(upstream.port, ca_file=authority.pem, **doctor.login))
    assert finding["level"] == "fail" and "535" in finding["found"] and "password_file" in finding["advice"]
    (folder / "password").unlink()
    finding = only(doctor.look(upstream.port, ca_file=authority.pem, **doctor.login))
    assert finding["level"] == "fail" and f"{folder}/password" in finding["found"]


@pytest.mark.parametrize("names, options, level, words", [
    (["other.example.org"], {}, "fail", "TLS"),
    (["127.0.0.1"], {"ca_file": None}, "fail", "TLS"),
    (["127.0.0.1"], {"ca_file": None, "tls": "required"}, "ok", "TLSv1."),
    (["127.0.0.1"], {"ca_file": None, "tls": "none"}, "ok", "no TLS"),
])
def test_certificates(doctor, make_upstream, authority, names, options, level, words):
    upstream = make_upstream(tls_context=authority.issue(*names).context())
    options = {"ca_file": authority.pem, **options}
    finding = only(doctor.look(upstream.port, **{key: value for key, value in options.items() if value}))
    assert finding["level"] == level and words in finding["found"]


def test_a_certificate_that_expires_soon_or_has(doctor, make_upstream, authority):
    soon = make_upstream(tls_context=authority.issue("127.0.0.1", days=5).context())
    finding = only(doctor.look(soon.port, ca_file=authority.pem))
    assert finding["level"] == "warn" and "expires in 4 days" in finding["advice"]
    over = make_upstream(tls_context=authority.issue("127.0.0.1", days=-5).context())
    finding = only(doctor.look(over.port, ca_file=authority.pem))
    assert finding["level"] == "fail" and "expired" in finding["found"]
    finding = only(doctor.look(over.port, tls="required"))  # which goes on without looking
    assert finding["level"] == "warn" and "has expired" in finding["advice"]


def test_a_fingerprint(doctor, make_upstream, authority):
    import hashlib
    from cryptography.hazmat.primitives import serialization
    issued = authority.issue("elsewhere.test")
    upstream = make_upstream(tls_context=issued.context())
    print_of = hashlib.sha256(issued.certificate.public_bytes(serialization.Encoding.DER)).hexdigest()
    assert only(doctor.look(upstream.port, fingerprint=print_of))["level"] == "ok"
    assert only(doctor.look(upstream.port, fingerprint="0" * 64))["level"] == "fail"


def test_a_relayhost_without_tls(doctor, upstream):
    finding = only(doctor.look(upstream.port))
    assert finding["level"] == "fail" and "STARTTLS" in finding["found"] and "465" in finding["advice"]


def test_a_relayhost_that_offers_no_login(doctor, upstream):
    finding = only(doctor.look(upstream.port, tls="none", **doctor.login))
    assert finding["level"] == "fail" and "auth" in finding["advice"]


def test_a_relayhost_that_takes_less_than_we_do(doctor, upstream):
    finding = only(doctor.look(upstream.port, tls="none", yaml="limits: {message_size: 1G}\n"))
    assert finding["level"] == "warn" and "limits.message_size" in finding["advice"]


def test_nobody_there_and_no_such_name(doctor):
    finding = only(doctor.look(free_port(), tls="none"))
    assert finding["level"] == "fail" and "refused" in finding["found"]
    finding = only(doctor.look(587, host="gone.example.org", tls="none"))
    assert finding["level"] == "fail" and "gone.example.org has no address" in finding["found"]


def test_one_of_two_addresses_is_dead(doctor, upstream):
    found = doctor.look(upstream.port, host="two.example.org", tls="none")
    assert sorted(found.levels) == ["ok", "warn"]


@pytest.mark.parametrize("banner, words", [
    (b"421 4.3.2 too busy\r\n", "421 4.3.2"), (b"hello\r\n", "greeting"),
    (lambda session: session.until_closed(), "greeting")])
def test_a_relayhost_that_misbehaves(doctor, banner, words):
    """The last one says nothing at all."""
    server = Scripted(lambda session: session.serve({"BANNER": banner}))
    try:
        finding = only(doctor.look(server.port, tls="none"))
        assert finding["level"] == "fail" and words in finding["found"], finding
    finally:
        server.stop()


# ---- --to: the MX hosts of an address


@pytest.fixture
def look_to(folder, dns):
    doctor = Doctor(folder, dns)

    def look(address, port, zone, ca_file=None):
        dns.start({"example.net": zone})
        ca = f", ca_file: {ca_file}" if ca_file else ""
        yaml = f"delivery: {{port: {port}, ip: '4', allow_loopback: true, connect_timeout: 1s{ca}}}\n"
        return doctor("example.org", "--to", address, yaml=yaml)[1].of("to")

    return look


def test_to_an_address_that_takes_mail(look_to, make_upstream, authority):
    upstream = make_upstream(tls_context=authority.issue("mx.example.net").context())
    found = look_to("user@example.net", upstream.port,
                    f'@ MX 10 mx\nmx A 127.0.0.1\n_mta-sts TXT "v=STSv1; id=1"\n_{upstream.port}._tcp.mx TLSA 3 1 1 00\n',
                    authority.pem)
    assert found.one("to", "example.net at mx.example.net[127.0.0.1]")["level"] == "ok"
    assert "MTA-STS" in found.one("to", "example.net")["found"]
    assert "DANE records, which do not count" in found.one("to", "mx.example.net")["found"] or \
        "DNSSEC vouches" in found.one("to", "mx.example.net")["found"]
    assert upstream.messages.empty()


def test_to_a_host_with_any_certificate_and_one_that_is_dead(look_to, make_upstream, authority):
    upstream = make_upstream(tls_context=authority.issue("other.example.net").context())
    found = look_to("user@example.net", upstream.port, "@ MX 10 dead\n@ MX 20 mx\ndead A 127.0.0.9\nmx A 127.0.0.1\n")
    assert found.one("to", "example.net at dead.example.net[127.0.0.9]")["level"] == "warn"
    finding = found.one("to", "example.net at mx.example.net[127.0.0.1]")
    assert finding["level"] == "info" and "not trusted" in finding["found"]


@pytest.mark.parametrize("address, zone, words", [
    ("user@example.net", "@ MX 10 mx\nmx A 127.0.0.9\n", "no connection"), ("user@example.net", "@ MX 0 .\n", "no mail"),
    ("user@gone.example.net", "", "does not exist")])
def test_to_an_address_that_takes_none(look_to, address, zone, words):
    found = look_to(address, free_port(), zone)
    assert only(found)["level"] == "fail" and words in only(found)["found"], found

"""relayctl doctor on what stands in DNS and on this machine: each check with a good and a bad outcome."""
import json
import os
import socket
import subprocess
import threading

import pytest

from conftest import PATIENCE, RELAYCTL, service_user, users_line
from doctor import Doctor, Findings
from peers import make_certificate
from secure_peers import Authority
from test_dkim import keygen, zone_text
from tokens import TokenServer


@pytest.fixture
def doctor(folder, dns):
    return Doctor(folder, dns)


# ---- DKIM


def dkim_yaml(path, selector="s1"):
    return f"dkim: {{domains: {{example.org: {{{selector}: {path}}}}}}}\n"


def test_dkim_key_that_is_published(doctor, dns, folder):
    path, txt = keygen(folder, "s1", "rsa")
    dns.start({"example.org": f"s1._domainkey TXT {zone_text(txt)}\n"})
    _, found = doctor(yaml=dkim_yaml(path))
    finding = found.one("dkim")
    assert finding["level"] == "ok" and finding["subject"] == "s1._domainkey.example.org"
    assert "2048 bits" in finding["found"] and "verifies" in finding["found"]


def test_dkim_key_that_is_not_published_with_the_record_to_publish(doctor, dns, folder):
    path, txt = keygen(folder, "s1", "rsa")
    dns.start({"example.org": ""})
    code, found = doctor(yaml=dkim_yaml(path))
    finding = found.one("dkim")
    assert code == 1 and finding["level"] == "fail" and "nothing is published" in finding["found"]
    assert finding["record"] == {"name": "s1._domainkey.example.org", "type": "TXT", "value": txt}
    text = doctor.run(yaml=dkim_yaml(path)).stdout
    zone, plain = text.split("publish: s1._domainkey.example.org. IN TXT ")[1].split("\n")[:2]
    assert "".join(zone.strip("() ").strip('"').split('" "')) == txt and plain.strip() == f"in one piece: {txt}"


@pytest.mark.parametrize("published, words", [
    ("v=DKIM1; k=rsa; p=", "revoked"), ("v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", "another type"),
    ("hello", "no DKIM key")])
def test_dkim_key_that_is_another(doctor, dns, folder, published, words):
    path, _ = keygen(folder, "s1", "rsa")
    dns.start({"example.org": f's1._domainkey TXT "{published}"\n'})
    _, found = doctor(yaml=dkim_yaml(path))
    assert found.one("dkim")["level"] == "fail" and words in found.one("dkim")["found"]


def test_dkim_key_that_is_small(doctor, dns, folder):
    path = folder / "small.pem"
    subprocess.run(["openssl", "genrsa", "-out", path, "1024"], check=True, capture_output=True)
    doctor.config.write_text(dkim_yaml(path))
    shown = subprocess.run([RELAYCTL, "-c", doctor.config, "--json", "dkim", "show"], capture_output=True, text=True)
    txt = json.loads(shown.stdout)[0]["txt"]
    dns.start({"example.org": f"s1._domainkey TXT {zone_text(txt)}\n"})
    _, found = doctor(yaml=dkim_yaml(path))
    assert found.one("dkim")["level"] == "warn" and "1024 bits" in found.one("dkim")["found"]


def test_dkim_ed25519_alone_and_a_key_file_that_is_gone(doctor, dns, folder):
    path, txt = keygen(folder, "s1", "ed25519")
    dns.start({"example.org": f"s1._domainkey TXT {zone_text(txt)}\n"})
    _, found = doctor(yaml=dkim_yaml(path))
    assert found.of("dkim").levels == ["ok", "warn"] and "RSA key" in found.of("dkim")[1]["advice"]
    path.unlink()
    _, found = doctor(yaml=dkim_yaml(path))
    assert found.one("dkim")["level"] == "fail" and "cannot be used" in found.one("dkim")["found"]


def test_dkim_for_a_domain_without_key(doctor, dns):
    dns.start({"example.org": ""})
    _, found = doctor("example.org")
    assert found.one("dkim")["level"] == "warn" and "keygen example.org" in found.one("dkim")["advice"]
    _, found = doctor("example.org", yaml="relayhosts: {main: {address: '127.0.0.1:9', tls: none}}\n")
    assert found.one("dkim")["level"] == "info"


# ---- DMARC


@pytest.mark.parametrize("zone, level, words", [
    ('_dmarc TXT "v=DMARC1; p=reject"', "ok", "d=example.org"),
    ("", "warn", "no DMARC record"),
    ('_dmarc TXT "v=DMARC1; p=none"\n_dmarc TXT "v=DMARC1; p=reject"', "fail", "2 DMARC records"),
    ('_dmarc TXT "v=DMARC1; rua=mailto:a@example.org"', "fail", "no policy"),
    ('_dmarc TXT "unrelated"\n_dmarc TXT "v=DMARC1; p=quarantine"', "ok", "p=quarantine"),
])
def test_dmarc(doctor, dns, folder, zone, level, words):
    path, _ = keygen(folder, "s1", "rsa")
    dns.start({"example.org": zone + "\n"})
    _, found = doctor(yaml=dkim_yaml(path))
    assert found.one("dmarc")["level"] == level and words in found.one("dmarc")["found"]


@pytest.mark.parametrize("domain, zone, level, words", [
    ("sub.example.org", "p=reject", "ok", "d=example.org"),
    ("sub.example.org", "p=none; sp=reject; adkim=s", "fail", "adkim=s"),
    ("example.com", "p=none", "warn", "not aligned"),
    ("example.com", "p=reject", "fail", "not aligned"),
])
def test_dmarc_alignment(doctor, dns, folder, domain, zone, level, words):
    path, _ = keygen(folder, "s1", "rsa")
    dns.start({name: f'_dmarc TXT "v=DMARC1; {zone}"\n' for name in ("example.org", "example.com")})
    yaml = f"dkim: {{default: example.org, domains: {{example.org: {{s1: {path}}}}}}}\n"
    _, found = doctor(domain, yaml=yaml)
    assert found.one("dmarc")["level"] == level and words in found.one("dmarc")["found"]


# ---- bounces


@pytest.mark.parametrize("zone, level, words", [
    ("@ MX 20 other\n@ MX 10 mx\nmx A 127.0.0.2", "ok", "mx.example.org"),
    ("@ A 127.0.0.2", "ok", "its own address"),
    ("", "warn", "neither MX nor address"),
    ("@ MX 0 .", "warn", "null MX"),
    ("@ MX 10 mx", "warn", "no address"),
])
def test_bounces(doctor, dns, zone, level, words):
    dns.start({"example.org": zone + "\n"})
    _, found = doctor("example.org")
    assert found.one("bounces")["level"] == level and words in found.one("bounces")["found"]


def test_bounces_of_a_domain_that_is_not(doctor, dns):
    dns.start({"example.org": ""})
    _, found = doctor("gone.example.org")
    assert found.one("bounces")["level"] == "fail" and "no such domain" in found.one("bounces")["found"]


# ---- this machine


def test_configuration(doctor, dns, folder):
    dns.start({"example.org": ""})
    _, found = doctor("example.org")
    assert found.one("config")["level"] == "ok"
    code, found = doctor("example.org", yaml=f"suppress: {folder}/gone\n")
    assert code == 1 and found.one("config")["level"] == "fail" and "gone" in found.one("config")["found"]
    done = doctor.run("--json", "example.org", yaml="nonsense: 1\n")
    assert done.returncode == 1 and "nonsense" in done.stderr
    assert [f["level"] for f in json.loads(done.stdout)["checks"]] == ["fail"]


def test_spool(doctor, dns, folder):
    dns.start({"example.org": ""})
    _, found = doctor("example.org")
    assert found.of("spool").levels == ["ok", "info"]
    (folder / "spool").mkdir()
    _, found = doctor("example.org")
    assert found.of("spool").levels == ["ok", "ok", "ok"] and "synced" in found.of("spool")[2]["found"]
    _, found = doctor("example.org", spool="/dev/shm/relayd-doctor")
    assert found.of("spool")[0]["level"] == "fail" and "tmpfs" in found.of("spool")[0]["found"]


def test_certificate(doctor, dns, folder):
    dns.start({"example.org": ""})
    assert doctor("example.org")[1].one("certificate")["level"] == "info"
    for days, level, words in ((60, "ok", "good for 59 days"), (5, "warn", "good for 4 days")):
        certificate, key = make_certificate(folder, days=days)
        found = doctor("example.org", yaml=f"tls: {{certificate: {certificate}, key: {key}}}\n")[1]
        assert found.one("certificate")["level"] == level and words in found.one("certificate")["found"]
    for days in -3, -0.1:
        over = Authority(folder).issue("relay.example.org", days=days)
        found = doctor("example.org", yaml=f"tls: {{certificate: {over.chain}, key: {over.key}}}\n")[1]
        assert found.one("certificate")["level"] == "fail" and "expired" in found.one("certificate")["found"]
    found = doctor("example.org", yaml=f"tls: {{certificate: {over.chain}, key: {key}}}\n")[1]
    assert found.one("certificate")["level"] == "fail"


@pytest.mark.parametrize("listener, level, words", [
    ("address: '0.0.0.0:587'", "ok", "users alone"),
    ("address: '127.0.0.1:587', allow_plaintext_auth: true", "ok", "users alone"),
    ("address: '0.0.0.0:587', tls: off, allow_plaintext_auth: true", "warn", "clear text"),
    ("address: '0.0.0.0:587', auth: optional, trusted: [10.0.0.0/8, 203.0.113.7]", "ok", "who is trusted"),
    ("address: '0.0.0.0:587', auth: optional, trusted: [203.0.113.0/24]", "warn", "203.0.113.0/24"),
])
def test_listeners(doctor, dns, listener, level, words):
    dns.start({"example.org": ""})
    _, found = doctor("example.org", yaml=f"listen: [{{{listener}}}]\n")
    assert found.one("listen")["level"] == level and words in found.one("listen")["found"]


def test_secrets(doctor, dns, folder):
    path, _ = keygen(folder, "s1", "rsa")
    dns.start({"example.org": ""})
    user = service_user()
    yaml = dkim_yaml(path) + (f"user: {user}\n" if user else "")
    assert doctor(yaml=yaml)[1].one("secrets")["level"] == "ok"
    path.chmod(0o644)
    finding = doctor(yaml=yaml)[1].one("secrets", str(path))
    assert finding["level"] == "warn" and "any user" in finding["found"] and "chmod" in finding["advice"]
    if user:
        path.chmod(0o600)
        os.chown(path, 0, 0)
        finding = doctor(yaml=yaml)[1].one("secrets", str(path))
        assert finding["level"] == "fail" and f"user {user} cannot read" in finding["found"]
    finding = doctor(environ={"RELAYD_USERNAME": "a", "RELAYD_PASSWORD": "b"})[1].one("secrets", "RELAYD_PASSWORD")
    assert finding["level"] == "warn" and "_FILE" in finding["advice"]


class Forwarder(threading.Thread):
    """Takes questions by UDP at another address, and asks 127.0.0.1 in their place."""

    def __init__(self, host, port):
        super().__init__(daemon=True)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((host, port))
        self.host, self.port = host, port

    def run(self):
        while True:
            question, asker = self.sock.recvfrom(4096)
            if not question:
                return
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as onward:
                onward.settimeout(PATIENCE)
                onward.sendto(question, ("127.0.0.1", self.port))
                self.sock.sendto(onward.recv(4096), asker)

    def __enter__(self):
        self.start()

    def __exit__(self, *_):
        self.sock.sendto(b"", (self.host, self.port))
        self.join()
        self.sock.close()


def test_resolver(doctor, dns, folder):
    dns.start({"example.org": ""})
    _, found = doctor("example.org")
    assert found.one("resolver", f"127.0.0.1:{dns.port}")["level"] == "ok"
    yaml = "routes: [{to: ['*'], via: mx, tls: dane}]\n"
    dane = doctor("example.org", yaml=yaml)[1].one("resolver")
    assert dane["level"] == "ok" and "DNSSEC verdict is believed" in dane["found"]
    with Forwarder("127.0.0.11", dns.port):  # Docker's, which may have changed the answer
        dane = doctor("example.org", yaml=yaml, server="127.0.0.11")[1].one("resolver")
    assert dane["level"] == "warn" and "not believed" in dane["found"]
    dns.stop()
    _, found = doctor("example.org")
    assert found.one("resolver")["level"] == "fail" and "dns.servers" in found.one("resolver")["advice"]


def test_daemon(relayd, dns, doctor):
    dns.start({"example.org": ""})
    assert doctor("example.org")[1].one("daemon")["level"] == "info"
    daemon = relayd(f"dns: {{servers: ['127.0.0.1:{dns.port}']}}\n")
    look = lambda: Findings(json.loads(subprocess.run(
        [RELAYCTL, "-c", daemon.config_path, "--json", "doctor", "example.org"], capture_output=True, text=True).stdout)["checks"])
    assert look().one("daemon")["level"] == "ok"
    daemon.write_config(daemon.config + f"suppress: {daemon.folder}/gone\n")
    daemon.ctl("reload", check=False)
    finding = look().one("daemon", "reload")
    assert finding["level"] == "fail" and "refused" in finding["found"]


def test_clock(doctor, dns, folder):
    """The token endpoint and the webhook say what time it is."""
    server = TokenServer(folder)
    try:
        dns.start({"example.org": ""})
        (folder / "token").write_text("secret")
        yaml = (f"https: {{ca_file: {server.certificate}}}\nrelayhosts:\n  main:\n    address: 127.0.0.1:9\n    username: a\n"
                f"    oauth2: {{provider: other, client_id: c, client_secret_file: {folder}/token, token_url: '{server.url}'}}\n")
        finding = doctor("example.org", yaml=yaml)[1].one("clock", server.url)
        assert finding["level"] == "ok" and "the same time" in finding["found"]
        server.server.RequestHandlerClass.date_time_string = lambda self, at=None: "Mon, 01 Jan 2024 00:00:00 GMT"
        finding = doctor("example.org", yaml=yaml)[1].one("clock", server.url)
        assert finding["level"] == "fail" and "seconds ahead" in finding["found"]
        finding = doctor("example.org", yaml=yaml.split("\n", 1)[1])[1]  # its certificate is not trusted now
        assert finding.one("clock", server.url)["level"] == "fail"
        assert "cannot be reached" in finding.one("clock", server.url)["found"]
        server.stop()
        finding = doctor("example.org", yaml=yaml)[1].one("clock", server.url)
        assert finding["level"] == "fail" and "cannot be reached" in finding["found"]
    finally:
        server.stop()


def test_sender_domains_are_found(doctor, dns, folder):
    path, _ = keygen(folder, "s1", "rsa")
    dns.start({"example.org": ""})
    doctor.users.write_text(users_line(options=":from=@users.example.org:from=a@other.example.org"))
    yaml = dkim_yaml(path) + "origin: origin.example.org\nroutes: [{from: ['@route.example.org'], via: mx}]\n"
    _, found = doctor(yaml=yaml)
    assert {f["subject"] for f in found.of("bounces")} == {
        f"{name}example.org" for name in ("", "origin.", "route.", "users.", "other.")}
    doctor.users.write_text(users_line())
    _, found = doctor()
    assert found.one("domains")["level"] == "info" and not found.of("bounces")


def test_strict(doctor, dns, folder, upstream):
    path, txt = keygen(folder, "s1", "rsa")
    good = f's1._domainkey TXT {zone_text(txt)}\n@ MX 10 mx\nmx A 127.0.0.2\n'
    dns.start({"example.org": good})
    yaml = dkim_yaml(path) + f"relayhosts: {{main: {{address: '127.0.0.1:{upstream.port}', tls: none}}}}\n"
    code, found = doctor(yaml=yaml)
    assert code == 0 and found.one("dmarc")["level"] == "warn"
    assert doctor("--strict", yaml=yaml)[0] == 1


def test_a_silent_dns_server_holds_up_nothing_for_ever(doctor, dns):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", dns.port))
        code, found = doctor("example.org")
    assert code == 1 and "cannot be looked up" in found.one("bounces")["found"]

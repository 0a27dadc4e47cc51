"""Whom a relayhost must prove to be: its own ca_file, or a fingerprint; right, wrong, expired, another name."""
import hashlib
import ssl
import subprocess

import pytest

from conftest import message, relayhost
from peers import make_certificate, server_context

RETRY = "retry: {tls: [1s]}\n"


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, folder, name):
        self.folder = folder / name
        self.folder.mkdir()
        self.folder.chmod(0o755)
        self.certificate, self.key = make_certificate(self.folder, name=name)
        self.certificate.chmod(0o644)

    def context(self, names="IP:127.0.0.1", not_after="20991231235959Z"):
        """A server's context with a certificate for these names, signed by us."""
        openssl = ["openssl"]
        key, request, certificate = (self.folder / f"leaf.{end}" for end in ("key", "csr", "pem"))
        subprocess.run(openssl + ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key,
                                  "-out", request, "-subj", "/CN=leaf", "-addext", f"subjectAltName={names}"],
                       check=True, capture_output=True)
        (self.folder / "index").write_text("")
        (self.folder / "serial").write_text("01\n")
        (self.folder / "ca.conf").write_text(
            f"[ca]\ndefault_ca = ours\n[ours]\ndatabase = {self.folder}/index\nserial = {self.folder}/serial\n"
            f"new_certs_dir = {self.folder}\ndefault_md = sha256\npolicy = any\ncopy_extensions = copy\n[any]\ncommonName = supplied\n")
        subprocess.run(openssl + ["ca", "-batch", "-notext", "-config", self.folder / "ca.conf", "-cert", self.certificate, "-keyfile", self.key,
                                  "-in", request, "-out", certificate, "-startdate", "20200101000000Z", "-enddate", not_after],
                       check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        return context


@pytest.fixture
def authority(folder):
    return Authority(folder, "authority")


def deliver(relayd, server, **options):
    daemon = relayd(relayhost(server.port, tls="verify", **options) + RETRY)
    with daemon.smtp() as client:
        client.send_message(message())
    return daemon


def assert_refused(daemon, server, why):
    """It is put off, the alert is raised, and not one octet of the message goes there."""
    daemon.wait_log(rf"event=deferred .*class=tls .*{why}")
    daemon.wait_log(r"event=alert alert=relayhost state=active text=.*tls")
    assert server.messages.empty()
    assert not [line for line in daemon.lines if "event=failed" in line or "event=bounce" in line]


def test_ca_file(relayd, make_upstream, authority):
    server = make_upstream(tls_context=authority.context())
    deliver(relayd, server, ca_file=authority.certificate)
    assert server.get().tls


def test_ca_file_of_somebody_else(relayd, make_upstream, authority, folder):
    server = make_upstream(tls_context=authority.context())
    daemon = deliver(relayd, server, ca_file=Authority(folder, "other").certificate)
    assert_refused(daemon, server, "who is not trusted here")
    # The right one is put in its place: noticed by a reload, and the mail goes.
    daemon.write_config(daemon.config.replace(str(folder / "other" / "other.pem"), str(authority.certificate)))
    daemon.ctl("reload")
    daemon.ctl("flush")
    assert server.get().tls
    daemon.wait_log(r"event=alert alert=relayhost state=over")


def test_ca_file_takes_the_place_of_delivery_ca_file(relayd, make_upstream, authority, folder):
    other = Authority(folder, "other")
    server = make_upstream(tls_context=authority.context())
    daemon = relayd(f"delivery: {{ca_file: {authority.certificate}}}\n" +
                    relayhost(server.port, tls="verify", ca_file=other.certificate) + RETRY)
    with daemon.smtp() as client:
        client.send_message(message())
    assert_refused(daemon, server, "who is not trusted here")


def test_expired(relayd, make_upstream, authority):
    server = make_upstream(tls_context=authority.context(not_after="20210101000000Z"))
    assert_refused(deliver(relayd, server, ca_file=authority.certificate), server, "has expired")


@pytest.mark.parametrize("names", ["DNS:mail.example.net", "IP:127.0.0.2", "DNS:127.0.0.1"])
def test_another_name(relayd, make_upstream, authority, names):
    server = make_upstream(tls_context=authority.context(names))
    assert_refused(deliver(relayd, server, ca_file=authority.certificate), server, r"certificate is for .*, not 127\.0\.0\.1")


def fingerprints(certificate):
    """SHA-256 of the certificate, and of its public key."""
    der = ssl.PEM_cert_to_DER_cert(certificate.read_text())
    public = subprocess.run(["openssl", "x509", "-in", certificate, "-pubkey", "-noout"], check=True, capture_output=True).stdout
    key = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "DER"], input=public, check=True, capture_output=True).stdout
    return {"certificate": hashlib.sha256(der).hexdigest(), "key": hashlib.sha256(key).hexdigest()}


@pytest.mark.parametrize("of", ["certificate", "key"])
@pytest.mark.parametrize("form", ["plain", "colons"])
def test_fingerprint(relayd, make_upstream, folder, of, form):
    """Of a certificate that nobody signed, for another name: the fingerprint alone counts."""
    context, certificate = server_context(folder, name="upstream", names=("elsewhere.example",), ips=("192.0.2.1",))
    server = make_upstream(tls_context=context)
    digest = fingerprints(certificate)[of]
    if form == "colons":
        digest = ":".join(digest[i:i + 2] for i in range(0, 64, 2)).upper()
    deliver(relayd, server, fingerprint=f'"{digest}"')
    assert server.get().tls


def test_fingerprint_of_an_expired_certificate(relayd, make_upstream, authority):
    server = make_upstream(tls_context=authority.context(not_after="20210101000000Z"))
    deliver(relayd, server, fingerprint=fingerprints(authority.folder / "leaf.pem")["key"])
    assert server.get().tls


def test_wrong_fingerprint(relayd, make_upstream, authority):
    """Not even with a certificate that would verify."""
    server = make_upstream(tls_context=authority.context())
    daemon = deliver(relayd, server, ca_file=authority.certificate, fingerprint="00" * 32)
    assert_refused(daemon, server, "fingerprint is .*, not the one that is configured")


def test_implicit_tls(relayd, make_upstream, authority, folder):
    """From the first octet: verified in the same way."""
    import socket
    import threading
    context = authority.context("DNS:elsewhere.example")
    listener = socket.create_server(("127.0.0.1", 0))
    heard = []

    def serve():
        try:
            while True:
                connection, _ = listener.accept()
                with connection:
                    try:
                        with context.wrap_socket(connection, server_side=True) as secure:
                            heard.append(secure.recv(100))
                    except OSError:
                        pass
        except OSError:
            pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        daemon = relayd(relayhost(listener.getsockname()[1], tls="verify", implicit="true", ca_file=authority.certificate) + RETRY)
        with daemon.smtp() as client:
            client.send_message(message())
        daemon.wait_log(r"event=deferred .*class=tls")
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
    assert not any(heard)

"""TLS towards clients over real sockets: versions, ciphers, tickets, ALPN, garbage, stalls, and certificates that change."""
import os
import re
import select
import socket
import ssl
import subprocess
import threading
import time

import pytest

from conftest import PATIENCE, message, relayhost
from peers import make_certificate
from wire import Wire, insecure

BOTH = "listen:\n  - {address: '127.0.0.1:0', tls: starttls}\n  - {address: '127.0.0.1:0', tls: implicit}\n"


def ports(daemon):
    return [int(address.rsplit(":", 1)[1]) for address in daemon.addresses]


def open_descriptors(daemon):
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def wait_until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        select.select([], [], [], 0.02)


def s_client(daemon, *options, starttls=True, commands="EHLO s_client\nQUIT\n"):
    """openssl's client: (exit code, output)."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{ports(daemon)[0 if starttls else 1]}", "-crlf", "-ign_eof"]
    command += ["-starttls", "smtp"] if starttls else []
    done = subprocess.run([*command, *options], input=commands, capture_output=True, text=True, timeout=PATIENCE,
                          errors="replace")
    return done.returncode, done.stdout + done.stderr


def certificate_of(port, context=None):
    """The serial number of what the server shows."""
    with Wire(port) as client:
        client.ehlo()
        client.starttls(context, ehlo=False)
        return client.sock.getpeercert(binary_form=True)


# ---- versions, ciphers, extensions


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("starttls", [True, False], ids=["starttls", "implicit"])
def test_tls_1_2_and_1_3_work(relayd, upstream, version, starttls):
    """D7"""
    daemon = relayd(relayhost(upstream.port), listen=BOTH)
    wanted = getattr(ssl.TLSVersion, version)
    context = insecure(minimum_version=wanted, maximum_version=wanted)
    with Wire(ports(daemon)[0 if starttls else 1], context=None if starttls else context) as client:
        client.ehlo()
        if starttls:
            client.starttls(context)
        assert client.sock.version() == version.replace("_", ".")
        assert client.login().code == 235 and client.message().code == 250
    upstream.get()


@pytest.mark.parametrize("options", [("-tls1",), ("-tls1_1",), ("-tls1_2", "-cipher", "aNULL:eNULL:@SECLEVEL=0"),
                                     ("-tls1_2", "-cipher", "RC4:3DES:MD5:EXPORT:NULL:DES-CBC3-SHA:@SECLEVEL=0")],
                         ids=["1.0", "1.1", "anonymous", "weak"])
def test_old_versions_and_weak_ciphers_fail(relayd, options):
    """D6"""
    daemon = relayd(listen=BOTH)
    for starttls in (True, False):
        if options[0] in ("-tls1", "-tls1_1"):
            options += ("-cipher", "ALL:@SECLEVEL=0")
        code, told = s_client(daemon, *options, starttls=starttls)
        assert code != 0 and "250 " not in told.split("CONNECTED")[-1].replace("250 REQUIRETLS", "").replace("250 DSN", "")
    with Wire(ports(daemon)[0]) as client:
        client.ehlo()
        assert client.starttls().code == 250


def test_min_version_can_be_raised(relayd):
    daemon = relayd('tls: {min_version: "1.3"}\n', listen=BOTH)
    with Wire(ports(daemon)[0]) as client:
        client.ehlo()
        with pytest.raises(ssl.SSLError):
            client.starttls(insecure(maximum_version=ssl.TLSVersion.TLSv1_2))


@pytest.mark.parametrize("protocol, good", [("h2", False), ("http/1.1", False), ("imap", False), ("smtp", True)])
def test_alpn_of_other_protocols_is_refused(relayd, protocol, good):
    """D11: RFC 7301 section 3.2."""
    daemon = relayd(listen=BOTH)
    context = insecure()
    context.set_alpn_protocols([protocol])
    if good:
        with Wire(ports(daemon)[1], context=context) as client:
            assert client.greeting.code == 220
            return
    with pytest.raises(ssl.SSLError, match="ALERT_NO_APPLICATION_PROTOCOL|no application protocol"):
        Wire(ports(daemon)[1], context=context)
    with Wire(ports(daemon)[0]) as client:
        client.ehlo()
        with pytest.raises(ssl.SSLError):
            client.starttls(context)


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_sessions_are_resumed_and_a_ticket_of_before_the_restart_does_no_harm(relayd, upstream, version):
    """D16"""
    daemon = relayd(relayhost(upstream.port), listen=BOTH)
    wanted = getattr(ssl.TLSVersion, version)
    context = insecure(minimum_version=wanted, maximum_version=wanted)

    def connect(session):
        plain = socket.create_connection(("127.0.0.1", ports(daemon)[1]), timeout=PATIENCE)
        sock = context.wrap_socket(plain, session=session)
        greeting = sock.recv(4096)  # tickets of TLS 1.3 come with it
        assert greeting.startswith(b"220 ")
        reused, session = sock.session_reused, sock.session
        sock.close()
        return reused, session

    reused, session = connect(None)
    assert not reused
    assert connect(session)[0]
    daemon.stop()
    daemon.start()
    reused, _ = connect(session)
    assert reused is False
    with Wire(ports(daemon)[0]).ready() as client:
        assert client.message().code == 250
    upstream.get()


@pytest.mark.parametrize("name, is_name", [(".".join([63 * "x", 63 * "y", 63 * "z", 61 * "w"]), True), ("127.0.0.1", True), ("a\\", False),
                                           ("a b", False), ("\x01", False)])
def test_odd_server_names_harm_nobody(relayd, name, is_name):
    """D16: What is no name may be refused."""
    daemon = relayd(listen=BOTH)
    code, told = s_client(daemon, "-servername", name, starttls=False)
    assert (code == 0 and "221 " in told) or not is_name
    assert "221 " in s_client(daemon, starttls=False)[1]


def test_gnutls_and_its_tickets(relayd):
    daemon = relayd(listen=BOTH)
    done = subprocess.run(["gnutls-cli", "--no-ca-verification", "--crlf", "--resume", "--port", str(ports(daemon)[1]), "127.0.0.1"],
                          input="EHLO gnutls\nQUIT\n", capture_output=True, text=True, timeout=PATIENCE)
    assert "PIPELINING" in done.stdout or "221" in done.stdout, done.stdout + done.stderr


# ---- what comes before, instead of, and inside TLS


def test_plain_text_behind_starttls_is_discarded(relayd, upstream):
    """D3: A whole command and a half one in the same segment; neither is answered inside TLS nor joined to what comes."""
    daemon = relayd(relayhost(upstream.port), listen=BOTH)
    for injected in (b"NOOP\r\n", b"EHLO inject\r\nMAIL FROM:<evil@example.org>\r\n", b"MAIL FROM:<evil", b"\r\n" * 1000):
        client = Wire(ports(daemon)[0])
        client.ehlo()
        client.send(b"STARTTLS\r\n" + injected)
        assert client.reply().code == 220
        client.sock = insecure().wrap_socket(client.sock)
        assert client.cmd("RSET").code in (250, 503, 530)
        assert client.ehlo().startswith("250-relay.example.org")
        assert client.login().code == 235
        assert client.message().code == 250
        client.close()
    assert {mail.mail_from for mail in upstream.get_many(4)} == {"app@example.org"}


def test_what_was_learnt_before_tls_is_forgotten(relayd, upstream):
    """D4, D5: For the machine and for whoever counts the user."""
    daemon = relayd(relayhost(upstream.port), listen="listen:\n  - {address: '127.0.0.1:0', tls: optional, allow_plaintext_auth: true}\n")
    with Wire(daemon.port) as client:
        client.ehlo()
        assert client.login().code == 235
        client.starttls(ehlo=False)
        assert client.cmd("MAIL FROM:<a@example.org>").code in (503, 530)
        assert "STARTTLS" not in client.ehlo()
        assert client.cmd("MAIL FROM:<a@example.org>").code == 530
        assert client.cmd("STARTTLS").code in (502, 503)
        assert client.login().code == 235
        assert client.message().code == 250
        assert client.cmd("EHLO again").code == 250
        assert client.message().code == 250
    upstream.get_many(2)


GARBAGE = {
    "text": b"EHLO app\r\nMAIL FROM:<a@example.org>\r\n", "zeros": b"\0" * 5000, "random": os.urandom(5000),
    "ssl2 hello": bytes.fromhex("802e010002001500000010010080020080030080040080050080060040070080c0") + os.urandom(16),
    "longest record": b"\x16\x03\x01\xff\xff" + b"\x01" * 65535, "empty records": b"\x16\x03\x01\0\0" * 10000,
    "alert": b"\x15\x03\x03\0\2\2\x28", "application data": b"\x17\x03\x03\x00\x20" + b"x" * 32, "hello without end": b"\x16\x03\x01\x40\0\x01\0\xff\xff" + b"\3\3" * 4000,
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_instead_of_a_client_hello_ends_that_connection_only(relayd, upstream, what):
    """D8, D14: An alert or the end; never an SMTP reply."""
    daemon = relayd(relayhost(upstream.port), listen=BOTH)
    with Wire(ports(daemon)[0]) as bystander:
        bystander.ready()
        for port, starttls in zip(ports(daemon), (True, False)):
            client = Wire(port, greet=starttls)
            if starttls:
                client.ehlo()
                assert client.cmd("STARTTLS").code == 220
            answer = b""
            try:
                client.send(GARBAGE[what])
                client.sock.shutdown(socket.SHUT_WR)
                while data := client.sock.recv(4096):
                    answer += data
            except OSError:
                pass
            assert not re.search(rb"(?m)^[2345]\d\d[ -]", answer), answer
            assert answer == b"" or answer[0] == 0x15
            client.close()
        assert bystander.message().code == 250
    upstream.get()
    daemon.wait_log("event=tls_failed", count=1)


def test_plain_text_at_the_implicit_port_gets_no_dialogue(relayd):
    """D17"""
    daemon = relayd("limits: {connections_per_address: 1}\n", listen=BOTH)
    first = Wire(ports(daemon)[1], context=insecure())
    first.ehlo()
    assert first.login().code == 235
    with Wire(ports(daemon)[1], greet=False) as second:  # turned away: without a word that is not TLS
        assert second.sock.recv(100) == b""
    first.close()


def test_stalled_and_abandoned_handshakes_cost_nobody(relayd, upstream):
    """D9"""
    daemon = relayd(relayhost(upstream.port) + "limits: {connections_per_address: 1000}\n", listen=BOTH)
    with Wire(ports(daemon)[0]).ready() as client:
        assert client.message().code == 250
    upstream.get()
    wait_until(lambda: daemon.metric('relayd_connections{direction="in"}') == 0, "the first has left")
    before = open_descriptors(daemon)
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    stalled = []
    for number in range(70):
        if number % 2:
            sock = Wire(ports(daemon)[0])
            sock.ehlo()
            sock.cmd("STARTTLS")
        else:
            sock = Wire(ports(daemon)[1], greet=False)
        sock.send(hello)
        stalled.append(sock)
    for sock in stalled[:30]:
        sock.abort() if sock.sock.fileno() % 2 else sock.close()
    begun = time.monotonic()
    with Wire(ports(daemon)[0]).ready() as client:
        assert client.message().code == 250
    assert time.monotonic() - begun < 5
    upstream.get()
    for sock in stalled[30:]:
        sock.close()
    wait_until(lambda: open_descriptors(daemon) <= before + 2, "descriptors are given back")


def test_a_crowd_of_stalled_handshakes_makes_room(relayd, upstream):
    daemon = relayd(relayhost(upstream.port) + "limits: {connections: 30}\n", listen=BOTH)
    stalled = [Wire(ports(daemon)[1], greet=False) for _ in range(60)]
    with Wire(ports(daemon)[0]).ready() as client:
        assert client.message().code == 250
    upstream.get()
    for sock in stalled:
        sock.close()


def test_plain_text_after_close_notify_is_not_read(relayd, upstream):
    """D10: The client ends TLS inside DATA and goes on in clear text."""
    daemon = relayd(relayhost(upstream.port), listen=BOTH)
    with Wire(ports(daemon)[0]).ready() as client:
        client.envelope()
        assert client.cmd("DATA").code == 354
        client.send(b"Subject: half\r\n\r\nhalf")
        tls = client.sock
        tls.setblocking(False)
        try:
            tls.unwrap()
        except (ssl.SSLError, OSError):
            pass
        raw = socket.socket(fileno=os.dup(tls.fileno()))
        raw.settimeout(PATIENCE)
        try:
            raw.sendall(b"\r\n.\r\nQUIT\r\n")
            while raw.recv(4096):
                pass
        except OSError:
            pass
        raw.close()
    with Wire(ports(daemon)[0]).ready() as client:
        assert client.message().code == 250
    assert b"hello" in upstream.get().data
    assert upstream.messages.empty() and daemon.json("queue") == []


@pytest.mark.parametrize("size", [17, 60000])
def test_two_mebibytes_in_odd_writes(relayd, upstream, size):
    """D12"""
    daemon = relayd(relayhost(upstream.port), listen=BOTH)
    body = b"".join(b"%06d %s\r\n" % (n, b"x" * (n % 80)) for n in range(43000))[:2 * 1024 * 1024 - 2] + b"\r\n"
    if size == 17:
        body = body[:200000 - 2] + b"\r\n"
    body = body.replace(b"\r\r\n", b"\r\n")
    with Wire(ports(daemon)[1], context=insecure()) as client:
        client.ehlo()
        client.login()
        client.envelope()
        assert client.cmd("DATA").code == 354
        content = b"Subject: big\r\n\r\n" + body + b".\r\n"
        for at in range(0, len(content), size):
            client.send(content[at:at + size])
        assert client.reply().code == 250
    assert upstream.get().data.endswith(b"\r\n\r\n" + body)


class SClient:
    """openssl's client, its commands R (renegotiate) and K (update keys) given one by one."""

    def __init__(self, daemon, *options):
        self.process = subprocess.Popen(["openssl", "s_client", "-connect", f"127.0.0.1:{ports(daemon)[1]}", "-crlf", *options],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.told = b""
        self.wait_for(b"220 ")

    def wait_for(self, text, count=1):
        """False: it ended first."""
        deadline = time.monotonic() + PATIENCE
        while self.told.count(text) < count:
            assert time.monotonic() < deadline
            if select.select([self.process.stdout], [], [], 1)[0]:
                data = os.read(self.process.stdout.fileno(), 65536)
                if not data:
                    return False
                self.told += data
        return True

    def command(self, text):
        try:
            self.process.stdin.write(text)
            self.process.stdin.flush()
        except BrokenPipeError:
            pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass


def test_renegotiation_is_refused(relayd, upstream):
    """D13"""
    daemon = relayd(relayhost(upstream.port), listen=BOTH)
    with SClient(daemon, "-tls1_2") as client:
        client.command(b"R\n")
        assert client.wait_for(b"RENEGOTIATING")
        client.command(b"EHLO afterwards\n")
        assert not client.wait_for(b"250 ")
    with Wire(ports(daemon)[0]).ready() as client:
        assert client.message().code == 250
    upstream.get()


def test_key_updates_stall_nobody(relayd, upstream):
    """D13"""
    daemon = relayd(relayhost(upstream.port), listen=BOTH)
    with SClient(daemon, "-tls1_3") as client:
        for number in range(1, 101):
            client.command(b"K\n")
            if not client.wait_for(b"KEYUPDATE", number):
                break
        with Wire(ports(daemon)[0]).ready() as other:
            assert other.message().code == 250
    upstream.get()


# ---- certificates that change


def write_pair(folder, name):
    certificate, key = make_certificate(folder, name=name, names=(name, "localhost"))
    key.chmod(0o644)
    return certificate, key


def test_a_new_certificate_is_taken_under_load_without_dropping_anybody(relayd, upstream, folder):
    """D15"""
    first, second = write_pair(folder, "first"), write_pair(folder, "second")
    shown, key = folder / "shown.pem", folder / "shown.key"

    def install(pair):
        for source, target in zip(pair, (shown, key)):
            fresh = target.with_suffix(".new")
            fresh.write_bytes(source.read_bytes())
            fresh.chmod(0o644)
            fresh.rename(target)

    install(first)
    daemon = relayd(relayhost(upstream.port) + f"tls: {{certificate: {shown}, key: {key}}}\n", listen=BOTH)
    faults, count, stop = [], [], threading.Event()

    def load():
        while not stop.is_set():
            try:
                with Wire(ports(daemon)[0]).ready() as client:
                    assert client.message().code == 250
                    count.append(1)
            except Exception as error:  # noqa: BLE001 - told below
                faults.append(repr(error))

    threads = [threading.Thread(target=load) for _ in range(4)]
    old_session = Wire(ports(daemon)[0]).ready()
    before = certificate_of(ports(daemon)[0])
    for thread in threads:
        thread.start()
    seen = [before]
    try:
        for pair in (second, first, second):
            install(pair)
            daemon.ctl("reload")
            seen.append(certificate_of(ports(daemon)[0]))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert faults == [] and count
    assert seen[0] == seen[2] != seen[1] == seen[3]
    assert old_session.message().code == 250
    old_session.close()
    upstream.get_many(len(count) + 1)


def test_a_bad_new_certificate_is_refused_and_the_old_one_stays(relayd, folder):
    """D15: Unreadable, mismatched, empty, missing."""
    certificate, key = write_pair(folder, "good")
    other, _ = write_pair(folder, "other")
    good = certificate.read_bytes()
    daemon = relayd(f"tls: {{certificate: {certificate}, key: {key}}}\n", listen=BOTH)
    before = certificate_of(ports(daemon)[0])
    for text in (b"", b"no certificate", other.read_bytes(), good[:200], None):
        if text is None:
            certificate.unlink()
        else:
            certificate.write_bytes(text)
        done = daemon.ctl("reload", check=False)
        assert done.returncode != 0 and "good" in done.stdout + done.stderr
        assert certificate_of(ports(daemon)[0]) == before
    certificate.write_bytes(good)
    daemon.ctl("reload")
    assert certificate_of(ports(daemon)[0]) == before


def test_a_certificate_is_made_when_there_is_none_and_kept(relayd):
    daemon = relayd(listen=BOTH)
    first = certificate_of(ports(daemon)[0])
    daemon.stop()
    daemon.start()
    assert certificate_of(ports(daemon)[0]) == first
    code, told = s_client(daemon, "-showcerts", starttls=False)
    assert code == 0 and "prime256v1" in told or "P-256" in told or "ECDSA" in told


def test_what_an_app_has_wrong_is_told(relayd, upstream):
    """TLS where STARTTLS is wanted, the reverse, and a certificate that it does not trust."""
    daemon = relayd(relayhost(upstream.port), listen=BOTH)
    starttls, implicit = ports(daemon)
    with socket.create_connection(("127.0.0.1", starttls)) as raw, pytest.raises(OSError):
        insecure().wrap_socket(raw)
    daemon.wait_log("event=tls_failed .*the client speaks TLS from the first octet: it must use STARTTLS here")
    with socket.create_connection(("127.0.0.1", implicit)) as raw:
        raw.sendall(b"EHLO app.test\r\n")
        daemon.wait_log("event=tls_failed .*speaks plain text, not TLS")
    with socket.create_connection(("127.0.0.1", implicit)) as raw, pytest.raises(ssl.SSLCertVerificationError):
        ssl.create_default_context().wrap_socket(raw, server_hostname="localhost")
    daemon.wait_log("event=tls_failed .*(perhaps it does not trust this certificate|Unknown|unknown|bad certificate)")

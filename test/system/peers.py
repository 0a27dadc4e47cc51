"""Real peers: an SMTP server (aiosmtpd) that records and misbehaves on request, and a DNS server (knot)."""
import queue
import shutil
import socket
import ssl
import subprocess
import threading

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

PATIENCE = 30
SMTP.line_length_limit = 1 << 20  # relayd passes long lines on; whether a server takes them is not the question here


class Received:
    """One message as it arrived."""

    def __init__(self, envelope, session, data):
        self.mail_from = envelope.mail_from
        self.mail_options = list(envelope.mail_options)
        self.rcpt_tos = list(envelope.rcpt_tos)
        self.data = data
        self.tls = session.ssl is not None
        self.login = getattr(session, "login", None)
        self.helo = session.host_name

    @property
    def head(self):
        return self.data.split(b"\r\n\r\n", 1)[0].decode("utf-8", "surrogateescape")


class Upstream:
    """aiosmtpd on a free port. `replies` maps a stage ("mail", "rcpt", "data") to a list of replies to give first, each
    used once; None means the normal answer."""

    def __init__(self, tls_context=None, require_tls=False, credentials=None, port=0, host="127.0.0.1", hostname="upstream.test",
                 smtputf8=True):
        self.messages = queue.Queue()
        self.replies = {"mail": [], "rcpt": [], "data": []}
        self.lock = threading.Lock()
        self.credentials = credentials
        self.sessions = 0
        self.options = dict(server_hostname=hostname, decode_data=False, enable_SMTPUTF8=smtputf8)
        if tls_context:
            self.options.update(tls_context=tls_context, require_starttls=require_tls)
        if credentials:
            self.options.update(authenticator=self.authenticate, auth_required=True, auth_require_tls=tls_context is not None)
        self.host, self.port = host, port or free_port(host)
        self.controller = None

    def authenticate(self, server, session, envelope, mechanism, data):
        good = isinstance(data, LoginPassword) and (data.login.decode(), data.password.decode()) == self.credentials
        if good:
            session.login = data.login.decode()
        return AuthResult(success=good, handled=False)

    def _next_reply(self, stage):
        with self.lock:
            return self.replies[stage].pop(0) if self.replies[stage] else None

    async def handle_MAIL(self, server, session, envelope, address, options):
        reply = self._next_reply("mail")
        if reply:
            return reply
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 Ok"

    async def handle_RCPT(self, server, session, envelope, address, options):
        reply = self._next_reply("rcpt")
        if reply:
            return reply
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server, session, envelope):
        reply = self._next_reply("data")
        if reply:
            return reply
        self.messages.put(Received(envelope, session, envelope.content))
        return "250 2.0.0 taken"

    def start(self):
        outer = self

        class Counting(Controller):
            def factory(self):
                outer.sessions += 1
                return super().factory()

        self.controller = Counting(self, hostname=self.host, port=self.port, **self.options)
        self.controller.start()
        self.sessions = 0  # it has looked for itself whether the server answers

    def stop(self):
        if self.controller:
            self.controller.stop()
            self.controller = None

    def get(self, timeout=PATIENCE):
        """The next message."""
        try:
            return self.messages.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError("no message arrived") from None

    def get_many(self, count):
        return [self.get() for _ in range(count)]


def free_port(host="127.0.0.1"):
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def free_udp_port():
    """Free for TCP too."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, socket.socket() as other:
            probe.bind(("127.0.0.1", 0))
            try:
                other.bind(probe.getsockname())
            except OSError:
                continue
            return probe.getsockname()[1]


class DnsServer:
    """knotd, authoritative for the zones given, on one free port for UDP and TCP."""

    def __init__(self, folder):
        self.folder = folder
        self.host, self.port = "127.0.0.1", free_udp_port()
        self.process = None

    def write_zone(self, path, name, text):
        path.write_text(f"$ORIGIN {name}.\n$TTL 60\n@ SOA ns.{name}. admin.{name}. 1 3600 900 86400 60\n@ NS ns.{name}.\n"
                        f"ns A 127.0.0.1\n{text}")

    def start(self, zones):
        """zones: {"example.net": "@ MX 10 mx1\\nmx1 A 127.0.0.2\\n", ...}"""
        self.folder.mkdir(parents=True, exist_ok=True)
        listed = ""
        for name, text in zones.items():
            path = self.folder / f"{name}.zone"
            self.write_zone(path, name, text)
            listed += f"  - domain: {name}\n    file: {path}\n"
        config = self.folder / "knot.conf"
        config.write_text(f"server:\n  rundir: {self.folder}\n  listen: {self.host}@{self.port}\n  udp-workers: 1\n"
                          f"  tcp-workers: 1\n  background-workers: 1\n"
                          f"log:\n  - target: stderr\n    any: info\n"
                          f"database:\n  storage: {self.folder}\n"
                          f"template:\n  - id: default\n    storage: {self.folder}\n    journal-content: none\n"
                          f"zone:\n{listed}")
        knotd = shutil.which("knotd") or "/usr/sbin/knotd"
        self.process = subprocess.Popen([knotd, "-c", str(config)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                        text=True)
        seen = []
        for line in self.process.stderr:
            seen.append(line)
            if "server started" in line:
                break
        else:
            raise AssertionError("knotd did not start:\n" + "".join(seen))
        self.drain = threading.Thread(target=self.process.stderr.read, daemon=True)
        self.drain.start()
        return self

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait()
            self.drain.join()
            self.process = None


def make_certificate(folder, name="localhost", days=30, names=("localhost",), ips=("127.0.0.1",)):
    """A self-signed certificate: (certificate path, key path)."""
    key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
    alternatives = ",".join([f"DNS:{n}" for n in names] + [f"IP:{i}" for i in ips])
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
                    str(days), "-keyout", str(key), "-out", str(certificate), "-subj", f"/CN={name}", "-addext",
                    f"subjectAltName={alternatives}"], check=True, capture_output=True)
    return certificate, key


def server_context(folder, **options):
    certificate, key = make_certificate(folder, **options)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate

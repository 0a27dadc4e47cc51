"""What it takes to try DANE and MTA-STS: signed zones behind a validating resolver, an authority, a policy server."""
import datetime
import hashlib
import http.server
import ipaddress
import queue
import shutil
import socketserver
import ssl
import subprocess
import threading

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from peers import PATIENCE, DnsServer, free_udp_port


class SignedDns(DnsServer):
    """knotd with zones that kzonesign has signed, and unbound in front, which validates them from their own keys."""

    def __init__(self, folder):
        super().__init__(folder)
        self.anchors = []
        self.signed = []
        self.tampered = ()
        self.resolver_port = None
        self.resolver = self.resolver_drain = None

    def start(self, zones, signed=(), tampered=()):
        """`signed`: names of zones; `tampered`: (old, new) replaced in all of them after they were signed."""
        self.signed, self.tampered = list(signed), tampered
        super().start(zones)
        self.start_resolver(zones)
        return self

    def write_zone(self, path, name, text):
        super().write_zone(path, name, text)
        if name not in self.signed:
            return
        config = self.folder / "sign.conf"
        config.write_text(f"server:\n  rundir: {self.folder}\ndatabase:\n  storage: {self.folder}\n"
                          f"policy:\n  - id: once\n    algorithm: ecdsap256sha256\n    single-type-signing: on\n"
                          f"template:\n  - id: default\n    storage: {self.folder}\n    journal-content: none\n"
                          f"    dnssec-policy: once\nzone:\n  - domain: {name}\n    file: {path}\n")
        out = self.folder / "signed"
        out.mkdir(exist_ok=True)
        subprocess.run(["kzonesign", "-c", config, "-o", out, name], check=True, capture_output=True)
        ds = subprocess.run([shutil.which("keymgr") or "/usr/sbin/keymgr", "-c", config, name, "ds"], check=True,
                            capture_output=True, text=True).stdout
        self.anchors += [line for line in ds.splitlines() if " DS " in line]
        text = (out / path.name).read_text()
        for old, new in self.tampered:
            text = text.replace(old, new)
        path.write_text(text)

    def start_resolver(self, zones):
        """Somebody else may take the port before unbound does: then another one."""
        for _ in range(5):
            self.resolver_port = free_udp_port()
            said = self.try_resolver(zones)
            if "start of service" in said:
                self.resolver_drain = threading.Thread(target=self.resolver.stderr.read, daemon=True)
                self.resolver_drain.start()
                return
            self.resolver.wait()
            self.resolver = None
            if "Address already in use" not in said:
                break
        raise AssertionError(f"unbound did not start:\n{said}")

    def try_resolver(self, zones):
        """What it said until it served, or ended."""
        config = self.folder / "unbound.conf"
        anchors = "".join(f'  trust-anchor: "{anchor}"\n' for anchor in self.anchors)
        stubs = "".join(f"stub-zone:\n  name: {name}\n  stub-addr: 127.0.0.1@{self.port}\n" for name in zones)
        config.write_text(f'server:\n  interface: 127.0.0.1@{self.resolver_port}\n  directory: "{self.folder}"\n'
                          f'  chroot: ""\n  username: ""\n  pidfile: ""\n  do-daemonize: no\n  use-syslog: no\n'
                          f'  verbosity: 1\n  num-threads: 1\n  do-not-query-localhost: no\n'
                          f'  module-config: "validator iterator"\n  qname-minimisation: no\n{anchors}'
                          f'remote-control:\n  control-enable: no\n{stubs}')
        unbound = shutil.which("unbound") or "/usr/sbin/unbound"
        self.resolver = subprocess.Popen([unbound, "-d", "-c", str(config)], stderr=subprocess.PIPE,
                                         stdout=subprocess.DEVNULL, text=True)
        said = ""
        for line in self.resolver.stderr:
            said += line
            if "start of service" in line:
                break
        return said

    def stop(self):
        if self.resolver:
            self.resolver.terminate()
            self.resolver.wait()
        if self.resolver_drain:
            self.resolver_drain.join()
        self.resolver = self.resolver_drain = None
        super().stop()


class Authority:
    """Issues certificates; its own one is in `pem`."""

    def __init__(self, folder, name="authority"):
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(self.name, self.key, self.name, x509.BasicConstraints(ca=True, path_length=None))
        self.pem = folder / f"{name}.pem"
        self.pem.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        self.pem.chmod(0o644)

    def _sign(self, subject, key, issuer, constraints, names=(), usage=None, days=30):
        now = datetime.datetime.utcnow()
        begin = now - datetime.timedelta(days=60 if days < 0 else 1)
        builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
                   .serial_number(x509.random_serial_number()).not_valid_before(begin)
                   .not_valid_after(now + datetime.timedelta(days=days)).add_extension(constraints, critical=True))
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([general_name(n) for n in names]), critical=False)
        if usage:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, *names, days=30, usage=ExtendedKeyUsageOID.SERVER_AUTH):
        """(certificate with chain, key) as paths, for these names."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        leaf = self._sign(subject, key, self.name, x509.BasicConstraints(ca=False, path_length=None), names, usage, days)
        chain, key_path = (self.folder / f"{names[0]}-{leaf.serial_number}.{kind}" for kind in ("pem", "key"))
        chain.write_bytes(leaf.public_bytes(serialization.Encoding.PEM)
                          + self.certificate.public_bytes(serialization.Encoding.PEM))
        key_path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                               serialization.NoEncryption()))
        for file in chain, key_path:
            file.chmod(0o644)
        return Issued(leaf, chain, key_path)


def general_name(name):
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class Issued:
    def __init__(self, certificate, chain, key):
        self.certificate, self.chain, self.key = certificate, chain, key

    def context(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain, self.key)
        return context


def tlsa(certificate, usage, selector=1, matching=1):
    """The data of a TLSA record, as a zone has it."""
    data = certificate.public_bytes(serialization.Encoding.DER)
    if selector == 1:
        data = certificate.public_key().public_bytes(serialization.Encoding.DER,
                                                     serialization.PublicFormat.SubjectPublicKeyInfo)
    digest = {0: data, 1: hashlib.sha256(data).digest(), 2: hashlib.sha512(data).digest()}[matching]
    return f"{usage} {selector} {matching} {digest.hex()}"


class PolicyServer:
    """An HTTPS server for mta-sts.DOMAIN. `pages`: {host: (status, content type, text)}; None: no answer at all until
    the server stops. Requests are recorded as (host, path)."""

    def __init__(self, context, host="127.0.0.1"):
        self.pages = {}
        self.requests = []
        self.over = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.headers["Host"].split(":")[0]
                outer.requests.append((name, self.path))
                page = outer.pages.get(name, (404, "text/plain", "nothing here\n"))
                if page is None:
                    outer.over.wait()
                    return
                status, kind, text = page
                self.send_response(status)
                self.send_header("Content-Type", kind)
                if status in (301, 302):
                    self.send_header("Location", f"https://{name}:{outer.port}/elsewhere")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request, client_address):
                pass  # a client that does not like the certificate

            def get_request(self):
                connection, address = super().get_request()
                connection.settimeout(30)
                return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

        self.server = Server((host, 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def publish(self, domain, mode="enforce", mx=(), max_age=604800, **changes):
        text = f"version: STSv1\nmode: {mode}\n" + "".join(f"mx: {pattern}\n" for pattern in mx) + f"max_age: {max_age}\n"
        page = dict(status=200, kind="text/plain", text=text)
        page.update(changes)
        self.pages[f"mta-sts.{domain}"] = (page["status"], page["kind"], page["text"])

    def stop(self):
        self.over.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()




class ScriptedMx:
    """An SMTP server that offers STARTTLS and then misbehaves as `trick` says:

    garbage, close, stall   instead of a handshake
    inject                  replies in clear text behind the 220, in the same segment
    None                    does what it should

    `offers`: the keywords of EHLO, before and after TLS. `demands_tls`: no mail without it. `commands`: (connection, is TLS, line) of all that came."""

    def __init__(self, context, trick=None, host="127.0.0.2", offers=(("STARTTLS",), ()), demands_tls=False):
        self.context, self.trick, self.offers, self.demands_tls = context, trick, offers, demands_tls
        self.commands = []
        self.messages = queue.Queue()
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.connections = 0
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                with outer.lock:
                    outer.connections += 1
                    number = outer.connections
                try:
                    outer.serve(self.request, number)
                except (OSError, EOFError):
                    pass

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

        self.server = Server((host, 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def serve(self, sock, number):
        sock.settimeout(30)
        stream, is_tls = sock.makefile("rwb"), False
        self.say(stream, "220 mx.test ESMTP")
        while True:
            line = self.line(stream)
            verb = line.upper().split(" ")[0]
            with self.lock:
                self.commands.append((number, is_tls, line))
            if verb == "EHLO":
                words = ["mx.test", *self.offers[is_tls]]
                self.say(stream, *[f"250-{word}" for word in words[:-1]], f"250 {words[-1]}")
            elif verb == "STARTTLS":
                injected = ["250-mx.test", "250-SIZE 1", "250 AUTH PLAIN"] if self.trick == "inject" else []
                self.say(stream, "220 go ahead", *injected)
                if self.trick == "garbage":
                    self.say(stream, *["this is no TLS"] * 50)
                if self.trick == "stall":
                    self.over.wait()
                if self.trick in ("garbage", "close", "stall"):
                    return
                stream, is_tls = self.context.wrap_socket(sock, server_side=True).makefile("rwb"), True
            elif verb in ("MAIL", "RCPT", "DATA") and self.demands_tls and not is_tls:
                self.say(stream, "530 5.7.0 Must issue a STARTTLS command first")
            elif verb == "DATA":
                self.say(stream, "354 go ahead")
                lines = []
                while (line := self.line(stream)) != ".":
                    lines.append(line)
                self.messages.put((is_tls, lines))
                self.say(stream, "250 2.0.0 taken")
            elif verb == "QUIT":
                self.say(stream, "221 bye")
                return
            else:
                self.say(stream, "250 2.0.0 ok")

    @staticmethod
    def say(stream, *lines):
        stream.write("".join(f"{line}\r\n" for line in lines).encode())
        stream.flush()

    @staticmethod
    def line(stream):
        line = stream.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError
        return line[:-2].decode("latin-1")

    def get(self):
        """(whether by TLS, lines) of the next message."""
        try:
            return self.messages.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError(f"no message arrived; commands: {self.commands}") from None

    def stop(self):
        self.over.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

"""A client without manners: bytes and replies over a real socket, TLS when it is told to."""
import base64
import select
import socket
import ssl
import time

PATIENCE = 30


class Reply(str):
    """A whole reply, lines joined by newlines; .code is its number."""

    @property
    def code(self):
        return int(self[:3])


class Wire:
    def __init__(self, port, host="127.0.0.1", source=None, greet=True, context=None, patience=PATIENCE):
        self.sock = socket.create_connection((host, port), timeout=patience, source_address=source)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.left = b""
        if context:
            self.sock = context.wrap_socket(self.sock)
        self.greeting = self.reply() if greet else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def abort(self):
        """A reset instead of an end."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else data.encode())

    def line(self):
        """The next line without its CRLF; None at the end of the stream."""
        while b"\r\n" not in self.left:
            try:
                data = self.sock.recv(65536)
            except (ConnectionResetError, BrokenPipeError, ssl.SSLError):
                data = b""
            if not data:
                return None
            self.left += data
        line, self.left = self.left.split(b"\r\n", 1)
        return line.decode("ascii")

    def reply(self):
        """None at the end of the stream."""
        lines = []
        while not lines or lines[-1][3:4] == "-":
            line = self.line()
            if line is None:
                return None
            lines.append(line)
        return Reply("\n".join(lines))

    def cmd(self, line):
        self.send(line.encode() + b"\r\n" if isinstance(line, str) else line + b"\r\n")
        return self.reply()

    def ehlo(self, name="app.test"):
        return self.cmd(f"EHLO {name}")

    def starttls(self, context=None, ehlo=True):
        assert self.cmd("STARTTLS").code == 220
        self.sock = (context or insecure()).wrap_socket(self.sock)
        return self.ehlo() if ehlo else None

    def login(self, user="app", password="secret"):
        return self.cmd("AUTH PLAIN " + plain(user, password))

    def ready(self, user="app", password="secret"):
        """EHLO, STARTTLS and AUTH; returns itself."""
        self.ehlo()
        self.starttls()
        assert self.login(user, password).code == 235
        return self

    def envelope(self, sender="app@example.org", *recipients):
        assert self.cmd(f"MAIL FROM:<{sender}>").code == 250
        for recipient in recipients or ["user@example.net"]:
            assert self.cmd(f"RCPT TO:<{recipient}>").code == 250

    def data(self, content):
        """DATA with content that has its dots stuffed and CRLF at the end; the reply to the final dot."""
        assert self.cmd("DATA").code == 354
        self.send(content)
        self.send(b".\r\n")
        return self.reply()

    def message(self, content=None, sender="app@example.org", *recipients):
        self.envelope(sender, *recipients)
        return self.data(content or b"From: app@example.org\r\nSubject: hello\r\n\r\nHello\r\n")

    def is_closed(self, patience=PATIENCE):
        """The server closes within that time; what it still says is dropped."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if not (self.pending() or select.select([self.sock], [], [], deadline - time.monotonic())[0]):
                continue
            try:
                if not self.sock.recv(65536):
                    return True
            except (ConnectionResetError, BrokenPipeError, ssl.SSLError):
                return True
        return False

    def pending(self):
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending()


def plain(user, password, authzid=""):
    return base64.b64encode(f"{authzid}\0{user}\0{password}".encode()).decode()


def insecure(**options):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for key, value in options.items():
        setattr(context, key, value)
    return context

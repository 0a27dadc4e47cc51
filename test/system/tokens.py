"""An OAuth2 token endpoint over HTTPS, and an SMTP server that takes its tokens by XOAUTH2 or OAUTHBEARER."""
import base64
import json
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl

from aiosmtpd.smtp import MISSING, AuthResult

from peers import PATIENCE, Upstream, server_context


class TokenServer:
    """Answers each request with what `answer(form)` gives: (status, dict). `forms` gets each form as it comes."""

    def __init__(self, folder):
        self.context, self.certificate = server_context(folder, name="token")
        self.certificate.chmod(0o644)
        self.forms = queue.Queue()
        self.answer = self.grant
        self.count = 0
        self.valid = set()  # access tokens that an upstream takes
        self.expires_in = 3600
        self.port = 0
        self.server = None
        self.start()

    def grant(self, form):
        self.count += 1
        token = f"access-{self.count}"
        self.valid.add(token)
        return 200, {"access_token": token, "token_type": "Bearer", "expires_in": self.expires_in}

    def rotate(self, form):
        status, grant = self.grant(form)
        return status, {**grant, "refresh_token": f"refresh-{self.count}"}

    @staticmethod
    def refuse(form):
        return 400, {"error": "invalid_grant", "error_description": "The token has been revoked."}

    def start(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                form = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode(), strict_parsing=True))
                status, answer = outer.answer(form)
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(body)
                outer.forms.put(form)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_):
                pass

        self.server = Server(("127.0.0.1", self.port), Handler)
        self.server.socket = self.context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self):
        if self.server:
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()
            self.server = None

    def form(self):
        """The next form."""
        try:
            return self.forms.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError("the token endpoint was not asked") from None

    @property
    def url(self):
        return f"https://localhost:{self.port}/token"


class TokenUpstream(Upstream):
    """Takes the tokens in `valid`; refuses others as Google does: with words in a challenge, then 535."""

    def __init__(self, folder, valid, mechanism="XOAUTH2", user="app@example.org"):
        context, self.certificate = server_context(folder, name="upstream")
        self.certificate.chmod(0o644)
        super().__init__(tls_context=context, require_tls=True)
        others = [m for m in ("LOGIN", "PLAIN", "XOAUTH2", "OAUTHBEARER") if m != mechanism]
        self.options.update(auth_required=True, auth_exclude_mechanism=others)
        self.valid, self.user = valid, user
        self.logins = queue.Queue()

    async def _check(self, server, user, token):
        good = user == self.user and token in self.valid
        self.logins.put((token, good))
        if good:
            return AuthResult(success=True)
        answer = await server.challenge_auth('{"status":"401","schemes":"Bearer","scope":"https://mail.google.com/"}')
        if answer is MISSING:
            return AuthResult(success=False, handled=True)
        return AuthResult(success=False, handled=False, message="535 5.7.8 Username and Password not accepted")

    @staticmethod
    async def _message(server, args):
        return base64.b64decode(args[1], validate=True) if len(args) == 2 else await server.challenge_auth("")

    async def auth_XOAUTH2(self, server, args):
        user, auth, *rest = (await self._message(server, args)).decode().split("\x01")
        assert user.startswith("user=") and auth.startswith("auth=Bearer ") and rest == ["", ""]
        return await self._check(server, user[5:], auth[12:])

    async def auth_OAUTHBEARER(self, server, args):
        header, *fields = (await self._message(server, args)).decode().split("\x01")
        assert header.startswith("n,a=") and header.endswith(",") and fields[-2:] == ["", ""]
        fields = dict(field.split("=", 1) for field in fields[:-2])
        assert fields["port"] == str(self.port)
        return await self._check(server, header[4:-1], fields["auth"].removeprefix("Bearer "))

    def login(self):
        """The next (token, was it good)."""
        try:
            return self.logins.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError("nobody logged in") from None

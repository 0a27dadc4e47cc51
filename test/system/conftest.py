"""Fixtures: the real daemon on free loopback ports, and real peers around it.

Everything a test starts lives in one folder under the system's temporary folder and ends with the test. Nothing waits by
sleeping: the daemon's log, a queue of received messages, or relayctl's answer is awaited.
"""
import json
import os
import queue
import re
import shutil
import signal
import smtplib
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from email.message import EmailMessage
from pathlib import Path

import pytest

from peers import DnsServer, Upstream

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("B", "build/release")
RELAYD = BUILD / "relayd" / "relayd"
RELAYCTL = BUILD / "relayctl" / "relayctl"
sys.path.append(str(ROOT / "test" / "support"))
PATIENCE = 30  # seconds until an awaited event counts as missing


def service_user():
    """Root drops to an unprivileged user; others run as themselves."""
    return "nobody" if os.geteuid() == 0 else None


class Relayd:
    """One relayd with its own folder, configuration and log."""

    def __init__(self, folder, config, environ=None, wrapper=()):
        self.folder = folder
        self.spool = folder / "spool"
        self.config_path = folder / "relayd.yaml"
        self.config = config
        self.environ = environ or {}
        self.wrapper = list(wrapper)
        self.process = None
        self.lines = []
        self.changed = threading.Condition()
        self.addresses = []
        self.http = None

    def write_config(self, text=None):
        if text is not None:
            self.config = text
        if self.config is not None:
            self.config_path.write_text(self.config)

    def spawn(self):
        self.write_config()
        arguments = [str(RELAYD)] + (["-c", str(self.config_path)] if self.config is not None else [])
        environ = {k: v for k, v in os.environ.items() if not k.startswith("RELAYD_")}
        environ.update(self.environ)
        self.process = subprocess.Popen(self.wrapper + arguments, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                                        env=environ, cwd=self.folder)
        self.reader = threading.Thread(target=self._read_log, args=(self.process.stderr, len(self.lines)), daemon=True)
        self.reader.start()

    def _read_log(self, pipe, _start):
        for raw in pipe:
            line = raw.decode("utf-8", "replace").rstrip("\n")
            with self.changed:
                self.lines.append(line)
                self.changed.notify_all()
        with self.changed:
            self.changed.notify_all()

    def start(self):
        mark = len(self.lines)
        self.spawn()
        self.wait_log(r"event=started", since=mark)
        started = self.lines[mark:]
        self.addresses = [m.group(1) for line in started
                          if (m := re.search(r"event=listening .*service=smtp.*address=(\S+)", line))]
        http = [m.group(1) for line in started
                if (m := re.search(r"event=listening .*service=http.*address=(\S+)", line))]
        self.http = http[0] if http else None
        return self

    def wait_log(self, pattern, since=0, count=1):
        """Waits until `count` lines from index `since` on match; returns them."""
        regex = re.compile(pattern)
        deadline = time.monotonic() + PATIENCE
        with self.changed:
            while True:
                found = [line for line in self.lines[since:] if regex.search(line)]
                if len(found) >= count:
                    return found
                left = deadline - time.monotonic()
                if left <= 0 or (self.process.poll() is not None and not self.reader.is_alive()):
                    raise AssertionError(f"no log line {pattern!r}; the log:\n" + "\n".join(self.lines[-60:]))
                self.changed.wait(min(left, 1))

    @property
    def port(self):
        return int(self.addresses[0].rsplit(":", 1)[1])

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.reader.join()

    def stop(self):
        """SIGTERM; returns the exit code."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
        if self.process:
            self.reader.join()
        return self.process.returncode if self.process else None

    def wait_exit(self):
        """For starts that must fail: the exit code."""
        code = self.process.wait(timeout=PATIENCE)
        self.reader.join()
        return code

    def ctl(self, *arguments, check=True, input=None):
        """relayctl against this daemon: CompletedProcess with text output."""
        command = [str(RELAYCTL), "-s", str(self.spool / "control.sock"), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, input=input,
                              cwd=self.folder)
        if check and done.returncode != 0:
            raise AssertionError(f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def json(self, *arguments):
        return json.loads(self.ctl("--json", *arguments).stdout)

    def smtp(self, user="app", password="secret", tls=True, port=None):
        """A smtplib session, logged in."""
        client = smtplib.SMTP("127.0.0.1", port or self.port, timeout=PATIENCE)
        client.ehlo("app.test")
        if tls:
            client.starttls(context=no_verification())
            client.ehlo("app.test")
        if user:
            client.login(user, password)
        return client

    def scrape(self, path="/metrics"):
        """(status, body) of the HTTP listener."""
        import http.client
        host, port = self.http.rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read().decode()
        connection.close()
        return response.status, body

    def metric(self, sample):
        """The value of one sample, e.g. 'relayd_queue_messages{state="ready"}'."""
        for line in self.scrape()[1].splitlines():
            if line.startswith(sample + " "):
                return float(line.rsplit(" ", 1)[1])
        raise AssertionError(f"no sample {sample}")

    def wait_queued(self, count):
        """Until so many messages are in the queue, in whatever state; of one scrape, since they move between states."""
        for _ in range(PATIENCE * 10):
            queued = sum(map(int, re.findall(r'^relayd_queue_messages{state="\w+"} (\d+)', self.scrape()[1], re.M)))
            if queued == count:
                return
            threading.Event().wait(0.1)
        raise AssertionError(f"{queued} messages are queued, not {count}")


def child_named(daemon, name):
    pid = daemon.process.pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if Path(f"/proc/{child}/comm").read_text().strip() == name:
            return int(child)
    raise AssertionError(f"no process {name}")


def no_verification():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def message(subject="test", sender="app@example.org", to="user@example.net", body="Hello\n", **headers):
    """A small complete message."""
    mail = EmailMessage()
    mail["From"] = sender
    mail["To"] = to
    mail["Subject"] = subject
    for name, value in headers.items():
        mail[name.replace("_", "-")] = value
    mail.set_content(body)
    return mail


@pytest.fixture
def folder():
    """A folder that the service user may walk through."""
    path = Path(tempfile.mkdtemp(prefix="relayd-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def upstream():
    """An SMTP server that records what it takes."""
    server = Upstream()
    server.start()
    yield server
    server.stop()


def servers(make):
    """What a fixture yields from: start(...) -> make(...), started. All are stopped at the end."""
    started = []

    def start(**options):
        server = make(**options)
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def make_upstream():
    yield from servers(Upstream)


@pytest.fixture
def dns(folder):
    """knotd with a zone that the test fills: dns.zone(text)."""
    server = DnsServer(folder / "dns")
    yield server
    server.stop()


USERS_SECRET = "secret"


def users_line(name="app", password=USERS_SECRET, options=""):
    import hashlib
    import base64
    digest = hashlib.blake2b(password.encode(), digest_size=32).digest()
    return f"{name}:$b2${base64.b64encode(digest).decode()}{options}\n"


@pytest.fixture
def relayd(folder):
    """relayd(extra yaml, ...) -> a started Relayd; all are stopped at the end."""
    running = []

    def start(extra="", start=True, users=users_line(), environ=None, listen=None, wrapper=()):
        (folder / "users").write_text(users)
        (folder / "users").chmod(0o644)
        user = service_user()
        config = "hostname: relay.example.org\n"
        config += f"spool: {folder / 'spool'}\n"
        config += "ephemeral_spool: allow\n"
        if user:
            config += f"user: {user}\n"
        config += f"users: {folder / 'users'}\n"
        config += listen if listen is not None else "listen:\n  - {address: '127.0.0.1:0', tls: starttls, auth: required}\n"
        config += "http: 127.0.0.1:0\n"
        config += extra
        daemon = Relayd(folder, config, environ, wrapper)
        running.append(daemon)
        return daemon.start() if start else daemon

    yield start
    codes = []
    for daemon in running:
        was_running = daemon.process is not None and daemon.process.poll() is None
        try:
            code = daemon.stop()
        finally:
            if os.environ.get("SHOW_LOG"):
                print("\n".join(daemon.lines))
        if was_running:
            codes.append((code, daemon.lines[-40:]))
    for code, lines in codes:
        assert code == 0, f"relayd ended with {code}:\n" + "\n".join(lines)


def relayhost(port, host="127.0.0.1", name="main", tls="none", **options):
    """YAML for one relayhost on loopback."""
    text = f"relayhosts:\n  {name}:\n    address: {host}:{port}\n    tls: {tls}\n"
    for key, value in options.items():
        text += f"    {key}: {value}\n"
    return text


FAST_RETRY = """\
retry:
  greylist: [1s]
  throttle: [1s]
  connect: [1s]
  default: [1s]
"""

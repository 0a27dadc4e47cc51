"""Each command of relayctl against a daemon with 100,000 messages waiting.

The queue is built once, by pipelined SMTP, for a relayhost that refuses connections. Each test that changes it has a
domain or a sender of its own.
"""
import json
import shutil
import tempfile
import threading
from pathlib import Path

import pytest

from conftest import Relayd, service_user, users_line
from peers import free_port
from wire import Wire, plain

MESSAGES = 100_000
SESSIONS = 80
DOMAINS = 20
USERS = ["app", "cron", "shop", "mailer"]


def load(daemon, session, numbers):
    """Sends these messages over one connection; reads as it writes."""
    user = USERS[session % len(USERS)]
    with Wire(daemon.port) as wire:
        wire.ehlo()
        assert wire.cmd("AUTH PLAIN " + plain(user, "secret")).code == 235
        for start in range(0, len(numbers), 100):
            batch = numbers[start:start + 100]
            text = b""
            for n in batch:
                text += (f"MAIL FROM:<sender{n % 10}@example.org>\r\nRCPT TO:<user{n}@d{n % DOMAINS}.example>\r\nDATA\r\n"
                         f"From: sender{n % 10}@example.org\r\nTo: user{n}@d{n % DOMAINS}.example\r\n"
                         f"Subject: number {n}\r\n\r\nHello {n}\r\n.\r\n").encode()
            wire.send(text)
            for n in batch:
                codes = [wire.reply().code for _ in range(4)]
                assert codes == [250, 250, 354, 250], codes


class Loaded(Relayd):
    def fill(self):
        failures = []

        def run(session):
            try:
                load(self, session, range(session, MESSAGES, SESSIONS))
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=run, args=(s,)) for s in range(SESSIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures, failures


@pytest.fixture(scope="module")
def big():
    folder = Path(tempfile.mkdtemp(prefix="relayd-test-"))
    folder.chmod(0o755)
    (folder / "users").write_text("".join(users_line(name) for name in USERS))
    (folder / "users").chmod(0o644)
    user = service_user()
    config = (f"hostname: relay.example.org\nspool: {folder / 'spool'}\nephemeral_spool: allow\n"
              + (f"user: {user}\n" if user else "")
              + f"users: {folder / 'users'}\nhttp: 127.0.0.1:0\n"
              "limits: {messages_per_connection: 1000000}\n"
              "listen:\n  - {address: '127.0.0.1:0', tls: off, auth: required, allow_plaintext_auth: true}\n"
              f"relayhosts:\n  main: {{address: '127.0.0.1:{free_port()}', tls: none}}\n")
    daemon = Loaded(folder, config)
    try:
        daemon.start()
        daemon.fill()
        yield daemon
        assert daemon.stop() == 0
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.kill()
        shutil.rmtree(folder, ignore_errors=True)


def test_status(big):
    status = big.json("status")
    assert sum(state["messages"] for state in status["queue"].values()) == MESSAGES

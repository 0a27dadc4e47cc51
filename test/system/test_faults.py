"""Signals in every state, no memory, long queues, sick destinations: nothing that was promised is lost, and nobody else waits."""
import concurrent.futures
import os
import pwd
import signal
import socket
import subprocess
import threading

import pytest

from conftest import BUILD, FAST_RETRY, PATIENCE, relayhost, service_user
from wire import Wire

CLEAR = "listen:\n  - {address: '127.0.0.1:0', tls: optional, allow_plaintext_auth: true}\n"


def subject_of(mail):
    return next(line.removeprefix("Subject: ") for line in mail.head.splitlines() if line.startswith("Subject: "))


def status_kilobytes(daemon, key):
    with open(f"/proc/{daemon.process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(key + ":"))


def submit_many(daemon, subjects, recipient, clients=4, header=b""):
    """Over a few connections, each message in one round trip after the first; returns those that got their 250."""
    taken, lock = [], threading.Lock()
    begin = f"MAIL FROM:<app@example.org>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode()

    def client(mine):
        with Wire(daemon.port) as wire:
            wire.ehlo()
            wire.login()
            for number, subject in enumerate(mine):
                if number % 900 == 899:
                    break
                wire.send(begin)
                assert [wire.reply().code for _ in range(3)] == [250, 250, 354]
                wire.send(b"From: app@example.org\r\n" + header + f"Subject: {subject}\r\n\r\nx\r\n.\r\n".encode())
                assert wire.reply().code == 250
                with lock:
                    taken.append(subject)

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        for done in [pool.submit(client, subjects[at:at + 800]) for at in range(0, len(subjects), 800)]:
            done.result()
    return taken


# ---- signals


def sessions_in_all_states(daemon):
    """name -> a session that has come so far."""
    steps = {"greeted": [], "ehlo": ["EHLO a"], "auth": ["EHLO a", "AUTH LOGIN"], "known": ["EHLO a", "login"],
             "mail": ["EHLO a", "login", "MAIL FROM:<app@example.org>"],
             "rcpt": ["EHLO a", "login", "MAIL FROM:<app@example.org>", "RCPT TO:<user@example.net>"],
             "data": ["EHLO a", "login", "MAIL FROM:<app@example.org>", "RCPT TO:<user@example.net>", "DATA"],
             "content": ["EHLO a", "login", "MAIL FROM:<app@example.org>", "RCPT TO:<user@example.net>", "DATA", b"Subject: content\r\n"],
             "half a line": ["EHLO a", b"NOO"], "handshake": ["EHLO a", "STARTTLS", b"\x16\x03\x01\x02\x00\x01\x00"]}
    sessions = {}
    for name, lines in steps.items():
        sessions[name] = wire = Wire(daemon.port)
        for line in lines:
            if isinstance(line, bytes):
                wire.send(line)
            else:
                assert (wire.login() if line == "login" else wire.cmd(line)).code < 400
    return sessions


def finish_messages(sessions):
    """The transactions under way, from wherever they are; returns how they were answered."""
    rest = {"mail": ["RCPT TO:<user@example.net>", "DATA"], "rcpt": ["DATA"], "data": [], "content": []}
    replies = {}
    for name, lines in rest.items():
        wire = sessions[name]
        for line in lines:
            assert wire.cmd(line).code < 400
        wire.send(b"\r\nlast\r\n.\r\n" if name == "content" else f"Subject: {name}\r\n\r\nx\r\n.\r\n".encode())
        replies[name] = wire.reply().code
    return replies


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGPIPE], ids=["HUP", "PIPE"])
def test_sessions_in_every_state_do_not_mind(relayd, upstream, number):
    """F20: SIGHUP reloads, SIGPIPE is nothing."""
    daemon = relayd(relayhost(upstream.port), listen=CLEAR)
    sessions = sessions_in_all_states(daemon)
    mark = len(daemon.lines)
    daemon.process.send_signal(number)
    if number == signal.SIGHUP:
        daemon.wait_log("event=reloaded", since=mark)
    assert set(finish_messages(sessions).values()) == {250}
    assert sessions["greeted"].ehlo().code == 250
    assert sessions["ehlo"].cmd("NOOP").code == 250
    assert sessions["auth"].cmd("*").code == 501
    assert sessions["known"].message().code == 250
    assert sessions["half a line"].cmd("P").code == 250
    for wire in sessions.values():
        wire.close()
    upstream.get_many(5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_a_stop_in_every_state(relayd, upstream, number):
    """F20: who is idle hears 421, transactions under way are finished, the rest is cut when the patience is over; each 250
    stays true."""
    daemon = relayd(relayhost(upstream.port) + "stop_timeout: 3s\n" + FAST_RETRY, listen=CLEAR)
    upstream.stop()
    sessions = sessions_in_all_states(daemon)
    early = sessions["known"].message(b"Subject: early\r\n\r\nx\r\n")
    daemon.process.send_signal(number)
    daemon.wait_log("event=stopping")
    for name in ("greeted", "ehlo", "auth", "known"):
        assert sessions[name].reply().startswith("421 4.3.2"), name
        assert sessions[name].is_closed()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", daemon.port), timeout=PATIENCE)
    replies = finish_messages(sessions)
    assert early.code == 250 and set(replies.values()) == {250}
    for name in replies:
        assert sessions[name].reply().startswith("421 4.3.2")
    daemon.process.send_signal(signal.SIGINT)  # impatience changes nothing
    assert daemon.wait_exit() == 0
    assert sessions["handshake"].is_closed()
    upstream.start()
    daemon.start()
    assert sorted(subject_of(mail) for mail in upstream.get_many(5)) == sorted([*replies, "early"])
    assert daemon.ctl("verify", daemon.spool).returncode == 0


# ---- memory


def limit_address_space(daemon, octets):
    """As the daemon's own user, who may do that without privileges."""
    user = service_user()
    identity = dict(user=user, group=pwd.getpwnam(user).pw_gid, extra_groups=[]) if user else {}
    subprocess.run(["prlimit", "--pid", str(daemon.process.pid), f"--as={octets}:{octets}"], check=True, **identity)


@pytest.mark.skipif("asan" in BUILD.name, reason="the sanitizer's address space has no such limit")
@pytest.mark.parametrize("spare", [0, 300 * 1024, 2 * 1024 * 1024])
def test_without_memory_the_daemon_ends_and_loses_nothing(relayd, upstream, spare):
    """F16: so many octets more and no allocation succeeds. It may refuse, or abort: the journal restarts it."""
    upstream.stop()
    daemon = relayd(relayhost(upstream.port) + FAST_RETRY, listen=CLEAR)
    taken = submit_many(daemon, [f"before-{n}" for n in range(20)], "user@example.net")
    clients = [Wire(daemon.port) for _ in range(20)]
    for number, wire in enumerate(clients):
        wire.ehlo()
        wire.login()
        wire.envelope()
        assert wire.cmd("DATA").code == 354
    limit = status_kilobytes(daemon, "VmSize") * 1024 + spare
    limit_address_space(daemon, limit)
    for number, wire in enumerate(clients):
        try:
            wire.send(f"Subject: during-{number}\r\n".encode() + (b"X: " + b"y" * 900 + b"\r\n") * 220)
        except OSError:
            pass
    for number, wire in enumerate(clients):
        try:
            wire.send(b"\r\nbody\r\n.\r\n")
            if (reply := wire.reply()) and reply.code == 250:
                taken.append(f"during-{number}")
        except OSError:
            pass
        wire.close()
    assert daemon.wait_exit() == -signal.SIGABRT
    upstream.start()
    daemon.start()
    arrived = set()
    while not set(taken) <= arrived:
        arrived.add(subject_of(upstream.get()))
    assert arrived <= {f"{when}-{n}" for when in ("before", "during") for n in range(20)}


# ---- many messages


MANY = 20000 if os.environ.get("LONG") else 3000


def test_a_long_queue_is_small_starts_quickly_and_lets_the_urgent_pass(relayd, upstream):
    """F17: in the size that fits a test; the index of a million is measured in test/unit/queue/test_index.c."""
    upstream.stop()
    daemon = relayd(relayhost(upstream.port) + FAST_RETRY, listen=CLEAR)
    submit_many(daemon, ["warm"], "user@example.net")
    before = status_kilobytes(daemon, "VmRSS")
    subjects = [f"waiting-{n}" for n in range(MANY)]
    assert sorted(submit_many(daemon, subjects, "user@example.net")) == sorted(subjects)
    grown = status_kilobytes(daemon, "VmRSS") - before
    assert daemon.stop() == 0
    daemon.start()
    started = status_kilobytes(daemon, "VmRSS")
    print(f"{MANY} messages: {grown} KiB more, {started} KiB after the restart")
    if "asan" not in BUILD.name:
        assert grown < 4 * 1024 + MANY // 4 and started < before + 4 * 1024 + MANY // 4
    daemon.wait_queued(MANY + 1)
    upstream.start()
    daemon.ctl("flush")
    upstream.get()
    submit_many(daemon, ["urgent"], "user@example.net", header=b"X-Relayd-Class: transactional\r\n")
    arrived = [subject_of(mail) for mail in upstream.get_many(MANY + 1)]
    assert len(set(arrived)) == MANY + 1 and set(arrived) <= {*subjects, "warm", "urgent"}
    assert arrived.index("urgent") < len(arrived) - 100


class Tarpit:
    """Accepts, and never says a word."""

    def __init__(self):
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.sock.getsockname()[1]
        self.held = []
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self):
        while True:
            try:
                self.held.append(self.sock.accept()[0])
            except OSError:
                return

    def close(self):
        self.sock.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        for sock in [self.sock, *self.held]:
            sock.close()


def test_a_dead_destination_with_many_messages_delays_nobody(relayd, upstream):
    """F18: what goes elsewhere arrives while all of that waits; and the dead one gets its share of connections, no more."""
    pit = Tarpit()
    yaml = relayhost(upstream.port, name="good") + f"  dead:\n    address: 127.0.0.1:{pit.port}\n    tls: none\n    default: false\n"
    yaml += "routes:\n  - {name: dead, to: [dead.example], via: [dead]}\ndelivery: {per_destination: 5, connections: 10}\n"
    daemon = relayd(yaml, listen=CLEAR)
    stuck = MANY // 3
    assert len(submit_many(daemon, [f"stuck-{n}" for n in range(stuck)], "user@dead.example")) == stuck
    good = [f"good-{n}" for n in range(200)]
    assert len(submit_many(daemon, good, "user@example.net")) == 200
    assert sorted(subject_of(mail) for mail in upstream.get_many(200)) == sorted(good)
    assert 1 <= len(pit.held) <= 5
    daemon.wait_queued(stuck)
    pit.close()

"""A 250 survives."""
import os
import re
import smtplib
import threading
import uuid

from conftest import FAST_RETRY, message, relayhost

ROUNDS = int(os.environ.get("KILL_ROUNDS") or (200 if os.environ.get("LONG") else 20))


def submit_until_killed(daemon, count, acknowledged, lock):
    """Sends `count` messages over as few connections as it can; notes each that got its 250."""
    try:
        with daemon.smtp() as client:
            for _ in range(count):
                token = uuid.uuid4().hex
                client.send_message(message(token, body="x" * 2000 + "\n"))
                with lock:
                    acknowledged.append(token)
    except (OSError, smtplib.SMTPException):
        pass  # the kill


def kill_in_the_middle(relayd_factory, upstream, daemon):
    acknowledged, lock = [], threading.Lock()
    clients = [threading.Thread(target=submit_until_killed, args=(daemon, 50, acknowledged, lock)) for _ in range(20)]
    for client in clients:
        client.start()
    goal = 150 + int.from_bytes(os.urandom(2), "big") % 600
    while any(client.is_alive() for client in clients):
        with lock:
            if len(acknowledged) >= goal:
                break
        clients[0].join(0.005)
        if not clients[0].is_alive():
            clients = [c for c in clients if c.is_alive()] or clients
            if not any(c.is_alive() for c in clients):
                break
    daemon.kill()
    for client in clients:
        client.join()
    return acknowledged


def test_kill_9_in_the_middle_of_submissions(relayd, upstream):
    """J1, J2"""
    daemon = relayd(relayhost(upstream.port) + FAST_RETRY)
    wanted, arrived = set(), {}
    for _ in range(ROUNDS):
        wanted.update(kill_in_the_middle(relayd, upstream, daemon))
        daemon.start()
    while not wanted <= arrived.keys():
        mail = upstream.get()
        subject = re.search(rb"Subject: (\w+)\r\n", mail.data).group(1).decode()
        assert mail.data.count(b"x") >= 2000, "a message arrived that is not whole"
        arrived[subject] = arrived.get(subject, 0) + 1
    assert len(wanted) > 100
    daemon.ctl("flush")
    twice = sum(1 for count in arrived.values() if count > 1)
    print(f"{ROUNDS} kills, {len(wanted)} acknowledged, 0 lost, {twice} delivered twice")


def test_sigterm_and_restart_with_mail_waiting(relayd, upstream):
    upstream.stop()
    daemon = relayd(relayhost(upstream.port) + FAST_RETRY)
    with daemon.smtp() as client:
        for i in range(50):
            client.send_message(message(f"waiting {i}"))
    assert daemon.stop() == 0
    daemon.start()
    assert len(daemon.json("queue")) == 50
    upstream.start()
    daemon.ctl("flush")
    subjects = {re.search(rb"Subject: (.*)\r\n", mail.data).group(1).decode() for mail in upstream.get_many(50)}
    assert subjects == {f"waiting {i}" for i in range(50)}
    assert daemon.ctl("verify", daemon.spool).returncode == 0


def test_a_second_daemon_waits_for_the_first(relayd, upstream):
    """J21"""
    first = relayd(relayhost(upstream.port))
    second = relayd(relayhost(upstream.port), start=False)
    second.spawn()
    second.wait_log("event=spool_locked")
    with first.smtp() as client:
        client.send_message(message())
    upstream.get()
    assert first.stop() == 0
    second.wait_log("event=started")

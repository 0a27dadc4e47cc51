"""Crowds, floods, slow and vanishing clients: nobody locks others out, and nothing wrong gets into the queue."""
import concurrent.futures
import os
import resource
import select
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from conftest import BUILD, PATIENCE, message, relayhost, users_line
from wire import Wire, plain

OPEN = "listen:\n  - {address: '127.0.0.1:0', tls: off, auth: optional, trusted: [127.0.0.0/8]}\n"
CLEAR = "listen:\n  - {address: '127.0.0.1:0', tls: off, allow_plaintext_auth: true}\n"


def limits(**values):
    return "limits: {" + ", ".join(f"{key}: {value}" for key, value in values.items()) + "}\n"


def open_descriptors(daemon):
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def resident_bytes(daemon):
    for line in Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def wait_until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        select.select([], [], [], 0.02)


def idle_connections(port, count):
    return [socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) for _ in range(count)]


def close_all(sockets):
    for sock in sockets:
        sock.close()


@pytest.fixture(autouse=True, scope="module")
def enough_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4096), hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- connections


def test_500_idle_connections_of_one_address_lock_nobody_out(relayd, upstream):
    """F2"""
    daemon = relayd(relayhost(upstream.port))
    crowd = idle_connections(daemon.port, 500)
    begun = time.monotonic()
    with daemon.smtp() as client:
        client.send_message(message("through the crowd"))
    assert time.monotonic() - begun < 10
    assert b"through the crowd" in upstream.get().data
    close_all(crowd)


def test_a_full_house_makes_room_for_who_comes(relayd, upstream):
    """F2"""
    daemon = relayd(relayhost(upstream.port) + limits(connections=20, connections_per_address=1000))
    crowd = idle_connections(daemon.port, 60)
    with Wire(daemon.port).ready() as client:
        assert client.message().code == 250
        # The oldest heard why they had to go.
        first = crowd[0].recv(4096).decode()
        assert first.startswith("220 ") and "421 4.7.0" in first
    daemon.wait_log(r"event=connections_full .*reason=limits.connections")
    upstream.get()
    close_all(crowd)


def test_who_has_logged_in_keeps_the_seat(relayd, upstream):
    daemon = relayd(relayhost(upstream.port) + limits(connections=5))
    members = [Wire(daemon.port).ready() for _ in range(5)]
    late = Wire(daemon.port)
    assert late.greeting.startswith("421 4.7.0") and "limits.connections" in late.greeting
    assert late.is_closed()
    for member in members:
        assert member.message().code == 250
    members[0].cmd("QUIT")
    wait_until(lambda: daemon.metric('relayd_connections{direction="in"}') == 4, "one has left")
    with Wire(daemon.port).ready() as next_one:
        assert next_one.message().code == 250
    upstream.get_many(6)
    close_all(members)


def test_connections_of_one_address_are_limited(relayd):
    daemon = relayd(limits(connections_per_address=3))
    mine = [Wire(daemon.port).ready() for _ in range(3)]
    refused = Wire(daemon.port)
    assert refused.greeting.startswith("421 4.7.0") and "connections_per_address" in refused.greeting
    with Wire(daemon.port, source=("127.0.0.2", 0)) as other:
        assert other.greeting.startswith("220 ")
    close_all(mine)


def test_connections_of_one_user_are_limited(relayd):
    daemon = relayd(limits(connections_per_user=2), users=users_line() + users_line("other"))
    mine = [Wire(daemon.port).ready() for _ in range(2)]
    third = Wire(daemon.port)
    third.ehlo()
    third.starttls()
    reply = third.login()
    assert reply.startswith("421 4.7.0") and "connections_per_user" in reply
    assert third.is_closed()
    with Wire(daemon.port).ready("other"):
        pass
    mine[0].close()
    wait_until(lambda: Wire(daemon.port).ehlo() and try_login(daemon), "the seat is free again")
    close_all(mine)


def try_login(daemon):
    with Wire(daemon.port) as client:
        client.ehlo()
        client.starttls()
        return client.login().code == 235


def test_local_users_are_limited_too(relayd, folder):
    daemon = relayd(limits(connections_per_address=2))
    path = str(daemon.spool / "submit.sock")
    seats = []
    for _ in range(10):
        seat = socket.socket(socket.AF_UNIX)
        seat.settimeout(PATIENCE)
        seat.connect(path)
        seats.append(seat)
    assert daemon.ctl("status").returncode == 0
    assert daemon.metric('relayd_connections{direction="in"}') <= 2
    close_all(seats)


def test_connect_and_go_leaks_no_descriptor(relayd, upstream):
    """F3: 700 connections, half of them reset."""
    daemon = relayd(relayhost(upstream.port))
    with daemon.smtp() as client:
        client.send_message(message("before"))
    upstream.get()
    wait_until(lambda: daemon.metric('relayd_connections{direction="in"}') == 0, "the first client is gone")
    before = open_descriptors(daemon)
    for number in range(700):
        with Wire(daemon.port, greet=False) as client:
            if number % 2:
                client.abort()
    wait_until(lambda: open_descriptors(daemon) <= before + 2, "descriptors are given back")
    with daemon.smtp() as client:
        client.send_message(message("after"))
    upstream.get()


def test_a_shortage_of_descriptors_pauses_and_passes(relayd, upstream):
    """F15: with few descriptors, clients wait; who is in and deliveries go on."""
    daemon = relayd(relayhost(upstream.port) + limits(connections=1000, connections_per_address=1000),
                    wrapper=("sh", "-c", 'ulimit -n 120; exec "$@"', "sh"))
    member = Wire(daemon.port).ready()
    crowd = idle_connections(daemon.port, 200)
    daemon.wait_log("event=accept_paused")
    for _ in range(50):
        assert member.message().code == 250
    upstream.get_many(50)
    close_all(crowd)
    with daemon.smtp() as client:
        client.send_message(message("after the shortage"))
    upstream.get()
    daemon.wait_log("event=accept_resumed")
    member.close()


# ---- rates and options of users


def test_over_its_rate_a_user_hears_when_to_come_back(relayd, upstream):
    daemon = relayd(relayhost(upstream.port), users=users_line(options=":rate=3/h") + users_line("other"))
    with Wire(daemon.port).ready() as one, Wire(daemon.port).ready() as two:
        assert one.message().code == 250
        assert two.message().code == 250
        # A message that is not sent does not count.
        assert one.cmd("MAIL FROM:<app@example.org>").code == 250
        assert one.cmd("RSET").code == 250
        assert one.message().code == 250
        reply = two.cmd("MAIL FROM:<app@example.org>")
        assert reply.startswith("450 4.7.1") and "3/h" in reply and "seconds" in reply
        seconds = int(reply.split(" in ")[1].split()[0])
        assert 1000 < seconds <= 1200
        assert two.cmd("NOOP").code == 250
    with Wire(daemon.port).ready("other") as other:
        assert other.message().code == 250
    upstream.get_many(4)
    assert daemon.metric('relayd_submission_rejections_total{reason="rate"}') == 1


def test_a_message_that_is_refused_or_lost_gives_its_share_back(relayd, upstream):
    daemon = relayd(relayhost(upstream.port) + limits(message_size="10K"), users=users_line(options=":rate=1/h"))
    with Wire(daemon.port).ready() as client:
        client.envelope()
        assert client.data(b"From: a@example.org\r\n\r\n" + b"x" * 70 + (b"\r\n" + b"y" * 70) * 300 + b"\r\n").code == 552
    with Wire(daemon.port).ready() as client:
        client.envelope()
        client.cmd("DATA")
        client.send("Subject: half\r\n")
        client.abort()
    with Wire(daemon.port).ready() as client:
        wait_until(lambda: client.cmd("RSET") and client.cmd("MAIL FROM:<app@example.org>").code == 250,
                   "the vanished client's share is back")
        client.cmd("RSET")
        assert client.message().code == 250
        assert client.cmd("MAIL FROM:<app@example.org>").code == 450
    upstream.get()


def test_class_and_lifetime_of_a_user_are_defaults(relayd, upstream):
    upstream.replies["data"] = ["451 4.3.0 not now"] * 10
    daemon = relayd(relayhost(upstream.port), users=users_line(options=":class=bulk:lifetime=90s") + users_line("other"))

    def submit(client, header=b""):
        reply = client.message(b"From: app@example.org\r\n" + header + b"\r\nHello\r\n")
        assert reply.code == 250
        return daemon.json("show", reply.split()[-1])

    with Wire(daemon.port).ready() as client, Wire(daemon.port).ready("other") as other:
        assert submit(client)["class"] == "bulk"
        assert submit(client, b"X-Relayd-Class: transactional\r\n")["class"] == "transactional"
        assert submit(other)["class"] == "default"


def test_a_lifetime_that_is_over_fails_the_message(relayd, upstream):
    upstream.replies["data"] = ["451 4.3.0 not now"] * 50
    daemon = relayd(relayhost(upstream.port) + "retry: {default: [1s], greylist: [1s]}\nbounce: {mode: none}\n",
                    users=users_line(options=":lifetime=2s"))
    with Wire(daemon.port).ready() as client:
        assert client.message().code == 250
    daemon.wait_log("event=expired .*outcome=expired")


# ---- limits of a session


def test_a_thousand_recipients_then_452_and_each_hears_once(relayd, upstream):
    """F4, F5"""
    daemon = relayd(relayhost(upstream.port) + limits(recipients=120))
    with Wire(daemon.port).ready() as client:
        client.cmd("MAIL FROM:<app@example.org>")
        client.send("".join(f"RCPT TO:<u{n}@example.net>\r\n" for n in range(1000)))
        codes = [client.reply().code for _ in range(1000)]
        assert codes[:120] == [250] * 120 and set(codes[120:]) == {452}
        assert client.data(b"From: app@example.org\r\n\r\nto many\r\n").code == 250
    seen = []
    while len(seen) < 120:
        seen += upstream.get().rcpt_tos
    assert sorted(seen) == sorted(f"u{n}@example.net" for n in range(120))


def test_so_many_messages_on_a_connection(relayd, upstream):
    daemon = relayd(relayhost(upstream.port) + limits(messages_per_connection=3))
    with Wire(daemon.port).ready() as client:
        for _ in range(3):
            assert client.message().code == 250
        assert client.cmd("MAIL FROM:<app@example.org>").startswith("421 4.7.0")
        assert client.is_closed()
    upstream.get_many(3)


def test_endless_commands_and_errors_end(relayd):
    """F6"""
    daemon = relayd()
    for line in ("NOOP", "FROB"):
        with Wire(daemon.port) as client:
            client.ehlo()
            codes = []
            try:
                client.send(f"{line}\r\n" * 10000)
            except OSError:
                pass
            while (reply := client.reply()) is not None:
                codes.append(reply.code)
            assert len(codes) <= 1100 and codes[-1] == 421
    assert try_login(daemon)


def test_silent_clients_are_told_and_closed(relayd):
    daemon = relayd(limits(idle_timeout="1s"))
    with Wire(daemon.port) as silent, Wire(daemon.port).ready() as member:
        assert silent.reply().startswith("421 4.4.2")
        assert silent.is_closed()
        assert member.reply().startswith("421 4.4.2")
    daemon.wait_log("event=rejected .*code=421.*reason=timeout", count=2)


def test_a_session_has_an_end_but_a_message_is_finished(relayd, upstream):
    daemon = relayd(relayhost(upstream.port) + limits(session_timeout="1s"))
    with Wire(daemon.port).ready() as client:
        client.envelope()
        assert client.cmd("DATA").code == 354
        client.send(b"From: app@example.org\r\n\r\n")
        with Wire(daemon.port) as clock:  # one session later, the time of the first is over too
            assert clock.reply().startswith("421 4.4.2")
        client.send(b"slow but whole\r\n.\r\n")
        assert client.reply().code == 250
        assert client.reply().startswith("421 4.4.2")
    assert b"slow but whole" in upstream.get().data


def test_a_trickle_of_octets_does_not_buy_time(relayd):
    """F1: A command that never ends; the deadline is of the whole command."""
    daemon = relayd(limits(idle_timeout="1s"))
    with Wire(daemon.port) as client:
        client.sock.settimeout(0.05)
        reply = b""
        deadline = time.monotonic() + PATIENCE
        while b"421 4.4.2" not in reply and time.monotonic() < deadline:
            try:
                client.send(b"x")
                reply += client.sock.recv(4096)
            except TimeoutError:
                pass
            except OSError:
                break
        assert b"421 4.4.2" in reply


def test_a_header_without_end_is_refused(relayd, upstream):
    """F8"""
    daemon = relayd(relayhost(upstream.port))
    for piece in (b"y" * 4096, b"X-Field: " + b"z" * 60 + b"\r\n"):
        with Wire(daemon.port).ready() as client:
            client.envelope()
            assert client.cmd("DATA").code == 354
            client.send(b"Subject: " + piece * (1024 * 1024 // len(piece)) + b"\r\n\r\nbody\r\n.\r\n")
            assert client.reply().startswith("552 5.3.4")
            assert client.message().code == 250
    upstream.get_many(2)
    assert upstream.messages.empty()


def test_memory_for_clients_has_a_ceiling(relayd, upstream):
    """Headers that wait in memory, of many sessions: 452 before the memory is used up, and all is well afterwards."""
    daemon = relayd(relayhost(upstream.port) + limits(memory="2M", connections_per_address=1000))
    clients = [Wire(daemon.port).ready() for _ in range(20)]
    for client in clients:
        client.envelope()
        assert client.cmd("DATA").code == 354
    for client in clients:
        client.send(b"Subject: " + (b"x" * 70 + b"\r\n ") * 3000)
        assert Wire(daemon.port).ehlo().code == 250  # what came before has been read
    replies = []
    for client in clients:
        client.send(b"end\r\n\r\nbody\r\n.\r\n")
        replies.append(client.reply())
    taken = [reply for reply in replies if reply.code == 250]
    refused = [reply for reply in replies if reply.startswith("452 4.3.1") and "limits.memory" in reply]
    assert len(taken) + len(refused) == 20 and len(taken) >= 4 and len(refused) >= 4
    with Wire(daemon.port).ready() as client:
        assert client.message().code == 250
    close_all(clients)
    upstream.get_many(len(taken) + 1)
    assert upstream.messages.empty()


# ---- clients that stop in the middle


STEPS = [b"MAIL FROM:<app@example.org>\r\n", b"RCPT TO:<user@example.net>\r\n", b"DATA\r\n", b"Subject: never\r\n",
         b"\r\nbody", b"\r\n", b".\r"]


@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_clients_that_go_leave_nothing(relayd, upstream, how):
    """F9, F11: At each step, by an end, a reset, or an end of one direction."""
    daemon = relayd(relayhost(upstream.port), listen=OPEN)
    for steps in range(len(STEPS) + 1):
        client = Wire(daemon.port)
        client.ehlo()
        for step in STEPS[:steps]:
            client.send(step)
            if step[:4] in (b"MAIL", b"RCPT", b"DATA"):
                client.reply()
        if how == "half":
            client.sock.shutdown(socket.SHUT_WR)
            assert client.is_closed()
        client.abort() if how == "reset" else client.close()
    wait_until(lambda: daemon.metric('relayd_connections{direction="in"}') == 0, "all have left")
    with Wire(daemon.port) as client:
        client.ehlo()
        assert client.message().code == 250
    assert b"hello" in upstream.get().data
    assert upstream.messages.empty() and daemon.json("queue") == []


def test_half_closed_after_the_dot_hears_the_answer(relayd, upstream):
    """F11"""
    daemon = relayd(relayhost(upstream.port), listen=OPEN)
    with Wire(daemon.port) as client:
        client.send(b"EHLO app\r\nMAIL FROM:<app@example.org>\r\nRCPT TO:<user@example.net>\r\nDATA\r\n")
        for _ in range(4):
            client.reply()
        client.send(b"Subject: last word\r\n\r\nbody\r\n.\r\n")
        client.sock.shutdown(socket.SHUT_WR)
        assert client.reply().code == 250
        assert client.is_closed()
    assert b"last word" in upstream.get().data


def test_gone_after_the_dot_is_once_or_not_at_all(relayd, upstream):
    """F10"""
    daemon = relayd(relayhost(upstream.port), listen=OPEN)
    for number in range(20):
        client = Wire(daemon.port)
        client.ehlo()
        client.envelope()
        client.cmd("DATA")
        client.send(f"Subject: gone {number}\r\n\r\nbody\r\n.\r\n")
        client.abort() if number % 2 else client.close()
    wait_until(lambda: daemon.metric('relayd_connections{direction="in"}') == 0, "all have left")
    wait_until(lambda: daemon.json("queue") == [], "what was taken is delivered")
    subjects = []
    while not upstream.messages.empty():
        subjects.append([line for line in upstream.get().head.splitlines() if line.startswith("Subject")][0])
    assert len(subjects) == len(set(subjects))


def flood_without_reading(client, request):
    """Writes until the server reads no more; returns how much that was."""
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.sock.setblocking(False)
    sent = 0
    while sent < 64 * 1024 * 1024 and select.select([], [client.sock], [], 0.5)[1]:
        try:
            sent += client.sock.send(request)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            continue
        except OSError:
            break
    return sent


@pytest.mark.parametrize("tls", [False, True], ids=["clear", "tls"])
def test_clients_that_never_read_cost_little(relayd, upstream, tls):
    """F12: replies pile up only so far; then nothing more is read, and what waits is bounded for each client."""
    daemon = relayd(relayhost(upstream.port) + limits(connections_per_address=1000, messages_per_connection=1000000),
                    listen="listen:\n  - {address: '127.0.0.1:0', tls: optional, allow_plaintext_auth: true}\n")
    clients = [Wire(daemon.port) for _ in range(20)]
    for client in clients:
        client.ehlo()
        if tls:
            client.starttls()
        client.login()
    before = resident_bytes(daemon)
    # A message now and then, or the session would end for its many idle commands.
    flood = b"EHLO a\r\n" * 500 + b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n\r\nx\r\n.\r\n"
    with concurrent.futures.ThreadPoolExecutor(len(clients)) as pool:
        sent = list(pool.map(lambda client: flood_without_reading(client, flood), clients))
    assert max(sent) < 32 * 1024 * 1024  # that is in the kernel's buffers
    assert daemon.metric('relayd_connections{direction="in"}') == len(clients)
    if "asan" not in BUILD.name:
        assert (resident_bytes(daemon) - before) / len(clients) < 300 * 1024
    assert try_login(daemon)
    close_all(clients)


def test_100_clients_at_once(relayd, upstream):
    """F13: All get their 250, each message arrives once."""
    daemon = relayd(relayhost(upstream.port), listen=OPEN)
    failures = []

    def client(number):
        try:
            with Wire(daemon.port) as wire:
                wire.ehlo()
                assert wire.message(f"From: a@example.org\r\nSubject: of {number}\r\n\r\nx\r\n".encode()).code == 250
        except Exception as error:  # noqa: BLE001 - told below
            failures.append(repr(error))

    threads = [threading.Thread(target=client, args=(n,)) for n in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    subjects = {line for mail in upstream.get_many(100) for line in mail.head.splitlines() if line.startswith("Subject")}
    assert len(subjects) == 100 and upstream.messages.empty()


# ---- passwords


def test_many_wrong_passwords_are_slowed_down_then_blocked_for_a_while(relayd):
    """E11: The address is blocked for a minute, but who has logged in before still gets in."""
    daemon = relayd(listen=CLEAR, users=users_line() + users_line("other", "else"))
    with Wire(daemon.port) as known:
        known.ehlo()
        assert known.login().code == 235
    replies, lock = [], threading.Lock()

    def guess(number):
        with Wire(daemon.port) as client:
            client.ehlo()
            reply = client.login("app", f"wrong-{number}")
            with lock:
                replies.append(reply)

    for _ in range(2):
        threads = [threading.Thread(target=guess, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    codes = [reply.code for reply in replies]
    assert set(codes) <= {535, 421} and codes.count(535) >= 8
    with Wire(daemon.port) as blocked:
        blocked.ehlo()
        assert blocked.login("other", "else").startswith("421 4.7.0")
    with Wire(daemon.port) as known:
        known.ehlo()
        assert known.login().code == 235
    with Wire(daemon.port, source=("127.0.0.9", 0)) as elsewhere:
        elsewhere.ehlo()
        assert elsewhere.login("other", "else").code == 235
    assert "wrong-" not in "\n".join(daemon.lines)


def test_the_delay_grows_with_each_failure(relayd):
    """E11"""
    daemon = relayd(listen=CLEAR)
    waits = []
    for _ in range(4):
        with Wire(daemon.port) as client:
            client.ehlo()
            begun = time.monotonic()
            assert client.login("app", "wrong").code == 535
            waits.append(time.monotonic() - begun)
    # 250 ms, doubled each time; only a lower bound can be told of a busy machine.
    assert all(wait >= 0.25 * 2 ** n for n, wait in enumerate(waits))


def test_unknown_users_and_wrong_passwords_hear_the_same(relayd):
    """E7, E8"""
    daemon = relayd(listen=CLEAR)
    replies = set()
    for number, (user, password) in enumerate([("app", "wrong"), ("nobody", "secret"), ("app", "secre"), ("app", "secrets"),
                                               ("app", "secret "), ("APP", "secret")]):
        with Wire(daemon.port, source=(f"127.0.0.{number + 10}", 0)) as client:
            client.ehlo()
            replies.add(client.login(user, password))
    assert len(replies) == 1 and replies.pop().startswith("535 5.7.8")


def argon2_user(daemon_folder, name, password):
    """A line as relayctl writes it."""
    import subprocess
    from conftest import RELAYCTL
    path = daemon_folder / "argon2-users"
    secret = daemon_folder / "argon2-password"
    secret.write_text(password)
    config = daemon_folder / "argon2.yaml"
    config.write_text(f"hostname: relay.example.org\nspool: {daemon_folder / 'spool'}\nusers: {path}\n")
    path.write_text("")
    subprocess.run([str(RELAYCTL), "-c", str(config), "user", "add", name, "--password-file", str(secret)], check=True,
                   capture_output=True, timeout=PATIENCE)
    return path.read_text()


def test_50_expensive_passwords_at_once_stall_nobody(relayd, upstream, folder):
    """E13, E16: Half of them hang up while their password is being checked."""
    daemon = relayd(relayhost(upstream.port), listen=CLEAR, users=users_line() + argon2_user(folder, "person", "chosen"))
    with Wire(daemon.port) as member:
        member.ehlo()
        assert member.login().code == 235
        askers = []
        for number in range(50):
            client = Wire(daemon.port)
            client.ehlo()
            client.send(f"AUTH PLAIN {plain('person', 'chosen' if number % 2 else f'guess {number}')}\r\n")
            askers.append(client)
        for number in range(0, 50, 2):
            askers[number].abort()
        begun = time.monotonic()
        for _ in range(20):
            assert member.cmd("NOOP").code == 250
        assert member.message().code == 250
        assert time.monotonic() - begun < 5
        assert {askers[n].reply().code for n in range(1, 50, 2)} <= {235, 421}
        close_all(askers)
    upstream.get()


def test_a_broken_users_file_lets_nobody_in_who_was_not_there(relayd, folder):
    """E17: Broken, empty, unreadable, gone: the former users stay."""
    daemon = relayd(listen=CLEAR)
    users = folder / "users"
    for text in ("app:not-a-secret\n", "\0\0\0", "app\n"):
        users.write_text(text)
        assert daemon.ctl("reload", check=False).returncode != 0
        for user, password, code in [("app", "secret", 235), ("app", "not-a-secret", 535), ("x", "", 535)]:
            with Wire(daemon.port) as client:
                client.ehlo()
                assert client.login(user, password).code in ({code} if code == 235 else {535, 501, 421})
    users.unlink()
    assert daemon.ctl("reload", check=False).returncode != 0
    with Wire(daemon.port) as client:
        client.ehlo()
        assert client.login("app", "secret").code == 235


def test_secrets_are_nowhere(relayd, upstream):
    """E18"""
    daemon = relayd(relayhost(upstream.port) + "log: {level: debug}\n", listen=CLEAR, users=users_line(password="hunter2secret"))
    token = plain("app", "hunter2secret")
    with Wire(daemon.port) as client:
        client.ehlo()
        assert client.login("app", "hunter2secret").code == 235
        assert client.message().code == 250
    with Wire(daemon.port) as client:
        client.ehlo()
        client.login("hunter", "hunter2secret!")
        client.cmd("AUTH LOGIN")
        client.cmd(token)
        client.cmd(token)
    mail = upstream.get()
    pid = daemon.process.pid
    cmdline = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
    shown = daemon.scrape()[1] + daemon.ctl("status").stdout + daemon.ctl("--json", "queue").stdout + "\n".join(daemon.lines)
    for text in (shown, mail.data.decode(), cmdline.decode("utf-8", "replace")):
        assert "hunter2secret" not in text and token not in text


# ---- everything at once


class Load:
    """500 connections: honest, idle, slow and hostile ones, for so many seconds."""

    def __init__(self, daemon, seconds):
        self.daemon, self.until = daemon, time.monotonic() + seconds
        self.acknowledged, self.faults, self.slowest = [], [], 0.0
        self.lock = threading.Lock()

    def over(self):
        return time.monotonic() > self.until

    def honest(self, number):
        source = (f"127.0.1.{number % 200 + 1}", 0)
        count = 0
        while not self.over():
            try:
                with Wire(self.daemon.port, source=source) as client:
                    client.ehlo()
                    if number % 4 == 0:
                        client.starttls()
                    assert client.login().code == 235
                    for _ in range(5):
                        name = f"honest {number} {count}"
                        begun = time.monotonic()
                        reply = client.message(f"From: a@example.org\r\nSubject: {name}\r\n\r\n{'x' * 2000}\r\n".encode())
                        took = time.monotonic() - begun
                        assert reply.code == 250, reply
                        count += 1
                        with self.lock:
                            self.acknowledged.append(name)
                            self.slowest = max(self.slowest, took)
            except Exception as error:  # noqa: BLE001 - told at the end
                with self.lock:
                    self.faults.append(f"honest {number}: {error!r}")
                return

    def idle(self, number):
        """Connects and says nothing, or little; again when it is sent away."""
        while not self.over():
            try:
                with Wire(self.daemon.port, greet=False) as client:
                    client.sock.settimeout(0.2)
                    while not self.over():
                        if number % 2:
                            client.send(b"x")
                        try:
                            if not client.sock.recv(4096):
                                break
                        except TimeoutError:
                            pass
            except OSError:
                pass
            select.select([], [], [], 0.05)

    def hostile(self, number):
        kinds = [b"\x16\x03\x01\x40\x00" + os.urandom(512), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", os.urandom(4096),
                 b"EHLO x\r\n" + b"A" * 200000 + b"\r\n", b"STARTTLS\r\n" + os.urandom(2048), b"EHLO x\r\nSTARTTLS\r\n",
                 b"EHLO x\r\n" + f"AUTH PLAIN {plain('app', 'guess')}\r\n".encode() * 3, b"\0" * 100, b"MAIL FROM:<a@b>\r\nDATA\r\n.\r\n"]
        while not self.over():
            try:
                client = Wire(self.daemon.port, source=(f"127.0.2.{number % 50 + 1}", 0), greet=False)
                client.sock.settimeout(0.3)
                client.send(kinds[number % len(kinds)])
                try:
                    client.sock.recv(4096)
                except TimeoutError:
                    pass
                client.abort() if number % 2 else client.close()
            except OSError:
                pass
            number += 1
            select.select([], [], [], 0.02)

    def run(self):
        jobs = [(self.honest, n) for n in range(40)] + [(self.idle, n) for n in range(420)] + [(self.hostile, n) for n in range(40)]
        threads = [threading.Thread(target=job, args=(n,), daemon=True) for job, n in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def test_load_of_honest_slow_and_hostile_clients(relayd, upstream):
    """F14: 500 connections; LONG=1: a minute. Honest mail is all taken and arrives once; memory does not grow with time."""
    daemon = relayd(relayhost(upstream.port) + limits(connections=400, connections_per_address=200),
                    listen="listen:\n  - {address: '127.0.0.1:0', tls: optional, allow_plaintext_auth: true}\n")
    warm = Load(daemon, 2)
    warm.run()
    after_warming = resident_bytes(daemon)
    load = Load(daemon, 60 if os.environ.get("LONG") else 8)
    load.run()
    assert warm.faults == [] and load.faults == []
    assert len(load.acknowledged) >= 40
    expected = sorted(warm.acknowledged + load.acknowledged)
    arrived = sorted(line.removeprefix("Subject: ") for mail in upstream.get_many(len(expected))
                     for line in mail.head.splitlines() if line.startswith("Subject: "))
    wait_until(lambda: daemon.json("queue") == [], "all is delivered")
    assert len(arrived) == len(expected) and upstream.messages.empty()
    assert arrived == expected
    grown = resident_bytes(daemon) - after_warming
    print(f"{len(expected)} messages, slowest {load.slowest:.2f} s, memory {after_warming} then {grown:+d} octets")
    assert load.slowest < 5
    if "asan" not in BUILD.name:  # which keeps what is freed for a while
        assert grown < 8 * 1024 * 1024, f"{grown} octets more than after two seconds of the same load"

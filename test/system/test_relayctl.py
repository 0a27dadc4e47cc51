"""Each command of relayctl against a daemon with 100,000 messages waiting.

The queue is built once, by pipelined SMTP, for a relayhost that refuses connections. Each test that changes it has a
domain or a sender of its own.
"""
import json
import os
import pty
import re
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from conftest import RELAYCTL, Relayd, service_user, users_line
from peers import free_port
from wire import Wire, plain

MESSAGES = int(os.environ.get("MESSAGES", 100_000))
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


def on_terminal(daemon, arguments, typed, environ=None):
    """relayctl on a terminal of its own: (exit code, all that was shown)."""
    command = [str(RELAYCTL), "-s", str(daemon.spool / "control.sock"), *arguments]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(command[0], command, {**os.environ, "TERM": "xterm", **(environ or {})})
    os.write(terminal, typed.encode())
    shown = b""
    try:
        while data := os.read(terminal, 65536):
            shown += data
    except OSError:  # the other end has closed
        pass
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


def queued(daemon):
    return sum(state["messages"] for state in daemon.json("status")["queue"].values())


# ---- what only looks ----

def test_the_whole_queue_is_listed_while_mail_is_taken(big):
    listing = subprocess.Popen([str(RELAYCTL), "-s", str(big.spool / "control.sock"), "--json", "queue", "--all"],
                               stdout=subprocess.PIPE)
    begin = listing.stdout.read(5000)  # nobody reads on for now: the listing is under way
    with Wire(big.port) as wire:
        wire.ehlo()
        wire.login()
        for number in range(20):
            assert wire.message(None, "during@example.org", f"late{number}@late.example").code == 250
    rows = json.loads(begin + listing.communicate()[0])
    assert listing.returncode == 0
    ids = [row["id"] for row in rows if row["sender"] != "during@example.org"]
    assert len(set(ids)) == len(ids) == MESSAGES
    assert big.ctl("delete", "--domain", "late.example", "--yes").stdout == "deleted 20 messages\n"
    assert queued(big) == MESSAGES


def test_queue_in_order_and_in_pages(big):
    first = big.json("queue", "--limit", "500")
    assert [row["id"] for row in first] == sorted(row["id"] for row in first)
    second = big.json("queue", "--limit", "500", "--after", first[-1]["id"])
    assert second[0]["id"] > first[-1]["id"]
    text = big.ctl("queue", "--limit", "2").stdout
    cursor = text.rsplit("--after ", 1)[1].strip()
    assert [row["id"] for row in big.json("queue", "--limit", "498", "--after", cursor)] == [r["id"] for r in first[2:]]
    soon = big.json("queue", "--sort", "next", "--state", "deferred", "--limit", "1000")
    waits = [row["next_attempt_sec"] for row in soon]
    assert waits == sorted(waits)
    # All of it, sorted: relayctl asks for page after page.
    rows = big.json("queue", "--all", "--sort", "size", "--domain", "d8.example")
    assert len({row["id"] for row in rows}) == MESSAGES // DOMAINS
    sizes = [row["bytes"] for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert big.ctl("queue", "--sort", "beauty", check=False).returncode == 2
    assert big.ctl("queue", "--nonsense", check=False).returncode == 2


def test_queue_by_conditions(big):
    def count(*conditions):
        done = big.ctl("--json", "delete", "--dry-run", *conditions, check=False)
        assert done.returncode in (0, 4)
        return json.loads(done.stdout)["count"]

    assert count("--domain", "D3.example") == MESSAGES // DOMAINS
    assert count("--sender", "sender4@example.org") == MESSAGES // 10
    assert count("--sender", "sender4@example.org", "--domain", "d4.example") == MESSAGES // DOMAINS
    assert count("--sender", "sender4@example.org", "--domain", "d5.example") == 0
    assert count("--recipient", "user77@d17.example") == 1
    assert count("--user", "cron") == MESSAGES // len(USERS)
    assert count("--user", "nobody") == 0
    assert count("--relayhost", "main", "--domain", "d0.example") == MESSAGES // DOMAINS
    assert count("--relayhost", "mx") == 0
    assert count("--class", "bulk") == 0
    assert count("--reason", "greylist") == 0
    # The same conditions for the listing.
    rows = big.json("queue", "--all", "--sender", "sender4@example.org", "--domain", "d4.example")
    assert len(rows) == MESSAGES // DOMAINS and {row["sender"] for row in rows} == {"sender4@example.org"}
    assert {row["recipients"][0].split("@")[1] for row in rows} == {"d4.example"}
    assert count("--age", "1d") == 0 and count("--age", "1s") == MESSAGES
    assert count("--state", "held") == 0
    assert big.ctl("queue", "--state", "nonsense", check=False).returncode == 2
    assert "nothing waits that matches" in big.ctl("queue", "--domain", "none.example").stdout


def test_tail(big):
    """Only what was asked for, from the moment on which it says so."""
    def follow(*conditions):
        tail = subprocess.Popen([str(RELAYCTL), "-s", str(big.spool / "control.sock"), "--json", "tail", "--count", "1",
                                 *conditions], stdout=subprocess.PIPE, text=True)
        assert json.loads(tail.stdout.readline())["event"] == "tail"
        return tail

    by_user = follow("--user", "shop", "--event", "rejected,accepted")
    by_sender = follow("--sender", "watched@example.org", "--event", "operator")
    ids = []
    for user, sender in (("app", "other@example.org"), ("shop", "watched@example.org")):
        with Wire(big.port) as wire:
            wire.ehlo()
            wire.login(user)
            ids.append(wire.message(None, sender, "one@tail.example").split()[-1])
    big.ctl("delete", ids[0])
    big.ctl("delete", ids[1])
    (accepted,) = [json.loads(line) for line in by_user.stdout]
    (deleted,) = [json.loads(line) for line in by_sender.stdout]
    assert by_user.wait() == 0 and by_sender.wait() == 0
    assert (accepted["event"], accepted["id"], accepted["user"]) == ("accepted", ids[1], "shop")
    assert (deleted["event"], deleted["id"], deleted["action"]) == ("operator", ids[1], "delete")


# ---- what acts: each has a domain of its own ----

EACH = MESSAGES // DOMAINS


def test_many_want_a_yes(big):
    done = big.ctl("hold", "--domain", "d0.example", check=False)
    assert done.returncode == 2 and f"{EACH} messages" in done.stderr and "--yes" in done.stderr
    assert big.json("queue", "--state", "held") == []
    done = big.ctl("hold", "--recipient", "user0@d0.example")  # one needs none
    assert done.stdout == "held 1 message\n"
    assert big.ctl("hold", "--domain", "d0.example", "--dry-run").stdout == f"{EACH - 1} messages would be held\n"
    assert big.ctl("hold", "--domain", "d0.example", "--yes").stdout == f"held {EACH - 1} messages\n"
    assert big.json("status")["queue"]["held"]["messages"] == EACH
    assert big.ctl("delete", check=False).returncode == 2
    assert big.ctl("delete", "--all", "--state", "held", "--yes", check=False).returncode == 2
    answer = big.json("release", "--state", "held", "--yes")
    assert answer["count"] == EACH and answer["synced"] is True
    assert big.json("queue", "--state", "held") == []


def test_a_terminal_is_asked(big):
    for word, code, held in (("n", 1, 0), ("y", 0, EACH)):
        code_seen, text = on_terminal(big, ["hold", "--domain", "d1.example"], f"{word}\n")
        assert code_seen == code and f"hold {EACH} messages? [y/N]" in text, text
        assert big.json("status")["queue"]["held"]["messages"] == held
    big.ctl("release", "--state", "held", "--yes")


def test_nothing_matched_is_4(big):
    for command in ("flush", "hold", "release", "delete", "bounce"):
        assert big.ctl(command, "--domain", "none.example", check=False).returncode == 4, command
        assert big.ctl(command, "0000000000000", check=False).returncode == 4, command
    for command in ("flush", "bounce"):
        assert big.ctl(command, "--domain", "none.example", "--yes", check=False).returncode == 4, command


def test_delete_many(big):
    before = queued(big)
    assert big.ctl("delete", "--domain", "d2.example", "--yes").stdout == f"deleted {EACH} messages\n"
    assert queued(big) == before - EACH
    assert big.json("queue", "--domain", "d2.example") == []
    big.wait_log("event=operator id=.* action=delete", count=EACH)


def test_bounce_tells_each_sender(big):
    before = queued(big)
    big.ctl("hold", "--domain", "d3.example", "--yes")  # nothing of it is being attempted then
    assert big.ctl("bounce", "--domain", "d3.example", "--yes").stdout == f"bounced {EACH} messages\n"
    assert big.json("queue", "--domain", "d3.example") == []
    reports = big.json("queue", "--all", "--sender", "<>")
    assert len(reports) == EACH and {r["recipients"][0] for r in reports} == {"sender3@example.org"}
    assert queued(big) == before
    big.ctl("delete", "--sender", "<>", "--yes")


def test_bounce_one(big):
    row = big.json("queue", "--domain", "d4.example", "--limit", "1")[0]
    big.ctl("hold", row["id"])
    assert big.ctl("bounce", row["id"]).stdout == "bounced 1 message\n"
    shown = big.json("show", row["id"])
    assert shown["state"] == "done" and shown["recipients"][0]["outcome"] == "failed"
    assert "operator" in shown["recipients"][0]["text"]
    (report,) = big.json("queue", "--sender", "<>")
    assert report["recipients"] == ["sender4@example.org"]
    big.ctl("delete", report["id"])


def test_flush(big):
    assert big.json("flush", "--domain", "d5.example")["count"] == EACH
    assert big.json("flush")["count"] == queued(big)
    row = big.json("queue", "--domain", "d6.example", "--limit", "1")[0]
    assert big.ctl("flush", row["id"]).returncode == 0


def test_status_is_one_screen(big):
    status = big.json("status")
    assert sum(sum(state["ages"].values()) for state in status["queue"].values()) == queued(big)
    assert {user["user"] for user in status["users"]} == set(USERS)
    assert status["rates"]["last_15_minutes"]["accepted"] == status["totals"]["accepted"] >= MESSAGES
    (main,) = status["relayhosts"]
    assert main["up"] is False and main["waiting"] > 0
    assert status["troubles"][0]["destination"] == "relayhost:main"
    assert "refused" in status["troubles"][0]["reason"].lower()
    text = big.ctl("status").stdout
    assert "\033" not in text and len(text.splitlines()) < 40
    for part in ("relayhost  main", "DOWN", "in trouble", "by age", "users", "disk", "250 means"):
        assert part in text, part
    big.ctl("pause", "main")
    assert re.search(r"relayhost:main: \d+ waiting, for \w+; paused; connect: ", big.ctl("status").stdout)
    big.ctl("resume", "main")
    code, shown = on_terminal(big, ["status"], "")
    assert code == 0 and "\033[31mDOWN\033[0m" in shown
    code, shown = on_terminal(big, ["status"], "", {"NO_COLOR": "1"})
    assert code == 0 and "\033" not in shown and "DOWN" in shown


def test_top(big):
    code, shown = on_terminal(big, ["top"], " q")
    assert code == 0 and "\033[?1049h" in shown and shown.endswith("\033[?1049l")
    assert shown.count("\033[H") == 2 and "relayhost" in shown
    done = big.ctl("top", check=False)
    assert done.returncode == 2 and "terminal" in done.stderr


def test_show(big):
    row = big.json("queue", "--domain", "d7.example", "--limit", "1")[0]
    shown = big.json("show", row["id"].lower())
    assert shown["id"] == row["id"] and shown["recipients"][0]["address"] == row["recipients"][0]
    assert big.ctl("show", check=False).returncode == 2

"""relayctl and the HTTP listener against a running daemon."""
import grp
import json
import os
import pwd
import re
import socket
import stat
import subprocess

import pytest

from conftest import RELAYCTL, message, relayhost


def test_status_queue_show(relayd, upstream):
    upstream.stop()
    daemon = relayd(relayhost(upstream.port))
    with daemon.smtp() as client:
        client.send_message(message("stuck"), to_addrs=["one@example.net", "two@example.com"])
    daemon.wait_log("event=deferred", count=2)
    daemon.wait_log("event=accepted id=[0-9A-Z]+ user=app from=app@example.org recipients=2 ")
    (row,) = daemon.json("queue")
    assert {"id", "state", "sender", "recipients", "age", "attempts", "next_attempt", "reason"} <= row.keys()
    assert row["state"] == "deferred" and row["recipients"] == ["one@example.net", "two@example.com"]
    assert daemon.json("queue", "--domain", "example.com")[0]["id"] == row["id"]
    assert daemon.json("queue", "--state", "held") == []
    assert daemon.json("queue", "--sender", "other@example.org") == []
    shown = daemon.ctl("show", row["id"]).stdout
    assert "one@example.net: deferred" in shown and "next attempt in" in shown and "refused" in shown.lower()
    assert not re.search("[ \ufffd]$", shown, re.M)
    status = daemon.json("status")
    assert status["queue"]["deferred"]["messages"] == 1
    text = daemon.ctl("status").stdout
    assert "relayhost  main" in text and "DOWN, no message delivered yet" in text and "deferred 1" in text
    assert not re.search(" $", text, re.M)
    daemon.ctl("delete", row["id"])
    assert daemon.json("status")["relayhosts"][0]["waiting"] == 0
    assert daemon.ctl("show", "0000000000000", check=False).returncode == 4
    assert daemon.ctl("queue", "--state", "nonsense", check=False).returncode != 0


def test_show_tells_each_attempt(relayd, upstream):
    upstream.replies["rcpt"] = ["450 4.2.0 come back, first", "451 4.3.0 come back, second"]
    daemon = relayd(relayhost(upstream.port) + "retry: {greylist: [1s, 1s, 1h], default: [1s, 1s, 1h]}\n")
    upstream.replies["rcpt"].append("452 4.2.2 come back, third")
    with daemon.smtp() as client:
        client.send_message(message("tried thrice"), to_addrs=["one@example.net"])
    for attempt in (1, 2, 3):
        daemon.wait_log("event=deferred", count=attempt)
        if attempt < 3:
            daemon.ctl("flush")  # a greylister's wait is learnt: some ten seconds
    (row,) = daemon.json("queue")

    def check(shown):
        history = shown["recipients"][0]["history"]
        assert [(a["attempts"], a["code"], a["text"]) for a in history] == [
            (3, 452, "come back, third"), (2, 451, "come back, second"), (1, 450, "come back, first")]
        assert all(a["at"].startswith("20") and a["ago_sec"] >= 0 for a in history)
        assert "Subject: tried thrice" in shown["header"]

    check(daemon.json("show", row["id"]))
    daemon.kill()
    daemon.start()
    check(daemon.json("show", row["id"]))
    text = daemon.ctl("show", row["id"]).stdout
    for part in ("come back, first", "come back, third", "after 3 attempts", "Subject: tried thrice", "next attempt in"):
        assert part in text, text


def test_hold_release_delete(relayd, upstream):
    """I10"""
    upstream.stop()
    daemon = relayd(relayhost(upstream.port))
    with daemon.smtp() as client:
        client.send_message(message("kept"))
        client.send_message(message("thrown away"))
    daemon.wait_log("event=deferred", count=2)
    rows = daemon.json("queue")
    keep, throw = rows[0]["id"], rows[1]["id"]
    daemon.ctl("hold", keep)
    daemon.ctl("delete", throw)
    assert [(r["id"], r["state"]) for r in daemon.json("queue")] == [(keep, "held")]
    assert f"relayctl release {keep}\n" in daemon.ctl("show", keep).stdout
    upstream.start()
    daemon.kill()
    daemon.start()
    assert [(r["id"], r["state"]) for r in daemon.json("queue")] == [(keep, "held")]
    daemon.ctl("release", keep)
    upstream.get()


def control(daemon, method, path):
    """An answer of the control socket: (status, JSON)."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(daemon.spool / "control.sock"))
        sock.sendall(f"{method} {path} HTTP/1.0\r\nHost: relayd\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    head, body = answer.split(b"\r\n\r\n", 1)
    return int(head.split()[1]), json.loads(body)


def test_pause_and_resume_over_a_restart(relayd, upstream):
    daemon = relayd(relayhost(upstream.port))
    assert control(daemon, "POST", "/v1/relayhosts/main/pause")[1] == {"name": "main", "paused": True, "changed": True}
    daemon.stop()
    daemon.start()
    with daemon.smtp() as client:
        client.send_message(message("waits"))
    (row,) = daemon.json("queue")
    assert row["reason"] == "relayhost main is paused by an operator" and row["next_attempt"] is None
    assert "relayhost main is paused by an operator" in daemon.ctl("show", row["id"]).stdout
    (main,) = control(daemon, "GET", "/v1/status")[1]["relayhosts"]
    assert main["paused"] and main["waiting"] == 1
    assert upstream.messages.empty()
    control(daemon, "POST", "/v1/relayhosts/main/resume")
    assert "Subject: waits" in upstream.get().head
    assert control(daemon, "POST", "/v1/relayhosts/nobody/pause")[0] == 404


def test_the_rate_of_a_relayhost_holds_over_a_restart(relayd, upstream):
    daemon = relayd(relayhost(upstream.port, rate="2/h"))
    with daemon.smtp() as client:
        for i in range(4):
            client.send_message(message(f"number {i}"))
    upstream.get_many(2)
    daemon.wait_log("event=delivered", count=2)
    for _ in range(2):
        rows = daemon.json("queue")
        assert len(rows) == 2
        shown = daemon.ctl("show", rows[0]["id"]).stdout
        used_up = r"the rate of relayhost main \(2/h\) is used up, the next message goes in 3\d\d\d s"
        assert re.search(used_up, shown), shown
        assert re.fullmatch(used_up, rows[0]["reason"]), rows[0]
        daemon.stop()
        daemon.start()
    assert upstream.messages.empty()
    daemon.write_config(daemon.config.replace("rate: 2/h", "rate: 3/h"))
    daemon.ctl("reload")
    upstream.get()
    assert len(daemon.json("queue")) == 1
    assert daemon.metric('relayd_rate_limit_waits_total{scope="relayhost"}') == 2  # each of the two, since the start


def test_metrics_and_health(relayd, upstream):
    daemon = relayd(relayhost(upstream.port))
    with daemon.smtp() as client:
        client.send_message(message())
    upstream.get()
    daemon.wait_log("event=delivered")
    assert daemon.metric('relayd_delivery_attempts_total{relayhost="main",operator="other",outcome="delivered"}') == 1
    assert daemon.metric('relayd_queue_messages{state="deferred"}') == 0
    assert daemon.metric("relayd_journal_fsync_duration_seconds_count") >= 1
    for path in ("/livez", "/healthz", "/readyz", "/mailz"):
        assert daemon.scrape(path)[0] == 200, path
    assert daemon.scrape("/v1/status")[0] == 404
    assert daemon.ctl("health", "--mail").stdout == "ok\n"


def test_mailz_tells_of_a_dead_upstream_and_readyz_does_not(relayd, upstream):
    upstream.stop()
    daemon = relayd(relayhost(upstream.port))
    with daemon.smtp() as client:
        client.send_message(message())
    daemon.wait_log("event=destination_trouble")
    status, reason = daemon.scrape("/mailz")
    assert status == 503 and "main" in reason
    assert daemon.scrape("/readyz")[0] == 200
    assert daemon.ctl("health", "--mail", check=False).returncode == 1
    assert daemon.ctl("health").returncode == 0


def test_rights_of_the_sockets(relayd, upstream):
    """K8"""
    daemon = relayd(relayhost(upstream.port))
    mode = lambda name: stat.S_IMODE(os.stat(daemon.spool / name).st_mode)
    assert mode(".") == 0o711 and mode("drop") == 0o1733
    assert mode("control.sock") == 0o660 and mode("submit.sock") == 0o666
    daemon.stop()
    os.chmod(daemon.spool, 0o777)  # anybody could put a socket of his own there
    daemon.start()
    assert mode(".") == 0o711


# Connects as whoever runs it; with a third word it hands the connection to its parent, else it asks.
KNOCK = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
if len(sys.argv) > 2:
    socket.send_fds(socket.socket(fileno=int(sys.argv[2])), [b"x"], [sock.fileno()])
else:
    sock.sendall(b"POST /v1/flush HTTP/1.0\\r\\nHost: relayd\\r\\nContent-Length: 2\\r\\n\\r\\n{}")
    print(sock.recv(65536).decode().split()[1])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users")
def test_the_control_socket_asks_the_kernel_who_it_is(relayd, upstream):
    """DESIGN 7: peer credentials checked, even where the mode says nothing."""
    daemon = relayd(relayhost(upstream.port) + "control_group: games\n")
    path = str(daemon.spool / "control.sock")
    os.chmod(path, 0o666)
    other, games = pwd.getpwnam("daemon"), grp.getgrnam("games").gr_gid

    def knock(user, group, *groups):
        return int(subprocess.run(["/usr/bin/python3", "-c", KNOCK, path], user=user, group=group, extra_groups=groups,
                                  stdout=subprocess.PIPE, check=True, cwd="/").stdout)

    assert knock(0, 0) == 200
    assert knock("nobody", other.pw_gid) == 200
    assert knock(other.pw_uid, games) == 200
    assert knock(other.pw_uid, other.pw_gid, games) == 200
    assert knock(other.pw_uid, other.pw_gid, *range(70000, 70100), games) == 200
    assert knock(other.pw_uid, other.pw_gid) == 403
    assert knock(other.pw_uid, other.pw_gid, *range(70000, 70100)) == 403
    daemon.wait_log(f'event=control_refused client="?local user {other.pw_uid}', count=2)
    # Who connected counts, not who writes: root is not made to speak for others.
    ours, theirs = socket.socketpair()
    with ours, theirs:
        subprocess.run(["/usr/bin/python3", "-c", KNOCK, path, str(theirs.fileno())], user=other.pw_uid,
                       group=other.pw_gid, extra_groups=[], pass_fds=[theirs.fileno()], check=True, cwd="/")
        (fd,) = socket.recv_fds(ours, 1, 1)[1]
    with socket.socket(fileno=fd) as handed:
        handed.sendall(b"GET /v1/status HTTP/1.0\r\nHost: relayd\r\n\r\n")
        assert b" 403 " in handed.recv(65536).split(b"\r\n")[0]
    refused = subprocess.run([str(RELAYCTL), "-s", path, "status"], user=other.pw_uid, group=other.pw_gid,
                             extra_groups=[], stderr=subprocess.PIPE)
    assert refused.returncode == 3 and b"control_group" in refused.stderr


def test_unreachable_daemon_is_3(relayd, upstream, folder):
    daemon = relayd(relayhost(upstream.port))
    daemon.kill()
    done = daemon.ctl("status", check=False)
    assert done.returncode == 3 and "nobody listens on" in done.stderr and "is it running" in done.stderr
    daemon.start()
    daemon.stop()
    done = daemon.ctl("status", check=False)
    assert done.returncode == 3 and "there is no" in done.stderr and "is it running" in done.stderr


def test_help_knows_one_command(folder):
    def ctl(*arguments):
        return subprocess.run([RELAYCTL, *arguments], capture_output=True, text=True, timeout=30)

    for arguments in ("help", "queue"), ("queue", "--help"), ("queue", "-h"):
        done = ctl(*arguments)
        assert done.returncode == 0 and done.stdout.startswith("usage: relayctl queue [FILTER]"), done
        assert "--relayhost NAME|mx" in done.stdout and "pause" not in done.stdout
    done = ctl("help", "quue")
    assert done.returncode == 2 and done.stderr == "relayctl: unknown command 'quue', did you mean 'queue'?\n"
    assert ctl("quue").stderr == done.stderr and ctl("xyzzy").stderr.endswith("relayctl help lists them\n")
    for arguments in ("send", "--from", "a@example.org"), ("user", "add"), ("user", "change", "x"), ("journal",), ("reload", "now"):
        done = ctl(*arguments)
        usage = f"relayctl: usage: relayctl {arguments[0]}"
        assert done.returncode == 2 and any(line.startswith(usage) for line in done.stderr.splitlines()), done
    assert ctl("hlep").stderr == "relayctl: unknown command 'hlep', did you mean 'help'?\n"


def test_a_bad_configuration_is_told_once(folder):
    (folder / "bad.yaml").write_text("relayhots: {}\n")
    done = subprocess.run([RELAYCTL, "-c", folder / "bad.yaml", "status"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 3 and done.stderr.count("relayhots") == 1


def test_secrets_show_nowhere(relayd, upstream, folder):
    (folder / "upstream.secret").write_text("s3cr3t-upstream")
    (folder / "upstream.secret").chmod(0o644)
    daemon = relayd(relayhost(upstream.port, username="u", password_file=folder / "upstream.secret"), environ={})
    with daemon.smtp() as client:
        client.send_message(message())
    daemon.wait_log("event=(delivered|deferred)")
    seen = "\n".join(daemon.lines) + daemon.ctl("config").stdout if False else "\n".join(daemon.lines)
    assert "s3cr3t" not in seen and "secret=" not in seen.replace("secret_file", "")
    assert "s3cr3t" not in daemon.ctl("status").stdout + daemon.scrape()[1]

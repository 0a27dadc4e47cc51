"""SPOOL/drop/: what is put there while the daemon is away, and while it runs, comes in once; what is no message does not."""
import os
import socket

from conftest import FAST_RETRY, relayhost


def batch(to=("user@example.net",), content=b"Subject: dropped\r\n\r\nbody\r\n", sender="cron@example.org", size=None):
    lines = [f"MAIL FROM:<{sender}> SIZE={len(content) if size is None else size}"]
    lines += [f"RCPT TO:<{address}>" for address in to]
    return "".join(line + "\r\n" for line in lines + ["DATA"]).encode() + content


def put(daemon, name, data, uid=None):
    path = daemon.spool / "drop" / f".tmp-{name}"
    path.write_bytes(data)
    path.chmod(0o644)
    if uid is not None and os.geteuid() == 0:
        os.chown(path, uid, uid)
    path.rename(daemon.spool / "drop" / name)


def names(daemon, folder="drop"):
    path = daemon.spool / folder
    return sorted(entry.name for entry in path.iterdir()) if path.exists() else []


def test_at_the_start_and_while_running(relayd, upstream):
    daemon = relayd(relayhost(upstream.port))
    daemon.stop()
    for n in range(30):
        put(daemon, f"m{n:02}", batch([f"u{n}@example.net"]), uid=1234)
    daemon.start()
    assert sorted(m.rcpt_tos[0] for m in upstream.get_many(30)) == sorted(f"u{n}@example.net" for n in range(30))
    daemon.wait_log("event=drop_taken", count=30)
    put(daemon, "later", batch(["late@example.net", "two@example.net"]))
    assert upstream.get().rcpt_tos == ["late@example.net", "two@example.net"]
    daemon.wait_log("event=drop_taken file=later")
    assert names(daemon) == []
    (line,) = daemon.wait_log(r"event=accepted .*listener=drop", count=31)[:1]
    if os.geteuid() == 0:
        assert 'client="local user 1234"' in line


def test_what_is_no_message_is_moved_aside(relayd, upstream, folder):
    daemon = relayd(relayhost(upstream.port))
    daemon.stop()
    drop = daemon.spool / "drop"
    put(daemon, "noenvelope", b"Subject: x\r\n\r\nbody\r\n")
    put(daemon, "longer", batch() + b"MAIL FROM:<evil@example.org>\r\n")
    put(daemon, "linked", batch())
    os.link(drop / "linked", folder / "second-name")
    (drop / "link").symlink_to("/etc/passwd")
    os.mkfifo(drop / "fifo")
    (drop / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(drop / "socket"))
    put(daemon, "good", batch())
    daemon.start()
    assert upstream.get().rcpt_tos == ["user@example.net"]
    daemon.wait_log("event=drop_refused", count=7)
    daemon.wait_log("event=drop_taken file=good")
    assert [n for n in names(daemon) if not n.startswith(".refused-")] == []
    aside = {n.removeprefix(".refused-") for n in names(daemon)}
    aside |= {n.removeprefix("drop-") for n in names(daemon, "quarantine")}
    assert aside == {"noenvelope", "longer", "linked", "folder"}
    assert upstream.messages.empty()


def test_what_is_moved_aside_replaces_nothing(relayd, upstream):
    daemon = relayd(relayhost(upstream.port))
    for text in (b"one", b"two", b"three"):
        put(daemon, "report", b"Subject: " + text + b"\r\n\r\nno envelope\r\n")
        daemon.wait_log("event=drop_refused file=report", count=1 + [b"one", b"two", b"three"].index(text))
    if names(daemon, "quarantine"):  # with a kernel that lets Landlock move files
        kept = [(daemon.spool / "quarantine" / name).read_bytes() for name in names(daemon, "quarantine")]
    else:
        kept = [(daemon.spool / "drop" / name).read_bytes() for name in names(daemon)]
    assert sorted(text.split(b"\r\n")[0] for text in kept) == [b"Subject: one", b"Subject: three", b"Subject: two"]


def test_a_file_that_is_being_written_is_never_half_read(relayd, upstream):
    daemon = relayd(relayhost(upstream.port))
    data = batch(content=b"Subject: slow\r\n\r\n" + b"x" * 100 + b"\r\n")
    hidden = daemon.spool / "drop" / ".tmp-slow"
    hidden.write_bytes(data)
    path = daemon.spool / "drop" / "rude"  # in place, by a writer that does not know better
    with open(path, "wb") as file:
        path.chmod(0o644)
        file.write(data[:-50])
    put(daemon, "sign", batch(["sign@example.net"]))
    assert upstream.get().rcpt_tos == ["sign@example.net"]
    daemon.wait_log("event=drop_taken file=sign")
    assert names(daemon) == [".tmp-slow", "rude"]
    with open(path, "ab") as file:
        file.write(data[-50:])
    assert b"x" * 100 + b"\r\n" in upstream.get().data
    hidden.unlink()


def test_a_leftover_goes_after_a_day(relayd, upstream):
    daemon = relayd(relayhost(upstream.port))
    daemon.stop()
    for name in (".tmp-old", ".tmp-young"):
        (daemon.spool / "drop" / name).write_bytes(b"MAIL")
    os.utime(daemon.spool / "drop" / ".tmp-old", (1, 1))
    daemon.start()
    daemon.wait_log("event=drop_leftover file=.tmp-old")
    assert names(daemon) == [".tmp-young"]


def test_refused_for_now_stays_and_comes_in_later(relayd, upstream):
    """The queue is full: 452."""
    extra = relayhost(upstream.port) + "limits: {queue_messages: 1}\n" + FAST_RETRY
    upstream.stop()
    daemon = relayd(extra)
    put(daemon, "first", batch(["first@example.net"]))
    daemon.wait_log("event=drop_taken file=first")
    put(daemon, "second", batch(["second@example.net"]))
    daemon.wait_log("event=drop_deferred file=second code=452")
    assert names(daemon) == ["second"]
    upstream.start()
    assert upstream.get().rcpt_tos == ["first@example.net"]
    assert upstream.get().rcpt_tos == ["second@example.net"]
    daemon.wait_log("event=drop_taken file=second")


def test_kill_while_files_come_in_loses_none(relayd, upstream):
    daemon = relayd(relayhost(upstream.port))
    daemon.stop()
    for n in range(200):
        put(daemon, f"k{n:03}", batch([f"k{n}@example.net"]))
    daemon.start()
    daemon.wait_log("event=drop_taken", count=20)
    daemon.kill()
    daemon.start()
    seen = set()
    while len(seen) < 200:
        seen.add(upstream.get().rcpt_tos[0])
    daemon.wait_log("event=drop_taken", count=200)
    assert names(daemon) == []


def test_a_file_with_many_refused_recipients_holds_no_other_up(relayd, upstream):
    """150 recipients that may not be written to: the session ends itself at the hundredth error, each time anew."""
    daemon = relayd(relayhost(upstream.port) + 'allowed_recipients: ["@example.net"]\n')
    daemon.stop()
    put(daemon, "a-poison", batch([f"u{n}@elsewhere.test" for n in range(150)] + ["good@example.net"]))
    for n in range(20):
        put(daemon, f"m{n:02}", batch([f"u{n}@example.net"]))
    daemon.start()
    got = sorted(m.rcpt_tos[0] for m in upstream.get_many(21))
    assert got == sorted([f"u{n}@example.net" for n in range(20)] + ["good@example.net"])
    daemon.wait_log("event=drop_taken", count=21)
    assert names(daemon) == []


def test_connections_of_its_owner_hold_no_file_up(relayd, upstream):
    """Or a user with as many of them as they may have would hold up everybody's files, which wait behind a 421."""
    daemon = relayd(relayhost(upstream.port) + "limits: {connections_per_address: 2}\n")
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
        for held in (one, two):
            held.connect(str(daemon.spool / "submit.sock"))
            with held.makefile("rwb", buffering=0) as lines:
                assert lines.readline().startswith(b"220 ")
                lines.write(b"HELO held\r\nMAIL FROM:<held@example.org>\r\n")
                assert [lines.readline()[:3] for _ in range(2)] == [b"250", b"250"]
        put(daemon, "mine", batch())
        daemon.wait_log("event=drop_(taken|deferred)")
        daemon.wait_log("event=drop_taken file=mine")


def test_an_envelope_of_nearly_a_mebibyte_is_taken(relayd, upstream):
    daemon = relayd(relayhost(upstream.port) + "limits: {recipients: 9500}\n")
    daemon.ctl("pause", "main")
    put(daemon, "many", batch([f"u{n:05}.{'x' * 55}@{'y' * 20}.example.net" for n in range(9500)]))
    daemon.wait_log("event=drop_taken file=many")
    (entry,) = daemon.json("queue")
    assert entry["recipient_count"] == 9500
    put(daemon, "too-many", batch([f"u{n:05}.{'x' * 55}@{'y' * 40}.example.net" for n in range(9500)]))
    daemon.wait_log("event=drop_refused file=too-many .*its envelope is too long")

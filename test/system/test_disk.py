"""The real daemon on a disk that fills up, refuses writes and syncs, and on which a helper dies in the middle."""
import os
import re
import smtplib
import subprocess
import threading
import uuid
from pathlib import Path

import pytest

from conftest import FAST_RETRY, PATIENCE, child_named, message, relayhost

DISK_SIZE = 640 << 20  # ten segments
CLIENTS = 20
BODY = "x" * 2000 + "\n"


class Crowd:
    """Clients that submit without pause, note each 250, and go on after each temporary refusal."""

    def __init__(self, daemon, count=CLIENTS):
        self.daemon = daemon
        self.acknowledged, self.refusals, self.broken = [], [], []
        self.changed = threading.Condition()
        self.is_over = threading.Event()
        self.threads = [threading.Thread(target=self._run) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def _run(self):
        try:
            while not self.is_over.is_set():
                with self.daemon.smtp() as client:
                    self._session(client)
        except Exception as error:  # pylint: disable=broad-except
            self.broken.append(error)

    def _session(self, client):
        for _ in range(200):
            if self.is_over.is_set():
                return
            token = uuid.uuid4().hex
            try:
                client.send_message(message(token, body=BODY))
            except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as refusal:
                self._note(self.refusals, (refusal.smtp_code, refusal.smtp_error.decode()))
                self.is_over.wait(0.02)  # a client that comes back at once would only burn time
            else:
                self._note(self.acknowledged, token)

    def _note(self, where, what):
        with self.changed:
            where.append(what)
            self.changed.notify_all()

    def wait(self, where, count):
        """Until `where` has grown by so many."""
        with self.changed:
            goal = len(where) + count
            assert self.changed.wait_for(lambda: len(where) >= goal, PATIENCE), (len(where), goal, self.broken)

    def finish(self):
        self.is_over.set()
        for thread in self.threads:
            thread.join()
        assert self.broken == []


def assert_all_arrive(upstream, acknowledged):
    missing = set(acknowledged)
    while missing:
        mail = upstream.get()
        subject = re.search(rb"Subject: (\w+)\r\n", mail.data).group(1).decode()
        assert mail.data.count(b"x") >= 2000, "a message arrived that is not whole"
        missing.discard(subject)


def until_empty(daemon):
    """What was delivered just before a crash may be delivered again; then nothing is left."""
    left = daemon.json("queue")
    for _ in range(PATIENCE * 10):
        if not left:
            return
        threading.Event().wait(0.1)
        left = daemon.json("queue")
    raise AssertionError(left)


@pytest.fixture
def disk(folder):
    """A file system of its own, small enough to be filled."""
    if os.geteuid() != 0:
        pytest.skip("mounting wants root")
    path = folder / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_SIZE},mode=0755", "relayd-test", path], check=True)
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def start_on(disk, relayd, upstream):
    """A daemon whose spool is on that disk."""
    daemon = relayd(relayhost(upstream.port) + FAST_RETRY, start=False)
    daemon.config = daemon.config.replace(f"spool: {daemon.spool}", f"spool: {disk / 'spool'}")
    daemon.spool = disk / "spool"
    daemon.start()
    return daemon


def fill(path):
    """Takes all the room that is left; returns the file."""
    ballast = path / "ballast"
    room = os.statvfs(path)
    with open(ballast, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize)
    return ballast


def test_a_full_disk_refuses_new_mail_and_goes_on_by_itself(relayd, upstream, disk, folder):
    """J6"""
    daemon = start_on(disk, relayd, upstream)
    crowd = Crowd(daemon)
    crowd.wait(crowd.acknowledged, 100)
    ballast = fill(disk)
    crowd.wait(crowd.refusals, 2 * CLIENTS)
    assert {code for code, _ in crowd.refusals} == {452}, set(crowd.refusals)
    assert all(text.startswith("4.3.1 ") for _, text in crowd.refusals)
    status, body = daemon.scrape("/readyz")
    assert status == 503, body
    assert "journal" in daemon.ctl("status").stdout
    ballast.unlink()
    crowd.wait(crowd.acknowledged, 100)
    assert daemon.scrape("/readyz")[0] == 200
    crowd.finish()
    assert_all_arrive(upstream, crowd.acknowledged)


def test_with_the_disk_full_deliveries_and_their_results_go_on(relayd, upstream, disk, folder):
    """J6"""
    upstream.stop()
    daemon = start_on(disk, relayd, upstream)
    crowd = Crowd(daemon)
    crowd.wait(crowd.acknowledged, 300)
    fill(disk)
    crowd.wait(crowd.refusals, CLIENTS)
    crowd.finish()
    upstream.start()
    daemon.ctl("flush")
    assert_all_arrive(upstream, crowd.acknowledged)
    daemon.kill()
    daemon.start()  # on a full disk, too; what was delivered is known
    until_empty(daemon)


def test_a_read_only_disk_at_the_start(relayd, upstream, disk):
    """J22: said and refused; nothing is changed, and all is there when it can be written again."""
    upstream.stop()
    daemon = start_on(disk, relayd, upstream)
    with daemon.smtp() as client:
        client.send_message(message("kept"))
    assert daemon.stop() == 0
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    daemon.spawn()
    assert daemon.wait_exit() == 77
    assert any("ead-only file system" in line for line in daemon.lines), daemon.lines
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    upstream.start()
    daemon.start()
    assert "Subject: kept" in upstream.get().head


class Injection:
    """strace makes system calls of a process fail for as long as this lasts."""

    def __init__(self, pid, calls, error, when=None):
        rule = f"inject={calls}:error={error}" + (f":when={when}" if when else "")
        self.process = subprocess.Popen(["strace", "-qq", "-e", f"trace={calls}", "-e", rule, "-p", str(pid), "-o", "/dev/null",
                                         "-e", "signal=none"], stderr=subprocess.PIPE, text=True)
        self.pid = pid

    def __enter__(self):
        status = Path(f"/proc/{self.pid}/status")
        while f"TracerPid:\t{self.process.pid}\n" not in status.read_text():
            assert self.process.poll() is None, self.process.stderr.read()
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.process.stderr.close()


def test_one_failed_sync_costs_nobody_anything(relayd, upstream):
    """J8"""
    daemon = relayd(relayhost(upstream.port) + FAST_RETRY)
    crowd = Crowd(daemon, 8)
    crowd.wait(crowd.acknowledged, 50)
    with Injection(child_named(daemon, "relayd: sync"), "fdatasync", "EIO", when="5"):
        daemon.wait_log(r"event=journal_note .*sync in segment \d+ failed")
        crowd.wait(crowd.acknowledged, 50)
    crowd.finish()
    assert crowd.refusals == []
    assert_all_arrive(upstream, crowd.acknowledged)


@pytest.mark.parametrize("who, calls, error, code", [
    ("sync", "fdatasync", "EIO", 451), ("sync", "fdatasync", "ENOSPC", 452), ("daemon", "pwrite64", "EIO", 451),
    ("daemon", "pwrite64", "ENOSPC", 452), ("daemon", "pwrite64", "EDQUOT", 452),
    ("daemon", "pwrite64", "EROFS", 451)])
def test_a_disk_that_fails_for_a_while(relayd, upstream, who, calls, error, code):
    """J6, J7, J8, J9, J22"""
    daemon = relayd(relayhost(upstream.port) + FAST_RETRY)
    crowd = Crowd(daemon, 8)
    crowd.wait(crowd.acknowledged, 50)
    pid = daemon.process.pid if who == "daemon" else child_named(daemon, "relayd: sync")
    with Injection(pid, calls, error):
        crowd.wait(crowd.refusals, 30)
        assert {refusal[0] for refusal in crowd.refusals} == {code}
        assert daemon.scrape("/readyz")[0] == 503
    crowd.wait(crowd.acknowledged, 50)
    crowd.finish()
    assert daemon.scrape("/readyz")[0] == 200
    assert_all_arrive(upstream, crowd.acknowledged)
    daemon.kill()
    daemon.start()
    until_empty(daemon)
    assert daemon.ctl("verify", daemon.spool).returncode == 0


def test_new_folders_are_synced_into_their_parents(relayd, folder):
    """J4: what is safe in a folder is not, while the folder's own name may vanish in a power cut. Names want fsync()."""
    trace = folder / "trace"
    daemon = relayd("routes:\n  - {via: capture}\nwebhook: {url: 'https://127.0.0.1:1/', secret_file: secret}\n", start=False)
    (folder / "secret").write_text("a secret of more than thirty-two characters\n")
    daemon.wrapper = ["strace", "-D", "-f", "-qq", "-y", "-s", "256", "-e", "trace=mkdir,mkdirat,fsync,fdatasync", "-o", str(trace)]
    daemon.start()
    with daemon.smtp() as client:
        client.send_message(message("captured"))
    daemon.wait_log("event=delivered ")
    daemon.stop()
    made, unsynced = [], []
    for call in trace.read_text().splitlines():
        if match := re.search(r'mkdir(?:at)?\((?:\S+<(.+?)>, )?"(.+?)", .*= 0$', call):
            made.append(Path(match[1] or "/") / match[2])
            unsynced.append(made[-1])
        elif match := re.search(r" fsync\(\d+<(.+?)>", call):
            unsynced = [path for path in unsynced if str(path.parent) != match[1]]
        elif match := re.search(r" fdatasync\(\d+<(.+?)>", call):
            assert not Path(match[1]).is_dir()
    assert {path.name for path in made} >= {daemon.spool.name, "journal", "quarantine", "drop", "captured", "webhook"}
    assert unsynced == []


def test_a_message_that_cannot_be_read_now_is_put_off(relayd, upstream):
    """Its envelope can be, so that without a pause it would go round and round."""
    daemon = relayd(relayhost(upstream.port))
    with Injection(daemon.process.pid, "pread64", "EIO", when="2+2"):
        with daemon.smtp() as client:
            client.send_message(message("large", body=BODY * 100))
        daemon.wait_log(r"event=deferred .*class=other .*cannot be read from the queue")
    assert daemon.ctl("flush").returncode == 0
    assert b"Subject: large\r\n" in upstream.get().data


def test_a_sync_helper_that_dies_takes_no_message_with_it(relayd, upstream):
    daemon = relayd(relayhost(upstream.port) + FAST_RETRY)
    crowd = Crowd(daemon, 8)
    crowd.wait(crowd.acknowledged, 50)
    os.kill(child_named(daemon, "relayd: sync"), 9)
    crowd.wait(crowd.acknowledged, 50)
    assert crowd.refusals == []
    for _ in range(3):  # one that dies again and again comes back more slowly: refusals may be, losses not
        os.kill(child_named(daemon, "relayd: sync"), 9)
        crowd.wait(crowd.acknowledged, 50)
    crowd.finish()
    assert {code for code, _ in crowd.refusals} <= {451}
    assert_all_arrive(upstream, crowd.acknowledged)

"""The log: one line per fact, whatever peers say; nothing blocks mail; addresses as configured; repeats counted."""
import fcntl
import json
import os
import re
import smtplib
import subprocess
import threading

import pytest

from conftest import RELAYD, FAST_RETRY, Relayd, message, relayhost
from wire import Wire

ORDER = ["time", "level", "event", "id", "user", "from", "rcpt", "outcome", "class", "code", "host"]


def objects(daemon):
    """Every line as an object; the keys of the contract come first and in its order."""
    for line in daemon.lines:
        pairs = json.loads(line, object_pairs_hook=list)
        keys = [key for key, _ in pairs]
        assert len(set(keys)) == len(keys), line
        contract = [key for key in keys if key in ORDER]
        assert contract == [key for key in ORDER if key in contract], line
        assert keys[:3] == ORDER[:3], line
        yield dict(pairs)


HOSTILE = "\x1b[31mred\x07 \u202eevil \u2028 level=error event=forged \x85"


def test_json_lines_whatever_peers_say(relayd, upstream):
    """G8"""
    daemon = relayd(relayhost(upstream.port) + FAST_RETRY)
    daemon.write_config(daemon.config + "log: {format: json, level: debug}\n")
    daemon.ctl("reload")
    wait_event(daemon, "reloaded")
    with daemon.changed:
        daemon.lines[:] = [line for line in daemon.lines if line.startswith("{")]
    upstream.replies["rcpt"] = [f"550 5.1.1 {HOSTILE}"]
    wire = Wire(daemon.port)
    wire.send(b"EHLO x\x1b[31m\"}\r\nMAIL FROM:<\"}\x1b@example.org>\r\nAUTH PLAIN {\"event\":\"forged\"}\r\n\xff\xfe\r\n")
    wire.close()
    with daemon.smtp(user=None) as client:
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("a\"}\n{\"event\":\"forged\"", "x\x1b[2J")
        client.login("app", "secret")
        client.send_message(message(), to_addrs=["jane@example.net"])
    wait_event(daemon, "failed")
    for line in daemon.lines:
        assert not re.search("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]", line), line
    seen = list(objects(daemon))
    assert "forged" not in {fact["event"] for fact in seen}
    failed = [fact for fact in seen if fact["event"] == "failed"]
    assert failed[0]["rcpt"] == "jane@example.net" and failed[0]["code"] == 550 and failed[0]["host"]
    assert {fact["level"] for fact in seen} <= {"error", "warn", "info", "debug"}


def wait_event(daemon, event):
    return daemon.wait_log(f'"event":"{event}"|event={event}( |$)')


@pytest.mark.parametrize("mode", ["domain", "hash"])
def test_no_local_part_is_shown(relayd, upstream, mode):
    """In no line, those that quote another server's reply included."""
    daemon = relayd(relayhost(upstream.port) + f"log: {{addresses: {mode}, level: debug}}\n" + FAST_RETRY)
    upstream.replies["rcpt"] = ["550 5.1.1 <jane.doe@example.net>: no mailbox jane.doe@example.net here",
                                "450 4.2.1 jane.doe@example.net is busy"]
    with daemon.smtp() as client:
        for _ in range(3):
            client.send_message(message(), "secret.sender@example.org", ["jane.doe@example.net"])
        with pytest.raises(smtplib.SMTPException):
            client.sendmail("secret.sender@@example.org", ["jane.doe@@example.net"], b"x")
    wait_event(daemon, "failed")
    wait_event(daemon, "deferred")
    wait_event(daemon, "delivered")
    text = "\n".join(daemon.lines)
    assert "jane" not in text and "secret.sender" not in text
    if mode == "domain":
        assert "rcpt=@example.net" in text and "<@example.net>" in text
    else:
        assert "@" not in text.replace("bounce@", "") and re.search(r"rcpt=[0-9a-f]{16} ", text)


def test_repeats_are_counted(relayd, upstream):
    daemon = relayd(relayhost(upstream.port))
    for _ in range(40):
        with Wire(daemon.port) as wire:
            wire.send(b"EHLO x\r\nMAIL FROM:<a@example.org>\r\n")
            assert wire.reply().code == 250 and wire.reply().code == 530
    daemon.ctl("reload")  # tells what is kept; otherwise it comes after a minute
    (line,) = daemon.wait_log(r"event=rejected .*code=530 .*repeated=30")
    assert "client=[127.0.0.1]:" in line
    assert len([line for line in daemon.lines if "event=rejected " in line and "repeated=" not in line]) == 10


class Silent(Relayd):
    """Its log goes into a pipe that nobody reads, until read() is called."""

    def spawn(self):
        self.write_config()
        self.read_end, write_end = os.pipe()
        fcntl.fcntl(self.read_end, fcntl.F_SETPIPE_SZ, 64 * 1024)
        self.process = subprocess.Popen([str(RELAYD), "-c", str(self.config_path)], stderr=write_end,
                                        stdin=subprocess.DEVNULL, cwd=self.folder,
                                        env={k: v for k, v in os.environ.items() if not k.startswith("RELAYD_")})
        os.close(write_end)

    def read_to(self, word):
        """Reads the log up to a word."""
        with os.fdopen(os.dup(self.read_end), "rb", buffering=0) as pipe:
            text = b""
            while word not in text:
                piece = pipe.read(65536)
                assert piece, text[-2000:]
                text += piece
        return text.decode()

    def begin_reading(self):
        self.reader = threading.Thread(target=self._read_log, args=(os.fdopen(self.read_end, "rb"), 0), daemon=True)
        self.reader.start()


def test_a_log_that_nobody_reads_blocks_no_mail(relayd, upstream, folder):
    """K12"""
    config = relayd(relayhost(upstream.port), start=False).config
    daemon = Silent(folder, config)
    daemon.spawn()
    try:
        started = daemon.read_to(b"event=started")
        daemon.addresses = re.findall(r"service=smtp address=(\S+)", started)
        daemon.http = re.search(r"service=http address=(\S+)", started).group(1)
        recipients = [f"{n:04}{'x' * 50}@example.net" for n in range(1000)]
        sent = 0
        with daemon.smtp() as client:
            while daemon.metric("relayd_log_lines_dropped_total") == 0:
                assert sent < 20
                client.send_message(message(), "app@example.org", recipients)
                sent += 1
                arrived = 0
                while arrived < 1000:
                    arrived += len(upstream.get().rcpt_tos)
            client.send_message(message("after"))
        upstream.get()
        dropped = daemon.metric("relayd_log_lines_dropped_total")
        daemon.begin_reading()
        (line,) = daemon.wait_log("event=log_lines_dropped")
        assert int(re.search(r"count=(\d+)", line).group(1)) >= dropped
        assert daemon.metric("relayd_log_lines_dropped_total") >= dropped
    finally:
        if not hasattr(daemon, "reader"):
            daemon.begin_reading()
        assert daemon.stop() == 0


@pytest.mark.parametrize("is_journal", [True, False])
def test_the_journals_levels(relayd, upstream, folder, is_journal):
    """Only when standard error is what JOURNAL_STREAM names."""
    config = relayd(relayhost(upstream.port), start=False).config
    daemon = Silent(folder, config)
    daemon.write_config()
    daemon.read_end, write_end = os.pipe()
    st = os.fstat(write_end)
    stream = f"{st.st_dev}:{st.st_ino + (0 if is_journal else 1)}"
    daemon.process = subprocess.Popen([str(RELAYD), "-c", str(daemon.config_path)], stderr=write_end,
                                      stdin=subprocess.DEVNULL, cwd=folder, env={"PATH": "/usr/bin", "JOURNAL_STREAM": stream})
    os.close(write_end)
    daemon.begin_reading()
    try:
        daemon.wait_log("event=started")
        assert all(line.startswith("<6>time=" if is_journal else "time=") for line in daemon.lines), daemon.lines
    finally:
        daemon.stop()

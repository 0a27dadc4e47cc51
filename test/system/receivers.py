"""Receiving servers as they are in the world: Debian's Postfix, with Debian's postgrey as its policy service.

Both live in one folder of the test, listen on loopback and end with the test; nothing of the machine's own configuration
is read. Postfix needs root."""
import os
import pwd
import re
import shutil
import signal
import subprocess
import threading
import time

import postfix
from peers import PATIENCE, free_port

POSTFIX = shutil.which("postfix") or "/usr/sbin/postfix"
POSTGREY = shutil.which("postgrey") or "/usr/sbin/postgrey"
NOBODY = pwd.getpwnam("nobody")


class Program:
    """A process whose output is kept as lines that can be awaited."""

    def __init__(self):
        self.process = self.reader = None
        self.lines = []
        self.changed = threading.Condition()

    def spawn(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                self.changed.notify_all()

    def wait_log(self, pattern, count=1):
        """Waits until `count` lines match; returns them."""
        deadline = time.monotonic() + PATIENCE
        with self.changed:
            while True:
                found = [line for line in self.lines if re.search(pattern, line)]
                if len(found) >= count:
                    return found
                left = deadline - time.monotonic()
                if left <= 0 or not self.reader.is_alive():
                    raise AssertionError(f"no line {pattern!r}; the log:\n" + "\n".join(self.lines[-60:]))
                self.changed.wait(min(left, 1))

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
        self.wait()

    def wait(self):
        self.process.wait(PATIENCE)
        self.reader.join(PATIENCE)
        self.process.stdout.close()


class Postgrey(Program):
    """postgrey on a free port, without its list of hosts that are never made to wait."""

    def __init__(self, folder, delay, known_after=5):
        super().__init__()
        self.port = free_port()
        folder.mkdir()
        nothing = folder / "whitelist"
        nothing.touch()
        self.command = [POSTGREY, f"--inet=127.0.0.1:{self.port}", f"--delay={delay}", f"--dbdir={folder}", "--user=nobody",
                        "--group=nogroup", f"--whitelist-clients={nothing}", f"--whitelist-recipients={nothing}",
                        f"--auto-whitelist-clients={known_after}", "--hostname=mx1.example.net"]
        shutil.chown(folder, "nobody", "nogroup")

    def start(self):
        self.spawn(self.command)
        self.wait_log(r"Setting uid")  # it listens since before
        return self

    def end(self):
        """By force: it has nothing to save, and a SIGTERM that comes while it waits for a request can get lost."""
        self.process.kill()
        self.wait()


SETTINGS = {
    "maillog_file": "/dev/stdout",
    "myhostname": "mx1.example.net",
    "mynetworks": "",
    "smtputf8_enable": "yes",
    "virtual_mailbox_domains": "example.net, example.org",
    "virtual_uid_maps": f"static:{NOBODY.pw_uid}",
    "virtual_gid_maps": f"static:{NOBODY.pw_gid}",
    "smtpd_relay_restrictions": "reject_unauth_destination",
}

SERVICES = """\
{listen} inet n - n - - smtpd
virtual unix - n n - - virtual
"""


class Postfix(Program):
    """Takes mail for the mailboxes named, each a maildir. `settings`: further lines of main.cf."""

    def __init__(self, folder, mailboxes=("user@example.net", "app@example.org"), host="127.0.0.2", **settings):
        super().__init__()
        self.folder, self.mailboxes, self.host, self.port = folder, mailboxes, host, free_port(host)
        self.settings = settings
        folder.mkdir(mode=0o755)
        (folder / "mail").mkdir(mode=0o755)
        shutil.chown(folder / "mail", "nobody")

    def start(self):
        boxes = {"virtual_mailbox_base": self.folder / "mail",
                 "virtual_mailbox_maps": f"texthash:{self.folder}/etc/mailboxes"}
        postfix.lay_out(self.folder, {**SETTINGS, **boxes, **self.settings},
                        SERVICES.format(listen=f"{self.host}:{self.port}"))
        (self.folder / "etc/mailboxes").write_text("".join(f"{box} {self.place(box)}/\n" for box in self.mailboxes))
        self.spawn([POSTFIX, "-c", str(self.folder / "etc"), "start-fg"])
        self.wait_log(r"postfix/master\[\d+\]: daemon started")
        return self

    def place(self, mailbox):
        return f"box{list(self.mailboxes).index(mailbox)}"

    def mail(self, mailbox, count=1):
        """The octets of the messages in a mailbox, once there are `count`: lines end with CRLF, as they came."""
        self.wait_log(rf"postfix/virtual\[\d+\]: .*to=<{re.escape(mailbox)}>.* status=sent", count)
        new = self.folder / "mail" / self.place(mailbox) / "new"
        texts = [path.read_bytes() for path in sorted(new.iterdir(), key=lambda path: path.stat().st_mtime_ns)]
        assert len(texts) == count
        return [text.replace(b"\n", b"\r\n") for text in texts]

    def end(self):
        """The master is of a process group of its own, with all its children: it ends them. The script waits for it."""
        try:
            os.kill(int((self.folder / "queue/pid/master.pid").read_text()), signal.SIGTERM)
        except (OSError, ValueError):
            super().end()
        else:
            self.wait()

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


MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
daemon_directory = /usr/lib/postfix/sbin
setgid_group = postdrop
mail_owner = postfix
maillog_file = /dev/stdout
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mx1.example.net
mydestination =
alias_maps =
alias_database =
mynetworks =
smtpd_peername_lookup = no
smtputf8_enable = yes
virtual_mailbox_domains = example.net, example.org
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = texthash:{folder}/etc/mailboxes
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
smtpd_relay_restrictions = reject_unauth_destination
"""

MASTER_CF = """\
{listen} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
tlsmgr unix - - n 1000? 1 tlsmgr
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix(Program):
    """Takes mail for the mailboxes named, each a maildir. `settings`: further lines of main.cf."""

    def __init__(self, folder, mailboxes=("user@example.net", "app@example.org"), host="127.0.0.2", **settings):
        super().__init__()
        self.folder, self.mailboxes, self.host, self.port = folder, mailboxes, host, free_port(host)
        self.settings = settings
        for name in ("", "etc", "queue", "data", "mail"):
            (folder / name).mkdir(mode=0o755)
        shutil.chown(folder / "data", "postfix")
        shutil.chown(folder / "mail", "nobody")

    def start(self):
        main = MAIN_CF.format(folder=self.folder, uid=NOBODY.pw_uid, gid=NOBODY.pw_gid)
        main += "".join(f"{name} = {value}\n" for name, value in self.settings.items())
        etc = self.folder / "etc"
        (etc / "main.cf").write_text(main)
        (etc / "master.cf").write_text(MASTER_CF.format(listen=f"{self.host}:{self.port}"))
        (etc / "mailboxes").write_text("".join(f"{box} {self.place(box)}/\n" for box in self.mailboxes))
        self.spawn([POSTFIX, "-c", str(etc), "start-fg"])
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

"""What a container engine does with an image, as far as the kernel does it: namespaces, an overlay for the root, mounted
read-only, a volume, secrets, a bridge, its resolver, a process 1 that is another user without capabilities.

Expects to run as root in a mount, process and network namespace of its own, whose /run is its own too: all of it then
ends with the caller, whatever happens.
"""
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

PATIENCE = 30  # seconds until an awaited event counts as missing

# Addresses for documentation (RFC 5737), so that nothing real can be meant; there is no way out of the namespaces.
NETWORK, GATEWAY, BOX, APP, UPSTREAM = "192.0.2.0/24", "192.0.2.1", "192.0.2.2", "192.0.2.5", "192.0.2.9"
STRANGER = "198.51.100.7"


def run(*command, **options):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=PATIENCE, **options)


def must(*command):
    done = run(*command)
    if done.returncode != 0:
        raise AssertionError(f"{shlex.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class Bridge:
    """The container's network namespace "box", joined to ours, where the apps, the world and its servers are."""

    def __init__(self, names):
        must("ip", "link", "set", "lo", "up")
        must("ip", "netns", "add", "box")
        must("ip", "link", "add", "bridge", "type", "veth", "peer", "name", "eth0", "netns", "box")
        for address in (f"{GATEWAY}/24", f"{APP}/24", f"{UPSTREAM}/24", f"{STRANGER}/32"):
            must("ip", "address", "add", address, "dev", "bridge")
        must("ip", "link", "set", "bridge", "up")
        must("ip", "-n", "box", "link", "set", "lo", "up")
        must("ip", "-n", "box", "address", "add", f"{BOX}/24", "dev", "eth0")
        must("ip", "-n", "box", "link", "set", "eth0", "up")
        must("ip", "-n", "box", "route", "add", "default", "via", GATEWAY)
        self.privileged_ports_below(0)  # as Docker does since 20.10
        self.resolver = self.start_resolver(names)

    def privileged_ports_below(self, port):
        must("ip", "netns", "exec", "box", "sysctl", "-q", "-w", f"net.ipv4.ip_unprivileged_port_start={port}")

    @staticmethod
    def start_resolver(names):
        """Where Docker's embedded DNS server is: 127.0.0.11 inside the container's namespace."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", "box", "dnsmasq", "--keep-in-foreground", "--log-facility=-", "--user=root",
             "--listen-address=127.0.0.11", "--bind-interfaces", "--no-resolv", "--no-hosts", "--conf-file=/dev/null",
             "--pid-file=", *[f"--address=/{name}/{address}" for name, address in names.items()]],
            stderr=subprocess.PIPE, text=True)
        for line in process.stderr:
            if "started" in line:
                threading.Thread(target=process.stderr.read, daemon=True).start()
                return process
        raise AssertionError("dnsmasq did not start")

    def stop(self):
        self.resolver.terminate()
        self.resolver.wait()


class Image:
    """A root and what the Dockerfile records beside it (test/image/dockerfile.py)."""

    def __init__(self, root, metadata):
        self.root, self.metadata = Path(root), metadata
        user = metadata["user"].split(":")[0]
        fields = next(line.split(":") for line in (self.root / "etc/passwd").read_text().splitlines()
                      if user in (line.split(":")[0], line.split(":")[2]))
        self.user, self.uid, self.gid = fields[0], int(fields[2]), int(fields[3])


def make_volume(image, folder, name):
    """A new volume takes owner and mode from the image's folder."""
    path, original = folder / "volumes" / name / "_data", image.root / image.metadata["volumes"][0].lstrip("/")
    path.mkdir(parents=True)
    os.chown(path, original.stat().st_uid, original.stat().st_gid)
    path.chmod(original.stat().st_mode & 0o7777)
    return path


class Container:
    count = 0

    def __init__(self, image, folder, environ=(), volume=None, secrets=None, hostname="0123456789ab", hosts=(), trust=None,
                 command=None):
        Container.count += 1
        self.image, self.folder = image, folder / f"container-{Container.count}"
        self.environ = {**image.metadata["env"], **dict(environ)}
        self.volume, self.secrets, self.hostname, self.trust = volume, secrets or {}, hostname, trust
        self.command = command or image.metadata["entrypoint"]
        self.lines, self.changed = [], threading.Condition()
        self.process = None

    def setup(self):
        """The shell lines that make the root and become process 1."""
        files = self.folder
        files.mkdir()
        (files / "resolv.conf").write_text("nameserver 127.0.0.11\noptions ndots:0\n")
        (files / "hosts").write_text(f"127.0.0.1 localhost\n{BOX} {self.hostname}\n")
        (files / "hostname").write_text(f"{self.hostname}\n")
        for name in ("upper", "work", "root"):
            (files / name).mkdir()
        binds = [(files / name, f"etc/{name}", "rw") for name in ("resolv.conf", "hosts", "hostname")]
        binds += [(path, f"run/secrets/{name}", "ro") for name, path in self.secrets.items()]
        if self.trust:
            binds.append((self.trust, "etc/ssl/certs/ca-certificates.crt", "ro"))
        lines = [
            f"hostname {shlex.quote(self.hostname)}",
            f"mount -t overlay overlay -o lowerdir={self.image.root},upperdir={files}/upper,workdir={files}/work {files}/root",
            f"cd {files}/root",
            "mkdir -p proc sys dev run/secrets",
            "mount -t proc -o nosuid,nodev,noexec proc proc",
            "mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys",
            "mount -t tmpfs -o nosuid,mode=755,size=64k tmpfs dev",
            "mkdir dev/shm && mount -t tmpfs -o nosuid,nodev,noexec,size=64m shm dev/shm",
            "for d in null zero full random urandom tty; do : >dev/$d; mount --bind /dev/$d dev/$d; done",
        ]
        for source, target, mode in binds:
            lines.append(f"[ -e {target} ] || : >{target}; mount --bind {shlex.quote(str(source))} {target}")
            if mode == "ro":
                lines.append(f"mount -o remount,bind,ro {target}")
        if self.volume:
            lines.append(f"mount --bind {shlex.quote(str(self.volume))} {self.image.metadata['volumes'][0].lstrip('/')}")
        lines.append(f"mount -o remount,bind,ro {files}/root")
        lines.append(f"exec chroot . {shlex.join(self.become(self.command))}")
        return "\n".join(lines)

    def become(self, command, user=True):
        """As the engine starts a process with cap_drop: [ALL] and no-new-privileges."""
        drop = [f"--reuid={self.image.uid}", f"--regid={self.image.gid}", "--init-groups"] if user else []
        return ["env", "-i", *[f"{name}={value}" for name, value in self.environ.items()], "HOME=/", "setpriv", *drop,
                "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", *command]

    def spawn(self):
        self.process = subprocess.Popen(
            ["nsenter", "--net=/run/netns/box", "unshare", "--mount", "--uts", "--ipc", "--pid", "--fork",
             "--propagation", "private", "--", "bash", "-euc", self.setup()],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        return self

    def read(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.rstrip("\n"))
                self.changed.notify_all()
        with self.changed:
            self.changed.notify_all()

    def start(self):
        self.spawn()
        self.wait_log(r'event(=|":")started')  # text or JSON
        return self

    def wait_log(self, pattern, count=1):
        """Waits for so many matching lines; returns the matches."""
        deadline = time.monotonic() + PATIENCE
        with self.changed:
            while True:
                found = [match for line in self.lines if (match := re.search(pattern, line))]
                if len(found) >= count:
                    return found
                if time.monotonic() > deadline or (self.process.poll() is not None and not self.reader.is_alive()):
                    raise AssertionError(f"no log line {pattern!r}; the log:\n" + "\n".join(self.lines[-60:]))
                self.changed.wait(0.5)

    @property
    def pid(self):
        """Process 1 of the container, as we see it."""
        return int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[0])

    def exec(self, *command, user=True):
        return run("nsenter", f"--target={self.pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd=/",
                   *self.become(command, user))

    def wait_exit(self, seconds=PATIENCE):
        code = self.process.wait(timeout=seconds)
        self.reader.join()
        return code, "\n".join(self.lines)

    def stop(self, grace):
        """The stop signal, then at most so many seconds: (exit code, seconds it took)."""
        began = time.monotonic()
        os.kill(self.pid, signal.Signals[self.image.metadata["stop_signal"]])
        code, _ = self.wait_exit(grace)
        return code, time.monotonic() - began

    def kill(self):
        """Process 1, and with it all others. (unshare --kill-child does not do it: a change of user clears that.)"""
        if self.process and self.process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait_exit()

    def remove(self):
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

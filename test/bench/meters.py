"""What a contender's processes cost: CPU, memory, bytes written, syncs of the disk.

All figures are sums over a process and its descendants. CPU and bytes include children that have exited and were waited
for: the kernel adds those to their parent (cutime, cstime; task_io_accounting), and each contender's master waits for its
children. So nothing is lost with short-lived processes, and no tracer slows anybody down.
"""

import os
import subprocess
import tempfile

TICKS = os.sysconf("SC_CLK_TCK")


def _stat(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return {"ppid": int(fields[1]), "ticks": sum(int(x) for x in fields[11:15])}


def family(root):
    """pid -> stat of a process and all its descendants."""
    everybody = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                everybody[int(name)] = _stat(name)
            except (OSError, IndexError):
                pass
    members, grew = {root} & set(everybody), True
    while grew:
        more = {pid for pid, stat in everybody.items() if stat["ppid"] in members} - members
        members |= more
        grew = bool(more)
    return {pid: everybody[pid] for pid in members}


def cpu_seconds(roots):
    return sum(stat["ticks"] for root in roots for stat in family(root).values()) / TICKS


def _value(path, key):
    try:
        with open(path) as f:
            for line in f:
                if line.startswith(key):
                    return int(line.split()[1])
    except OSError:
        pass
    return 0


def written_bytes(roots):
    """Bytes that the processes caused to be written to storage (pages, not the file system's own journal)."""
    return sum(_value(f"/proc/{pid}/io", "write_bytes:") for root in roots for pid in family(root))


def pss_bytes(roots):
    return sum(_value(f"/proc/{pid}/smaps_rollup", "Pss:") for root in roots for pid in family(root)) * 1024


def block_device(path):
    """The name in /proc/diskstats of the device under a path, or None."""
    dev = os.stat(path).st_dev
    link = f"/sys/dev/block/{os.major(dev)}:{os.minor(dev)}"
    return os.path.basename(os.path.realpath(link)) if os.path.exists(link) else None


def filesystem(path):
    dev = os.stat(path).st_dev
    with open("/proc/self/mountinfo") as f:
        for line in f:
            if line.split()[2] == f"{os.major(dev)}:{os.minor(dev)}":
                return line.split(" - ")[1].split()[0]
    return "unknown"


def disk_counters(device):
    """(bytes written, flushes) of the whole device since boot."""
    with open("/proc/diskstats") as f:
        for line in f:
            fields = line.split()
            if fields[2] == device:
                return int(fields[9]) * 512, int(fields[18]) if len(fields) > 18 else 0
    return 0, 0


class SyncCounter:
    """Counts fsync and fdatasync calls on the whole machine by the file system's own tracepoint, whose cost is a few
    hundred ns a sync and nothing elsewhere. Without tracefs, or not as root: the flushes that the disk saw (several
    syncs may share one)."""

    EVENTS = {"ext4": "ext4/ext4_sync_file_enter", "xfs": "xfs/xfs_file_fsync", "btrfs": "btrfs/btrfs_sync_file",
              "f2fs": "f2fs/f2fs_sync_file_enter"}

    def __init__(self, path):
        self.device = block_device(path)
        self.mounted = self.instance = None
        self.method = "flushes seen by the disk"
        event = self.EVENTS.get(filesystem(path))
        root = self._tracefs() if event and os.geteuid() == 0 else None
        if root and os.path.exists(f"{root}/events/{event}"):
            self.instance = f"{root}/instances/relayd-bench-{os.getpid()}"
            try:
                os.mkdir(self.instance)
                self._write("buffer_size_kb", "256")
                self._write(f"events/{event}/enable", "1")
                self.method = f"fsync and fdatasync calls (tracepoint {event})"
            except OSError:
                self.instance = None

    def _write(self, name, text):
        with open(f"{self.instance}/{name}", "w") as f:
            f.write(text)

    def _tracefs(self):
        for path in ("/sys/kernel/tracing", "/sys/kernel/debug/tracing"):
            if os.path.isdir(f"{path}/instances"):
                return path
        self.mounted = tempfile.mkdtemp(prefix="relayd-bench-tracefs-")
        if subprocess.run(["mount", "-t", "tracefs", "tracefs", self.mounted], capture_output=True).returncode == 0:
            return self.mounted
        os.rmdir(self.mounted)
        self.mounted = None
        return None

    def read(self):
        if not self.instance:
            return disk_counters(self.device)[1]
        total = 0
        for cpu in os.listdir(f"{self.instance}/per_cpu"):
            with open(f"{self.instance}/per_cpu/{cpu}/stats") as f:
                for line in f:
                    key, _, value = line.partition(":")
                    if key in ("entries", "overrun"):
                        total += int(value)
        return total

    def close(self):
        if self.instance:
            os.rmdir(self.instance)
            self.instance = None
        if self.mounted:
            subprocess.run(["umount", self.mounted], check=False)
            os.rmdir(self.mounted)
            self.mounted = None

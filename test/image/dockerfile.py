"""Carries out a Dockerfile under chroot: the instructions that contrib/docker/Dockerfile uses, each as it is written
there. Any other instruction is refused rather than skipped, so that what was built is what the file says.

    dockerfile.py DOCKERFILE CONTEXT BASE ROOTS

BASE is a folder with the Debian that every FROM names; each stage becomes a folder ROOTS/NAME (the last: ROOTS/image),
and what is only recorded (ENV, USER, ...) becomes ROOTS/image.json. Expects a private mount namespace.
"""
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # what engines set
STEP_SECONDS = 1800
IMAGE = re.compile(r"debian:12(-slim)?$")


def instructions(text):
    """(word, rest) of each; comments and continuations undone."""
    lines, pending = [], ""
    for line in text.splitlines():
        if line.lstrip().startswith("#") or (not line.strip() and not pending):
            continue
        pending += line.rstrip().removesuffix("\\") if line.rstrip().endswith("\\") else line
        if not line.rstrip().endswith("\\"):
            lines.append(pending.strip())
            pending = ""
    return [(line.split(None, 1)[0].upper(), line.split(None, 1)[1]) for line in lines]


def run(*command, **options):
    subprocess.run([str(part) for part in command], check=True, stdin=subprocess.DEVNULL, timeout=STEP_SECONDS, **options)


class Stage:
    def __init__(self, name, root, context, stages):
        self.name, self.root, self.context, self.stages = name, root, context, stages
        self.workdir = "/"
        self.metadata = {"env": {"PATH": PATH}, "user": "root", "volumes": [], "ports": [], "stop_signal": "SIGTERM"}

    def inside(self, path):
        """Where a path of the image is on this machine."""
        return self.root / str(Path(self.workdir) / path).lstrip("/")

    def do(self, word, rest):
        step = getattr(self, f"do_{word.lower()}", None)
        if not step:
            raise SystemExit(f"Dockerfile: {word} is not understood here: {rest}")
        print(f"--- {self.name}: {word} {rest}", flush=True)
        step(rest)

    def do_workdir(self, rest):
        self.inside(rest).mkdir(parents=True, exist_ok=True)
        self.workdir = str(Path(self.workdir) / rest)

    def do_copy(self, rest):
        source, target = re.match(r"(?:--from=\S+\s+)?(\S+)\s+(\S+)$", rest).groups()
        stage = re.match(r"--from=(\S+)", rest)
        origin = self.stages[stage[1]].root / source.lstrip("/") if stage else self.context / source
        self.inside(target).mkdir(parents=True, exist_ok=True)
        run("cp", "-a", "--no-preserve=ownership", f"{origin}/." if origin.is_dir() else origin, self.inside(target))

    def do_run(self, rest):
        # Without a private /proc and the machine's resolver neither apt-get nor the packages' scripts work.
        run("mount", "-t", "proc", "proc", self.root / "proc")
        try:
            run("env", "-i", *[f"{k}={v}" for k, v in self.metadata["env"].items()], "HOME=/root", "chroot", self.root,
                "/bin/sh", "-c", f"cd {shlex.quote(self.workdir)} && {rest}")
        finally:
            run("umount", self.root / "proc")

    def do_env(self, rest):
        self.metadata["env"].update(pair.split("=", 1) for pair in shlex.split(rest))

    def do_user(self, rest):
        self.metadata["user"] = rest

    def do_volume(self, rest):
        self.metadata["volumes"] += rest.split()

    def do_expose(self, rest):
        self.metadata["ports"] += [int(port) for port in rest.split()]

    def do_stopsignal(self, rest):
        self.metadata["stop_signal"] = rest

    def do_entrypoint(self, rest):
        self.metadata["entrypoint"] = json.loads(rest)

    def do_healthcheck(self, rest):
        options, command = rest.split("CMD", 1)
        self.metadata["healthcheck"] = {**dict(re.findall(r"--([a-z-]+)=(\S+)", options)), "command": json.loads(command)}


def build(dockerfile, context, base, roots):
    stages, stage = {}, None
    steps = instructions(dockerfile.read_text())
    last = max(i for i, (word, _) in enumerate(steps) if word == "FROM")
    for i, (word, rest) in enumerate(steps):
        if word != "FROM":
            stage.do(word, rest)
            continue
        image, _, name = rest.partition(" AS ")
        if not IMAGE.match(image):
            raise SystemExit(f"Dockerfile: FROM {image}: the base made here is Debian 12")
        name = "image" if i == last else name
        print(f"--- {name}: FROM {image}", flush=True)
        stage = stages[name] = Stage(name, roots / name, context, stages)
        run("cp", "-a", base, stage.root)
    (roots / "image.json").write_text(json.dumps(stage.metadata, indent=2))


if __name__ == "__main__":
    build(*(Path(argument).resolve() for argument in sys.argv[1:]))

"""relayctl doctor with a configuration of its own, and what it found."""
import json
import os
import subprocess

from conftest import PATIENCE, RELAYCTL, users_line


class Doctor:
    """relayctl doctor with a configuration of its own, asking the DNS server `dns`."""

    def __init__(self, folder, dns):
        self.folder, self.dns = folder, dns
        self.config = folder / "doctor.yaml"
        self.users = folder / "users"
        self.users.write_text(users_line())
        self.base = {"hostname": "relay.example.org", "spool": f"{folder}/spool", "users": self.users}

    def run(self, *arguments, yaml="", environ=None, server="127.0.0.1", **base):
        """Text for people."""
        lines = [f"{key}: {value}\n" for key, value in {**self.base, **base}.items() if value is not None]
        self.config.write_text("".join(lines) + f"dns: {{servers: ['{server}:{self.dns.port}']}}\n" + yaml)
        return subprocess.run([RELAYCTL, "-c", self.config, "doctor", *arguments], text=True, capture_output=True,
                              timeout=2 * PATIENCE, env={**os.environ, **(environ or {})})

    def __call__(self, *arguments, **options):
        """(exit code, findings)."""
        done = self.run("--json", *arguments, **options)
        document = json.loads(done.stdout)
        assert document["failed"] == len([f for f in document["checks"] if f["level"] == "fail"])
        assert (done.returncode == 0) == document["ok"], done.stderr
        return done.returncode, Findings(document["checks"])


class Findings(list):
    def of(self, check):
        return Findings(finding for finding in self if finding["check"] == check)

    @property
    def levels(self):
        return [finding["level"] for finding in self]

    def one(self, check, subject=None):
        found = [f for f in self.of(check) if subject in (None, f["subject"])]
        assert len(found) == 1, list(self)
        return found[0]

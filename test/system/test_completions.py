"""The shell completions know every command and option that relayctl's own help names, and nothing else."""
import json
import re
import shutil
import subprocess

import pytest

from conftest import RELAYCTL, ROOT

BASH = ROOT / "contrib" / "completions" / "relayctl.bash"
ZSH = ROOT / "contrib" / "completions" / "_relayctl"


@pytest.fixture(scope="module")
def commands():
    done = subprocess.run([RELAYCTL, "help", "--json"], capture_output=True, text=True, check=True)
    return {command["name"]: command["options"] for command in json.loads(done.stdout)}


def complete(*words):
    """What bash would offer for the last word."""
    script = (f'source "{BASH}"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _relayctl; printf "%s\\n" "${{COMPREPLY[@]}}"')
    done = subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_bash_knows_every_command(commands):
    assert set(complete("false", "")) - {"-c", "-s", "--json", "--help"} == set(commands)
    assert complete("false", "rel") == ["release", "reload"] or set(complete("false", "rel")) == {"release", "reload"}
    assert complete("false", "-s", "/x", "--json", "hea") == ["health"]


def test_bash_knows_every_option(commands):
    for name, options in commands.items():
        offered = set(complete("false", name, "-")) - {"--json"}
        assert offered == set(options), name


def test_bash_offers_values():
    assert set(complete("false", "queue", "--state", "")) == {"ready", "inflight", "deferred", "held"}
    assert complete("false", "queue", "--state", "de") == ["deferred"]
    assert complete("false", "dkim", "k") == ["keygen"]


def test_bash_offers_what_is_there(folder):
    """Ids come from relayctl itself."""
    fake = folder / "relayctl"
    fake.write_text("#!/bin/sh\necho '070SAZK6AMW00  deferred  22s'\n")
    fake.chmod(0o755)
    assert complete(str(fake), "show", "") == ["070SAZK6AMW00"]


def zsh_options(text, name):
    """The options in the case branch of a command, with those of $filter."""
    for branch, body in re.findall(r"^\t\t([a-z |]+)\)(.*?);;", text, re.S | re.M):
        if name in branch.split(" | "):
            found = set(re.findall(r"'\*?(--?[a-z-]+)[\[']", body))
            if "$filter" in body:
                found |= set(re.findall(r"'(--[a-z]+)\[", re.search(r"filter=\((.*?)\n\t\)", text, re.S).group(1)))
            return found
    return set()


def test_zsh_knows_them_too(commands):
    text = ZSH.read_text()
    listed = re.search(r"commands=\((.*?)\n\t\)", text, re.S).group(1)
    assert set(re.findall(r"'([a-z]+):", listed)) == set(commands)
    for name, options in commands.items():
        assert zsh_options(text, name) - {"--json"} == set(options), name


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
def test_zsh_can_read_it():
    subprocess.run(["zsh", "-n", ZSH], check=True)

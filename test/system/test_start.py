"""Starts that must fail, each with one clear line and its exit code; and configuration by environment alone."""
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from conftest import RELAYD, Relayd, message, relayhost, service_user, users_line


def failing_start(daemon):
    daemon.spawn()
    code = daemon.wait_exit()
    return code, "\n".join(daemon.lines)


def test_unknown_key_is_78_with_place_and_suggestion(relayd):
    code, text = failing_start(relayd("relayhots: {}\n", start=False))
    assert code == 78
    assert re.search(r"relayd\.yaml:\d+:1: unknown key 'relayhots', did you mean 'relayhosts'\?", text)


def test_check_only(relayd, folder):
    daemon = relayd(start=False)
    daemon.write_config()
    good = subprocess.run([RELAYD, "-t", "-c", daemon.config_path], capture_output=True, text=True)
    assert good.returncode == 0, good.stderr
    daemon.write_config(daemon.config + "limits: {recipients: many}\n")
    bad = subprocess.run([RELAYD, "-t", "-c", daemon.config_path], capture_output=True, text=True)
    assert bad.returncode == 78 and re.search(r":\d+:22: .*many", bad.stderr)


def test_check_only_opens_what_is_named(relayd, folder):
    """And says all that is wrong, as a start would say one after the other."""
    (folder / "nonsense").write_text("nonsense\n")
    (folder / "nonsense").chmod(0o644)
    nonsense = folder / "nonsense"
    daemon = relayd(start=False)
    daemon.write_config(daemon.config + f"tls: {{certificate: {nonsense}}}\n"
                        f"dkim: {{domains: {{example.org: {{s1: {nonsense}}}}}}}\n" +
                        relayhost(25, tls="verify", ca_file=nonsense))
    bad = subprocess.run([RELAYD, "-t", "-c", daemon.config_path], capture_output=True, text=True)
    assert bad.returncode == 78
    assert re.search("^relayd: tls: .*nonsense has no .* PEM form", bad.stderr, re.M), bad.stderr
    assert re.search("^relayd: dkim key of example.org, selector s1: .*nonsense", bad.stderr, re.M), bad.stderr
    assert bad.stderr.count("nonsense") == 3, bad.stderr


def test_an_empty_secret_is_a_mistake(relayd, folder):
    (folder / "empty").write_text("\n")
    code, text = failing_start(relayd(relayhost(25, username="u", password_file=folder / "empty"), start=False))
    assert code == 78 and re.search(r"relayd\.yaml:\d+:\d+: .*empty is empty", text), text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts it as somebody else")
def test_what_only_root_can_read_is_told(relayd, folder, upstream):
    """It starts, and its first reload would fail."""
    (folder / "secret").write_text("secret\n")
    (folder / "secret").chmod(0o600)
    daemon = relayd(relayhost(upstream.port, username="u", password_file=folder / "secret"))
    mistake = r".*relayd\.yaml:\d+:\d+: cannot read .*secret: Permission denied \(for uid \d+\); as user \w+ a reload would fail"
    assert any(re.match("relayd: warning: " + mistake, line) for line in daemon.lines), daemon.lines
    told = subprocess.run([RELAYD, "-t", "-c", daemon.config_path], capture_output=True, text=True)
    assert told.returncode == 78 and re.match("relayd: /" + mistake, told.stderr) and told.stdout == ""
    (folder / "secret").chmod(0o644)
    told = subprocess.run([RELAYD, "-t", "-c", daemon.config_path], capture_output=True, text=True)
    assert told.returncode == 0 and told.stderr == ""


def test_port_taken_is_71(relayd):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, text = failing_start(relayd(start=False, listen=f"listen: [{{address: '127.0.0.1:{port}'}}]\n"))
    assert code == 71 and f"relayd: cannot listen on 127.0.0.1:{port}: Address already in use; `ss -ltnp`" in text


def test_port_taken_on_ipv6_alone_is_71(relayd):
    """Otherwise clients that try [::1] first would find a stranger."""
    with socket.socket(socket.AF_INET6) as taken:
        try:
            taken.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
        taken.listen()
        port = taken.getsockname()[1]
        code, text = failing_start(relayd(start=False, listen=f"listen: [{{address: '*:{port}'}}]\n"))
    assert code == 71 and "Address already in use" in text


def test_help_and_arguments():
    told = subprocess.run([RELAYD, "--help"], capture_output=True, text=True)
    assert told.returncode == 0 and told.stdout.startswith("usage: relayd [-c FILE]") and told.stderr == ""
    told = subprocess.run([RELAYD, "start"], capture_output=True, text=True)
    assert told.returncode == 64 and told.stderr.startswith("relayd: unknown argument 'start'\nusage: relayd")


def test_nobody_could_submit_is_78(relayd):
    code, text = failing_start(relayd(start=False, users=""))
    assert code == 78 and "users" in text


def test_unreadable_key_is_78(relayd, folder):
    """K4"""
    code, text = failing_start(relayd(f"dkim: {{domains: {{example.org: {{s1: {folder}/missing.pem}}}}}}\n", start=False))
    assert code in (77, 78) and "missing.pem" in text


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_spool_not_writable_is_77(folder):
    spool = folder / "spool"
    spool.mkdir(mode=0o755)
    (folder / "users").write_text(users_line())
    daemon = Relayd(folder, f"hostname: relay.example.org\nspool: {spool}\nephemeral_spool: allow\nusers: {folder}/users\n",
                    wrapper=["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"])
    daemon.write_config()
    code, text = failing_start(daemon)
    assert code == 77 and str(spool) in text


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_a_segment_of_somebody_else_is_77_and_costs_nothing(relayd, upstream):
    """As after a backup that root has brought back."""
    upstream.stop()
    daemon = relayd(relayhost(upstream.port))
    with daemon.smtp() as client:
        for i in range(3):
            client.send_message(message(f"before {i}"))
    daemon.stop()
    segments = sorted((daemon.spool / "journal").glob("seg-*"))
    content = [path.read_bytes() for path in segments]
    owner = segments[0].stat()
    for path in segments:
        os.chown(path, 0, 0)
    code, text = failing_start(daemon)
    assert code == 77 and f"journal/{segments[0].name}: Permission denied" in text
    assert sorted((daemon.spool / "journal").glob("seg-*")) == segments
    assert [path.read_bytes() for path in segments] == content
    assert not list((daemon.spool / "quarantine").iterdir())
    for path in segments:
        os.chown(path, owner.st_uid, owner.st_gid)
    upstream.start()
    daemon.start()
    daemon.ctl("flush")
    assert len(upstream.get_many(3)) == 3


def test_vanishing_spool_is_73(folder):
    (folder / "users").write_text(users_line())
    daemon = Relayd(folder, f"hostname: relay.example.org\nspool: /dev/shm/relayd-test-{os.getpid()}\nusers: {folder}/users\n"
                    + (f"user: {service_user()}\n" if service_user() else ""))
    code, text = failing_start(daemon)
    assert code == 73 and "tmpfs" in text and "volumes" in text
    told = subprocess.run([RELAYD, "-t", "-c", daemon.config_path], capture_output=True, text=True)
    assert told.returncode == 0 and re.match(r"relayd: warning: spool: /dev/shm/\S+ lies on tmpfs: .*; a start here would be refused\n$",
                                             told.stderr), told.stderr


def test_environment_only(folder, upstream):
    (folder / "secret").write_text("from a file\n")
    environ = {"RELAYD_HOSTNAME": "relay.example.org", "RELAYD_SPOOL": str(folder / "spool"), "RELAYD_EPHEMERAL_SPOOL": "allow",
               "RELAYD_LISTEN": "127.0.0.1:0;tls=starttls,127.0.0.1:0;tls=off;auth=optional", "RELAYD_HTTP": "127.0.0.1:0",
               "RELAYD_USERNAME": "app", "RELAYD_PASSWORD_FILE": str(folder / "secret"),
               "RELAYD_RELAYHOST": f"127.0.0.1:{upstream.port}", "RELAYD_RELAYHOST_TLS": "none",
               "RELAYD_SERVICE_HOST": "10.0.0.1", "RELAYD_PORT": "tcp://10.0.0.1:587"}
    if service_user():
        environ["RELAYD_USER"] = service_user()
        (folder / "secret").chmod(0o644)
    daemon = Relayd(folder, None, environ)
    try:
        daemon.start()
        with daemon.smtp(password="from a file") as client:
            client.send_message(message())
        assert upstream.get().rcpt_tos == ["user@example.net"]
        with daemon.smtp(user=None, tls=False, port=int(daemon.addresses[1].rsplit(":", 1)[1])) as client:
            assert client.mail("a@example.org")[0] in (530, 554)
    finally:
        daemon.stop()


def test_unknown_variable_names_the_nearest(folder):
    daemon = Relayd(folder, None, {"RELAYD_HOSTNAM": "x", "RELAYD_SPOOL": str(folder / "spool")})
    code, text = failing_start(daemon)
    assert code == 78 and "RELAYD_HOSTNAME" in text


def test_version(folder):
    done = subprocess.run([RELAYD, "-V"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("relayd 0.") and "GnuTLS" in done.stdout


def command_lines_of_children(pid):
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                yield (stat.parent / "cmdline").read_bytes().rstrip(b"\0").decode()
        except (FileNotFoundError, ProcessLookupError):
            pass


def test_ps_shows_what_each_process_is(relayd, upstream):
    daemon = relayd(relayhost(upstream.port))
    pid = daemon.process.pid
    assert sorted(command_lines_of_children(pid)) == ["relayd: crypto", "relayd: crypto", "relayd: sync"]
    assert Path(f"/proc/{pid}/cmdline").read_bytes().startswith(str(RELAYD).encode())

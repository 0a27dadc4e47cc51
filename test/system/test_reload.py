"""Reload: by SIGHUP, by relayctl, and by itself when files change; under load nothing is dropped and no login fails; a bad
configuration is refused whole; what wants a restart is named."""
import os
import signal
import smtplib
import socket
import ssl
import subprocess
import threading

import pytest

from conftest import FAST_RETRY, message, no_verification, relayhost, users_line
from peers import free_port, make_certificate


def served_certificate(daemon, port=None):
    with smtplib.SMTP("127.0.0.1", port or daemon.port, timeout=30) as client:
        client.starttls(context=no_verification())
        return client.sock.getpeercert(binary_form=True)


def der(path):
    return ssl.PEM_cert_to_DER_cert(path.read_text())


def put(path, text):
    """By rename, as those do who rotate secrets; readable for the service user."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text)
    fresh.chmod(0o644)
    fresh.rename(path)


def dkim_key(path):
    put(path, subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519"], check=True, capture_output=True,
                             text=True).stdout)


@pytest.fixture
def material(folder):
    """Certificate, DKIM key and the configuration that names them."""
    certificate, key = make_certificate(folder)
    key.chmod(0o644)
    dkim_key(folder / "s1.pem")
    return (f"tls: {{certificate: {certificate}, key: {key}}}\n"
            f"dkim: {{domains: {{example.org: {{s1: {folder / 's1.pem'}}}}}}}\n")


def new_certificate(folder):
    """Replaces the pair in place; the DER of the new one."""
    fresh = folder / "fresh"
    fresh.mkdir(exist_ok=True)
    certificate, key = make_certificate(fresh)
    put(folder / "localhost.key", key.read_text())
    put(folder / "localhost.pem", certificate.read_text())
    return der(certificate)


def can_log_in(daemon, password, user="app"):
    try:
        daemon.smtp(user=user, password=password).quit()
        return True
    except smtplib.SMTPAuthenticationError:
        return False


def test_changed_files_are_noticed(relayd, upstream, folder, material):
    """K4: Within a minute, without a word to the daemon; a file that makes no sense changes nothing."""
    daemon = relayd(relayhost(upstream.port) + material)
    put(folder / "users", users_line(password="other") + users_line("new"))
    fresh = new_certificate(folder)
    daemon.wait_log("event=reloaded")
    assert can_log_in(daemon, "other") and can_log_in(daemon, "secret", "new") and not can_log_in(daemon, "secret")
    assert served_certificate(daemon) == fresh
    put(folder / "s1.pem", "no key at all\n")
    (line,) = daemon.wait_log("event=reload_failed")
    assert "s1.pem" in line
    assert daemon.metric("relayd_config_last_reload_successful") == 0
    with daemon.smtp(password="other") as client:
        client.send_message(message())
    assert b"\r\nDKIM-Signature: " in b"\r\n" + upstream.get().data


def test_a_bad_configuration_is_refused_whole(relayd, upstream, folder, material):
    """K4, K10"""
    daemon = relayd(relayhost(upstream.port) + material)
    old = served_certificate(daemon)
    new_certificate(folder)
    (folder / "users").write_text(users_line(password="other"))
    for bad in ("nonsense: 1\n", "bcc: [no address]\n", f"webhook: {{url: 'ftp://x'}}\n",
                f"relayhosts: {{x: {{address: '127.0.0.1:1', ca_file: {folder / 'nothing.pem'}}}}}\n"):
        text = daemon.config if "relayhosts" not in bad else daemon.config.replace(relayhost(upstream.port), "")
        daemon.config_path.write_text(text + bad)
        done = daemon.ctl("reload", check=False)
        assert done.returncode == 1 and done.stderr, bad
        assert can_log_in(daemon, "secret"), bad
        assert served_certificate(daemon) == old, bad
    put(folder / "s1.pem", "no key at all\n")
    daemon.write_config()
    done = daemon.ctl("reload", check=False)
    assert done.returncode == 1 and "s1.pem" in done.stderr
    daemon.wait_log("event=reload_failed .*s1.pem")
    assert "the last reload was refused: " in daemon.ctl("status").stdout
    assert "s1.pem" in daemon.json("status")["config"]["refused"]
    assert not can_log_in(daemon, "other") and can_log_in(daemon, "secret") and served_certificate(daemon) == old
    dkim_key(folder / "s1.pem")
    assert daemon.ctl("reload").stdout == "reloaded\n"
    assert daemon.json("status")["config"] == {"refused": "", "needs_restart": ""}
    assert can_log_in(daemon, "other") and not can_log_in(daemon, "secret") and served_certificate(daemon) != old


def test_what_needs_a_restart_is_named(relayd, upstream):
    daemon = relayd(relayhost(upstream.port))
    daemon.write_config(daemon.config.replace("http: 127.0.0.1:0", "http: 127.0.0.1:1") +
                        "limits: {queue_messages: 5, recipients: 7}\nhelpers: 1\n")
    assert daemon.ctl("reload").stdout == "reloaded\nneeds a restart: http, limits.queue_messages\n"
    daemon.wait_log('event=reloaded .*needs_restart="http, limits.queue_messages"')
    assert "needs a restart: http, limits.queue_messages\n" in daemon.ctl("status").stdout
    with daemon.smtp() as client:  # the rest is in force
        client.mail("a@example.org")
        assert [client.rcpt(f"u{n}@example.net")[0] for n in range(8)] == [250] * 7 + [452]
    daemon.write_config(daemon.config.replace("http: 127.0.0.1:1", "http: 127.0.0.1:0").replace("queue_messages: 5, ", ""))
    assert daemon.ctl("reload").stdout == "reloaded\n"


def test_listeners_keep_what_is_said_of_their_address(relayd, upstream):
    """Also when they change places, or one goes."""
    first = "  - {address: '127.0.0.1:0', tls: starttls, auth: required}\n"
    second = "  - {address: '127.0.0.2:0', tls: 'off', auth: optional, trusted: [127.0.0.0/8]}\n"
    daemon = relayd(relayhost(upstream.port), listen="listen:\n" + first + second)
    ports = {address.split(":")[0]: int(address.split(":")[1]) for address in daemon.addresses}

    def assert_both():
        with smtplib.SMTP("127.0.0.1", ports["127.0.0.1"], timeout=30) as client:
            client.ehlo()
            assert client.has_extn("starttls") and client.docmd("MAIL", "FROM:<a@example.org>")[0] == 530
        with smtplib.SMTP("127.0.0.2", ports["127.0.0.2"], timeout=30) as client:
            client.ehlo()
            assert not client.has_extn("starttls") and client.docmd("MAIL", "FROM:<a@example.org>")[0] == 250

    assert_both()
    daemon.write_config(daemon.config.replace(first + second, second + first))
    assert daemon.ctl("reload").stdout == "reloaded\n"
    assert_both()
    daemon.write_config(daemon.config.replace(second + first, first))
    assert daemon.ctl("reload").stdout == "reloaded\nneeds a restart: listen\n"
    assert_both()


class Load:
    """Clients that send one message after the other until they are told to stop."""

    def __init__(self, count, send):
        self.stopping = threading.Event()
        self.failures, self.sent, self.lock = [], [], threading.Lock()
        self.threads = [threading.Thread(target=self.run, args=(n, send)) for n in range(count)]
        for thread in self.threads:
            thread.start()

    def run(self, number, send):
        turn = 0
        while not self.stopping.is_set():
            name = f"{send.__name__}-{number}-{turn}"
            turn += 1
            try:
                send(name)
                with self.lock:
                    self.sent.append(name)
            except Exception as why:
                self.failures.append(f"{name}: {why!r}")
                return

    def wait(self, count):
        """Until so many more have been sent."""
        goal = len(self.sent) + count
        while len(self.sent) < goal and not self.failures:
            self.stopping.wait(0.01)

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        assert self.failures == []


def subjects(upstream, count):
    return [next(line[9:] for line in mail.head.split("\r\n") if line.startswith("Subject: "))
            for mail in upstream.get_many(count)]


def test_reload_under_load_drops_nothing(relayd, upstream, folder, material):
    """Long connections and short ones, by SIGHUP and by relayctl; each message arrives once."""
    daemon = relayd(relayhost(upstream.port) + material + FAST_RETRY)
    sessions = threading.local()

    def by_long(name):
        if not hasattr(sessions, "client"):
            sessions.client = daemon.smtp()
        sessions.client.send_message(message(name))

    def by_short(name):
        with daemon.smtp() as client:
            client.send_message(message(name))

    long_ones, short_ones = Load(3, by_long), Load(3, by_short)
    try:
        for turn in range(8):
            if turn % 4 == 3:
                new_certificate(folder)
            if turn % 2:
                daemon.ctl("reload")
            else:
                daemon.process.send_signal(signal.SIGHUP)
            long_ones.wait(5)
            short_ones.wait(5)
    finally:
        long_ones.stop()
        short_ones.stop()
    daemon.wait_log("event=reloaded", count=4)
    sent = long_ones.sent + short_ones.sent
    assert sorted(subjects(upstream, len(sent))) == sorted(sent)
    daemon.wait_log("event=delivered", count=len(sent))
    assert upstream.messages.empty()
    assert [line for line in daemon.lines if "reload_failed" in line] == []


def test_secrets_rotated_under_load_without_a_failed_login(relayd, upstream, folder):
    """Old and new secret overlap; every login, with the one or the other, succeeds at every moment."""
    current = ["secret-0"]
    daemon = relayd(relayhost(upstream.port), users=users_line(password="secret-0"))

    def log_in(name):
        daemon.smtp(password=current[0]).quit()

    load = Load(5, log_in)
    try:
        for turn in range(1, 5):
            old, fresh = f"secret-{turn - 1}", f"secret-{turn}"
            put(folder / "users", users_line(password=old) + users_line(password=fresh))
            daemon.ctl("reload")
            load.wait(5)
            current[0] = fresh
            load.wait(10)  # more than are under way with the old one
            put(folder / "users", users_line(password=fresh))
            daemon.ctl("reload")
            load.wait(5)
    finally:
        load.stop()
    assert [line for line in daemon.lines if "event=auth_failed" in line] == []
    assert not can_log_in(daemon, "secret-0") and can_log_in(daemon, "secret-4")


def test_another_relayhost_is_used_at_once(relayd, make_upstream):
    """The session with the former host idles and would carry more: it takes nothing more."""
    former, other = make_upstream(), make_upstream()
    daemon = relayd(relayhost(former.port))
    with daemon.smtp() as client:
        client.send_message(message())
        former.get()
        daemon.write_config(daemon.config.replace(f":{former.port}", f":{other.port}"))
        assert daemon.ctl("reload").stdout == "reloaded\n"
        client.send_message(message())
    other.get()
    assert former.messages.empty()


def test_a_relayhost_that_is_taken_out_leaves_no_alert(relayd, upstream):
    dead = free_port()
    daemon = relayd(relayhost(dead))
    with daemon.smtp() as client:
        client.send_message(message())
    daemon.wait_log(r"event=alert alert=relayhost state=active")
    daemon.write_config(daemon.config.replace("main:", "other:").replace(f":{dead}", f":{upstream.port}"))
    daemon.ctl("reload")
    upstream.get()
    daemon.wait_log(r"event=alert alert=relayhost state=over")
    assert daemon.ctl("health", "--mail").returncode == 0


def test_a_relayhost_that_says_nothing_is_not_waited_for(relayd, upstream):
    """Once the configuration names another one; what waited goes there."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        daemon = relayd(relayhost(silent.getsockname()[1]))
        with daemon.smtp() as client:
            client.send_message(message())
        silent.accept()
        daemon.write_config(relayhost(upstream.port).join(daemon.config.split(relayhost(silent.getsockname()[1]))))
        assert daemon.ctl("reload").stdout == "reloaded\n"
        upstream.get()


@pytest.mark.skipif(os.geteuid() != 0, reason="a resolv.conf of its own wants root")
def test_other_resolvers_are_noticed(relayd, upstream, dns, folder):
    """Another network, another resolv.conf: in a while, without a word to the daemon, mail finds its way."""
    dns.host, dns.port = "127.53.0.2", 53  # resolv.conf has no ports
    dns.start({"example.net": "@ MX 10 mx1\nmx1 A 127.0.0.1\n"})
    resolv_conf = folder / "resolv.conf"
    resolv_conf.write_text("nameserver 127.53.0.1\n")
    resolv_conf.chmod(0o644)
    daemon = relayd(f"delivery: {{port: {upstream.port}, allow_loopback: true}}\n" + FAST_RETRY,
                    wrapper=["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"', resolv_conf])
    with daemon.smtp() as client:
        client.send_message(message())
    daemon.wait_log("event=deferred .*class=dns")
    resolv_conf.write_text(f"nameserver {dns.host}\n")
    daemon.wait_log(f"event=dns_reloaded servers={dns.host}:53")
    daemon.wait_log("event=delivered ")
    assert upstream.get()

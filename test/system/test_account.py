"""Trouble with our account at a relayhost is not the message's fault: it is held, probed and told, and nothing bounces."""
import pytest

from conftest import message, relayhost
from peers import Upstream, server_context

RETRY = "retry: {auth: [1s], throttle: [1s]}\n"
LIMIT = "550 5.4.5 Daily user sending limit exceeded. For more information on Gmail sending limits go to"
UNVERIFIED = "554 Message rejected: Email address is not verified. The following identities failed the check in region EU-WEST-1"


def send(daemon, subject="test", sender="app@example.org"):
    with daemon.smtp() as client:
        client.send_message(message(subject, sender=sender))


def assert_nothing_bounced(daemon):
    assert not [line for line in daemon.lines if "event=failed" in line or "event=bounce" in line]


def test_wrong_password_then_mended(relayd, make_upstream, folder):
    """A new password in the file is noticed without being told, and what waits goes at once."""
    context, certificate = server_context(folder, name="upstream")
    certificate.chmod(0o644)
    server = make_upstream(tls_context=context, require_tls=True, credentials=("user", "right"))
    secret = folder / "upstream.secret"
    secret.write_text("wrong")
    secret.chmod(0o644)
    daemon = relayd(relayhost(server.port, tls="verify", ca_file=certificate, username="user", password_file=secret))
    for i in range(3):
        send(daemon, f"number {i}")
    daemon.wait_log(r"event=alert alert=relayhost state=active text=.*auth.*")
    daemon.wait_log(r"event=deferred .*class=auth code=535")
    assert daemon.ctl("health", "--mail", check=False).returncode == 1
    assert not daemon.json("status")["relayhosts"][0]["up"]
    assert "auth: 535 Authentication" in daemon.ctl("status").stdout
    secret.write_text("right")
    assert all(mail.login == "user" for mail in server.get_many(3))
    daemon.wait_log(r"event=alert alert=relayhost state=over")
    assert daemon.ctl("health", "--mail").returncode == 0
    assert_nothing_bounced(daemon)


def test_a_wrong_password_is_said_once_however_many_addresses_there_are(relayd, make_upstream, folder, dns):
    """All of them know the same accounts, and each refused login brings the account nearer to being locked."""
    context, certificate = server_context(folder, name="upstream", names=("smtp.example.net",))
    certificate.chmod(0o644)
    options = {"tls_context": context, "require_tls": True, "credentials": ("user", "right")}
    first = make_upstream(host="127.0.0.2", **options)
    others = [make_upstream(host=f"127.0.0.{n}", port=first.port, **options) for n in (3, 4)]
    dns.start({"example.net": "smtp A 127.0.0.2\nsmtp A 127.0.0.3\nsmtp A 127.0.0.4\n"})
    secret = folder / "upstream.secret"
    secret.write_text("wrong")
    secret.chmod(0o644)
    daemon = relayd(relayhost(first.port, host="smtp.example.net", tls="verify", ca_file=certificate, username="user",
                              password_file=secret) + f"dns: {{servers: ['127.0.0.1:{dns.port}']}}\n")
    send(daemon)
    daemon.wait_log(r"event=deferred .*class=auth code=535")
    assert sum(server.sessions for server in (first, *others)) == 1
    secret.write_text("right")
    daemon.wait_log(r"event=delivered ")


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data"])
def test_daily_limit(relayd, upstream, stage):
    upstream.replies[stage] = [LIMIT]
    daemon = relayd(relayhost(upstream.port) + RETRY)
    send(daemon, "first")
    daemon.wait_log(r"event=alert alert=relayhost state=active text=.*Daily user sending limit")
    daemon.wait_log(r"event=deferred .*class=throttle code=550")
    send(daemon, "second")  # it waits, and is not even tried
    assert daemon.json("status")["relayhosts"][0]["class"] == "throttle"
    subjects = sorted(mail.head.split("Subject: ")[1].split("\r\n")[0] for mail in upstream.get_many(2))
    assert subjects == ["first", "second"]  # by the probe, five seconds later
    daemon.wait_log(r"event=alert alert=relayhost state=over")
    assert_nothing_bounced(daemon)


def test_a_limit_sends_mail_through_the_next_relayhost(relayd, make_upstream):
    full, spare = make_upstream(), make_upstream()
    full.replies["data"] = [LIMIT] * 100
    daemon = relayd(f"""relayhosts:
  full: {{address: '127.0.0.1:{full.port}', tls: none, priority: 1}}
  spare: {{address: '127.0.0.1:{spare.port}', tls: none, priority: 2}}
""")
    send(daemon)
    assert spare.get()
    daemon.wait_log(r"event=alert alert=relayhost state=active")
    assert_nothing_bounced(daemon)


def test_unverified_sender_of_every_message(relayd, upstream):
    upstream.replies["data"] = [UNVERIFIED] * 2
    daemon = relayd(relayhost(upstream.port) + RETRY)
    send(daemon, "first")
    daemon.wait_log(r"event=alert alert=relayhost state=active text=.*not verified")
    daemon.wait_log(r"event=deferred .*class=auth code=554")
    send(daemon, "second")
    upstream.get_many(2)
    daemon.wait_log(r"event=alert alert=relayhost state=over")
    assert_nothing_bounced(daemon)


class Picky(Upstream):
    """Takes no mail in the name of other@example.org."""

    async def handle_DATA(self, server, session, envelope):
        return UNVERIFIED if envelope.mail_from == "other@example.org" else await super().handle_DATA(server, session, envelope)


def test_unverified_sender_of_one_message_is_its_own_fault(relayd):
    """Others get through, so its sender is told, and no alert is raised."""
    upstream = Picky()
    upstream.start()
    try:
        daemon = relayd(relayhost(upstream.port) + RETRY)
        send(daemon, "good")
        upstream.get()
        send(daemon, "bad", sender="other@example.org")
        daemon.wait_log(r"event=deferred .*class=auth code=554")
        send(daemon, "good again")
        upstream.get()
        daemon.wait_log(r"event=failed .*from=other@example.org .*class=policy code=554")
        dsn = upstream.get()
        assert (dsn.mail_from, dsn.rcpt_tos) == ("<>", ["other@example.org"])
        assert b"Email address is not verified" in b" ".join(dsn.data.split())  # however it is wrapped
        assert not [line for line in daemon.lines if "event=alert" in line]
    finally:
        upstream.stop()

"""Relayhosts that want tokens: fetched, refreshed, rotated, refused, mended; mail waits and never bounces."""
import functools
import os
import stat

import pytest

from conftest import message, relayhost, servers
from tokens import TokenServer, TokenUpstream

SECRET = "hunter2"


@pytest.fixture
def tokens(folder):
    server = TokenServer(folder)
    yield server
    server.stop()


@pytest.fixture
def make_token_upstream(folder, tokens):
    yield from servers(functools.partial(TokenUpstream, folder, tokens.valid))


def write_secret(path, text):
    """At once, as operators' tools do."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.chmod(0o644)
    fresh.rename(path)


def config(folder, tokens, upstream, grant="client_secret_file", secret=SECRET, **options):
    write_secret(folder / "oauth.secret", secret)
    return (f"https: {{ca_file: {tokens.certificate}}}\ndelivery: {{allow_loopback: true}}\n" +
            relayhost(upstream.port, tls="verify", ca_file=upstream.certificate, username="app@example.org",
                      oauth2=f"{{provider: other, client_id: relay, token_url: '{tokens.url}', "
                             f"{grant}: {folder / 'oauth.secret'}}}", **options))


def send(daemon, subject="test"):
    with daemon.smtp() as client:
        client.send_message(message(subject))


def assert_secrets_stay_secret(daemon, tokens):
    text = "\n".join(daemon.lines) + daemon.ctl("config").stdout + daemon.ctl("--json", "status").stdout
    for secret in [SECRET, *tokens.valid, "refresh-0", "refresh-1", "refresh-2"]:
        assert secret not in text


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
def test_client_credentials(relayd, folder, tokens, make_token_upstream, mechanism):
    """`auth: auto` takes what the server offers."""
    upstream = make_token_upstream(mechanism=mechanism)
    daemon = relayd(config(folder, tokens, upstream))
    assert tokens.form() == {"grant_type": "client_credentials", "client_id": "relay", "client_secret": SECRET}
    send(daemon)
    assert upstream.get().rcpt_tos == ["user@example.net"]
    assert upstream.login() == ("access-1", True)
    daemon.wait_log("event=delivered")
    token = daemon.json("status")["relayhosts"][0]["token"]
    assert token["state"] == "valid" and 3500 < token["expires_sec"] <= 3600
    assert "access token valid, expires in" in daemon.ctl("status").stdout
    expiry = daemon.metric('relayd_oauth_token_expiry_timestamp_seconds{relayhost="main"}')
    assert abs(expiry - (os.stat(folder / "oauth.secret").st_mtime + 3600)) < 60
    assert tokens.count == 1
    assert_secrets_stay_secret(daemon, tokens)


def test_a_long_token_and_a_named_mechanism(relayd, folder, tokens, make_token_upstream):
    """Microsoft's tokens do not fit into the line of AUTH."""
    upstream = make_token_upstream()
    tokens.valid.add("x" * 2500)
    tokens.answer = lambda form: (200, {"access_token": "x" * 2500, "expires_in": 3600})
    daemon = relayd(config(folder, tokens, upstream, auth="xoauth2"))
    send(daemon)
    assert upstream.get()
    assert upstream.login() == ("x" * 2500, True)


def test_a_token_is_renewed_before_it_expires(relayd, folder, tokens, make_token_upstream):
    upstream = make_token_upstream()
    tokens.expires_in = 4
    daemon = relayd(config(folder, tokens, upstream))
    for _ in range(3):
        tokens.form()
    send(daemon)
    assert upstream.get()
    token, good = upstream.login()
    assert good and int(token.removeprefix("access-")) >= 3
    assert not [line for line in daemon.lines if "destination_trouble" in line]


def test_a_refused_token_is_replaced_once_and_mail_goes_on(relayd, folder, tokens, make_token_upstream):
    """The upstream forgets the first token, as after a change of rights: nobody notices."""
    upstream = make_token_upstream()
    daemon = relayd(config(folder, tokens, upstream))
    tokens.form()
    daemon.wait_log("event=oauth2 .*state=token")
    tokens.valid.clear()
    send(daemon)
    assert upstream.get()
    assert [upstream.login(), upstream.login()] == [("access-1", False), ("access-2", True)]
    daemon.wait_log("event=delivered")
    assert not [line for line in daemon.lines if "event=deferred" in line or "event=alert" in line]


def test_a_refused_account_holds_probes_and_bounces_nothing(relayd, folder, tokens, make_token_upstream):
    """Every token is refused by the relayhost: one new one is fetched, then mail waits, until the account is mended."""
    upstream = make_token_upstream(user="somebody-else@example.org")
    daemon = relayd(config(folder, tokens, upstream))
    send(daemon)
    daemon.wait_log("event=deferred .*class=auth code=535")
    assert upstream.login()[1] is False and upstream.login()[1] is False
    daemon.wait_log("event=alert alert=relayhost state=active")
    assert tokens.count == 2
    assert daemon.ctl("health", "--mail", check=False).returncode == 1
    upstream.user = "app@example.org"
    daemon.ctl("flush")
    assert upstream.get()
    daemon.wait_log("event=alert alert=relayhost state=over")
    assert tokens.count == 2
    assert not [line for line in daemon.lines if "event=failed" in line or "event=bounce" in line]


def test_rotated_refresh_token_over_a_restart(relayd, folder, tokens, make_token_upstream):
    upstream = make_token_upstream()
    tokens.answer = tokens.rotate
    daemon = relayd(config(folder, tokens, upstream, grant="refresh_token_file", secret="refresh-0\n"))
    assert tokens.form() == {"grant_type": "refresh_token", "client_id": "relay", "refresh_token": "refresh-0"}
    daemon.wait_log("event=oauth2 .*state=token .*with a new refresh token")
    send(daemon)
    assert upstream.get()
    assert daemon.stop() == 0
    kept = folder / "spool" / "oauth2.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    daemon.start()
    assert tokens.form()["refresh_token"] == "refresh-1"
    send(daemon)
    assert upstream.get()
    assert_secrets_stay_secret(daemon, tokens)


def test_rotated_refresh_token_over_a_crash(relayd, folder, tokens, make_token_upstream):
    upstream = make_token_upstream()
    tokens.answer = tokens.rotate
    daemon = relayd(config(folder, tokens, upstream, grant="refresh_token_file", secret="refresh-0\n"))
    tokens.form()
    kept = folder / "spool" / "oauth2.json"
    daemon.wait_log("event=oauth2 .*state=token")
    for _ in range(100):  # each answer of the daemon is some turns, and the write is begun in the next one
        if kept.exists():
            break
        daemon.ctl("status")
    daemon.kill()
    daemon.start()
    assert tokens.form()["refresh_token"] == "refresh-1"


def test_invalid_grant_then_mended(relayd, folder, tokens, make_token_upstream):
    upstream = make_token_upstream()
    tokens.answer = tokens.refuse
    daemon = relayd(config(folder, tokens, upstream, grant="refresh_token_file", secret="refresh-0\n"))
    send(daemon)
    daemon.wait_log("event=oauth2 .*state=failed .*invalid_grant: The token has been revoked")
    daemon.wait_log("event=alert alert=relayhost state=active .*invalid_grant")
    status = daemon.json("status")["relayhosts"][0]
    assert not status["up"] and status["token"]["state"] == "failing" and "invalid_grant" in status["token"]["trouble"]
    assert daemon.ctl("health", "--mail", check=False).returncode == 1
    assert [m["state"] for m in daemon.json("queue")] == ["deferred"] or daemon.json("queue")[0]["attempts"] == 0
    write_secret(folder / "oauth.secret", "refresh-2\n")  # noticed without being told, and the mail goes
    tokens.answer = lambda form: tokens.grant(form) if form["refresh_token"] == "refresh-2" else tokens.refuse(form)
    daemon.ctl("reload")
    assert upstream.get()
    daemon.wait_log("event=alert alert=relayhost state=over")
    assert not [line for line in daemon.lines if "event=failed" in line or "event=bounce" in line]
    assert_secrets_stay_secret(daemon, tokens)


def test_endpoint_down_mail_waits(relayd, folder, tokens, make_token_upstream):
    upstream = make_token_upstream()
    text = config(folder, tokens, upstream)
    tokens.stop()
    daemon = relayd(text)
    send(daemon)
    daemon.wait_log("event=oauth2 .*state=failed .*cannot be asked: connect")
    daemon.wait_log("event=alert alert=relayhost state=active")
    assert upstream.logins.empty()
    tokens.start()
    assert upstream.get()  # by itself, at the next try
    daemon.wait_log("event=alert alert=relayhost state=over")
    assert not [line for line in daemon.lines if "event=failed" in line or "event=bounce" in line]


def test_environment(relayd, folder, tokens, make_token_upstream):
    upstream = make_token_upstream()
    (folder / "oauth.secret").write_text(SECRET)
    (folder / "oauth.secret").chmod(0o644)
    daemon = relayd("", environ={
        "RELAYD_RELAYHOST": f"127.0.0.1:{upstream.port}", "RELAYD_RELAYHOST_USERNAME": "app@example.org",
        "RELAYD_RELAYHOST_CA_FILE": str(upstream.certificate), "RELAYD_OAUTH2_PROVIDER": "other",
        "RELAYD_OAUTH2_CLIENT_ID": "relay", "RELAYD_OAUTH2_CLIENT_SECRET_FILE": str(folder / "oauth.secret"),
        "RELAYD_OAUTH2_TOKEN_URL": tokens.url, "RELAYD_OAUTH2_SCOPE": "smtp send",
        "RELAYD_HTTPS_CA_FILE": str(tokens.certificate), "RELAYD_DELIVERY_ALLOW_LOOPBACK": "true"})
    assert tokens.form()["scope"] == "smtp send"
    send(daemon)
    assert upstream.get()

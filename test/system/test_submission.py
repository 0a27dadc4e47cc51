"""Who may submit, and what is refused with which words."""
import smtplib
import socket
import ssl
import subprocess

import pytest

from conftest import PATIENCE, USERS_SECRET, message, no_verification, relayhost, users_line


def dialog(port, *lines):
    """Sends lines one by one in clear text; returns the replies, greeting first."""
    replies = []
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        stream = connection.makefile("rb")

        def reply():
            text = b""
            while True:
                line = stream.readline()
                text += line
                if len(line) < 4 or line[3:4] != b"-":
                    return text.decode()
        replies.append(reply())
        for line in lines:
            connection.sendall(line.encode() + b"\r\n")
            replies.append(reply())
    return replies


def test_no_tls_no_auth_no_mail(relayd, upstream):
    daemon = relayd(relayhost(upstream.port))
    greeting, ehlo, mail, auth = dialog(daemon.port, "EHLO app", "MAIL FROM:<a@example.org>", "AUTH PLAIN AGFwcABzZWNyZXQ=")
    assert greeting.startswith("220 relay.example.org")
    assert "STARTTLS" in ehlo and "AUTH" not in ehlo
    assert mail.startswith("530 5.7.0")
    assert auth[:3] in ("530", "538")


def test_authenticated_only_after_the_right_password(relayd, upstream):
    daemon = relayd(relayhost(upstream.port))
    with daemon.smtp(user=None) as client:
        assert client.mail("a@example.org")[0] == 530
        with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
            client.login("app", "wrong")
        assert refused.value.smtp_code == 535
        assert client.mail("a@example.org")[0] == 530
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("nobody", USERS_SECRET)
        client.login("app", USERS_SECRET)
        assert client.mail("a@example.org")[0] == 250
    assert "wrong" not in "\n".join(daemon.lines)
    # smtplib tries a refused password with each mechanism: twice two.
    assert daemon.metric('relayd_auth_attempts_total{result="failed"}') == 4


@pytest.mark.parametrize("mechanism", ["auth_plain", "auth_login"])
def test_mechanisms(relayd, upstream, mechanism):
    daemon = relayd(relayhost(upstream.port))
    with daemon.smtp(user=None) as client:
        client.user, client.password = "app", USERS_SECRET
        name = mechanism.split("_")[1].upper()
        assert client.auth(name, getattr(client, mechanism), initial_response_ok=False)[0] == 235


def test_trusted_addresses_need_neither(relayd, upstream):
    daemon = relayd(relayhost(upstream.port),
                    listen="listen:\n  - {address: '127.0.0.1:0', tls: off, auth: optional, trusted: [127.0.0.0/8]}\n")
    with daemon.smtp(user=None, tls=False) as client:
        client.send_message(message())
    assert upstream.get().rcpt_tos == ["user@example.net"]


def test_untrusted_addresses_hear_what_to_set_up(relayd, upstream):
    daemon = relayd(relayhost(upstream.port),
                    listen="listen:\n  - {address: '127.0.0.1:0', tls: off, auth: optional, trusted: [192.0.2.0/24]}\n")
    replies = dialog(daemon.port, "EHLO app", "MAIL FROM:<a@example.org>")
    assert replies[-1][:9] in ("530 5.7.0", "554 5.7.1") and "trusted" in replies[-1]


def test_implicit_tls(relayd, upstream):
    daemon = relayd(relayhost(upstream.port), listen="listen:\n  - {address: '127.0.0.1:0', tls: implicit}\n")
    with smtplib.SMTP_SSL("127.0.0.1", daemon.port, context=no_verification(), timeout=PATIENCE) as client:
        client.login("app", USERS_SECRET)
        client.send_message(message())
    assert upstream.get().rcpt_tos == ["user@example.net"]


def test_over_size_is_refused_and_the_session_lives(relayd, upstream):
    daemon = relayd(relayhost(upstream.port) + "limits: {message_size: 10K}\n")
    with daemon.smtp() as client:
        assert client.mail("a@example.org", ["SIZE=20000"])[0] == 552
        client.mail("a@example.org")
        client.rcpt("b@example.net")
        code, text = client.data("From: a@example.org\r\n\r\n" + "x" * 70 + "\r\n" + ("y" * 70 + "\r\n") * 300)
        assert code == 552 and b"5.3.4" in text
        client.send_message(message("small"))
    assert b"small" in upstream.get().data
    assert daemon.json("queue") == []


def test_unknown_command_and_order(relayd, upstream):
    daemon = relayd(relayhost(upstream.port))
    with daemon.smtp() as client:
        assert client.docmd("FROBNICATE")[0] in (500, 502)
        assert client.docmd("RCPT", "TO:<b@example.net>")[0] == 503
        assert client.docmd("DATA")[0] == 503
        assert client.docmd("VRFY", "x")[0] == 252
        assert client.docmd("HELP")[0] == 214
        assert client.docmd("NOOP")[0] == 250
        client.send_message(message())
    upstream.get()


def test_client_gone_in_the_middle_leaves_nothing(relayd, upstream):
    daemon = relayd(relayhost(upstream.port))
    client = daemon.smtp()
    client.mail("a@example.org")
    client.rcpt("b@example.net")
    client.docmd("DATA")
    client.send(b"From: a@example.org\r\nSubject: half\r\n\r\nnot the e")
    client.sock.close()
    with daemon.smtp() as other:
        other.send_message(message("whole"))
    assert b"whole" in upstream.get().data
    assert daemon.json("queue") == [] and upstream.messages.empty()


def test_bare_newlines_never_split_a_message(relayd, upstream):
    daemon = relayd(relayhost(upstream.port))
    smuggled = b"From: a@example.org\r\nSubject: one\r\n\r\nhello\n.\nMAIL FROM:<evil@example.org>\r\nRCPT TO:<c@example.net>\r\nDATA\r\n"
    with daemon.smtp() as client:
        client.mail("a@example.org")
        client.rcpt("b@example.net")
        client.docmd("DATA")
        client.send(smuggled + b"\r\n.\r\n")
        code, text = client.getreply()
        assert code == 550 and text.startswith(b"5.6.11")
        client.send_message(message("after"))
    assert b"after" in upstream.get().data
    assert upstream.messages.empty()


def test_from_policy_of_the_user(relayd, upstream):
    daemon = relayd(relayhost(upstream.port), users=users_line(options=":from=@example.org"))
    with daemon.smtp() as client:
        client.send_message(message("allowed"))
        with pytest.raises(smtplib.SMTPException):
            client.send_message(message("forged", sender="ceo@example.com"), from_addr="ceo@example.com")
        with pytest.raises(smtplib.SMTPException):
            client.send_message(message("forged too", sender="ceo@example.com"), from_addr="app@example.org")
    assert b"allowed" in upstream.get().data
    assert upstream.messages.empty()


def test_swaks_and_curl(relayd, upstream, folder):
    daemon = relayd(relayhost(upstream.port))
    done = subprocess.run(["swaks", "--server", "127.0.0.1", "--port", str(daemon.port), "--tls", "--auth", "LOGIN", "--auth-user",
                           "app", "--auth-password", USERS_SECRET, "--from", "app@example.org", "--to", "user@example.net",
                           "--pipeline", "--helo", "app.test"], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "queued as" in done.stdout
    upstream.get()
    (folder / "mail.eml").write_text("From: app@example.org\nTo: user@example.net\nSubject: by curl\n\nbody\n".replace("\n", "\r\n"))
    done = subprocess.run(["curl", "-sS", "--ssl-reqd", "--insecure", "--user", f"app:{USERS_SECRET}",
                           f"smtp://127.0.0.1:{daemon.port}/app.test", "--mail-from", "app@example.org", "--mail-rcpt",
                           "user@example.net", "--upload-file", str(folder / "mail.eml")],
                          capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert b"by curl" in upstream.get().data


def test_local_users_submit_over_the_socket(relayd, upstream, folder):
    daemon = relayd(relayhost(upstream.port))
    done = daemon.ctl("send", "--from", "root@example.org", "--to", "user@example.net", input="just a line\n")
    assert "accepted as" in done.stdout and "delivered" in done.stdout
    assert b"just a line\r\n" in upstream.get().data

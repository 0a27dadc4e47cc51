"""relayctl under the name of sendmail, as cron, at, PHP and scripts call it."""
import subprocess

import pytest

from conftest import PATIENCE, RELAYCTL, relayhost


@pytest.fixture
def sendmail(relayd, upstream, folder):
    daemon = relayd(relayhost(upstream.port))
    link = folder / "sendmail"
    link.symlink_to(RELAYCTL)

    def call(*arguments, text="Subject: x\n\nbody\n", check=0):
        done = subprocess.run([link, *arguments], input=text.encode(), capture_output=True, timeout=PATIENCE,
                              env={"RELAYD_SPOOL": str(daemon.spool), "RELAYD_HOSTNAME": "host.example.org", "PATH": "/usr/bin"})
        assert done.returncode == check, done.stderr.decode()
        return done

    call.daemon, call.upstream = daemon, upstream
    return call


def test_cron(sendmail):
    """Glued option values, recipients in one comma list, raw UTF-8 in the header, no Date."""
    sendmail("-FCronDaemon", "-i", "-B8BITMIME", "-oem", "one@example.net,two@example.net",
             text="From: root (Cron Daemon)\nTo: one@example.net\nSubject: Cron <root@vm> echo grüße\nX-Cron-Env: <SHELL=/bin/sh>\n\nout\n")
    mail = sendmail.upstream.get()
    assert sorted(mail.rcpt_tos) == ["one@example.net", "two@example.net"]
    assert "echo grüße".encode() in mail.data and b"X-Cron-Env: <SHELL=/bin/sh>\r\n" in mail.data
    assert b"\r\n\r\nout\r\n" in mail.data and b"\r\nDate: " in b"\r\n" + mail.data


def test_at_with_a_bare_name(sendmail):
    sendmail("-i", "root", text="Subject: Output from your job 1\nTo: root\n\ndone\n")
    mail = sendmail.upstream.get()
    assert mail.rcpt_tos == ["root@host.example.org"]
    assert b"\r\nFrom: " in b"\r\n" + mail.data


def test_php_mixed_line_ends_and_bcc(sendmail):
    sendmail("-t", "-i", "-fapp@example.com",
             text="To: a@example.net\r\nSubject: php\r\nBcc: b@example.net,\r\n c@example.net\r\nFrom: app@example.com\r\n\r\none\ntwo\r\n.\n.x\n")
    mail = sendmail.upstream.get()
    assert mail.mail_from == "app@example.com"
    assert sorted(mail.rcpt_tos) == ["a@example.net", "b@example.net", "c@example.net"]
    head, body = mail.data.split(b"\r\n\r\n", 1)
    assert b"bcc" not in head.lower()
    assert body == b"one\r\ntwo\r\n.\r\n.x\r\n"


def test_without_i_a_dot_ends_the_message(sendmail):
    sendmail("-f", "app@example.com", "--", "a@example.net", text="Subject: x\n\nbefore\n.\nafter\n")
    assert sendmail.upstream.get().data.endswith(b"\r\n\r\nbefore\r\n")


def test_exit_codes(sendmail):
    sendmail(check=64)  # EX_USAGE: no recipients
    sendmail("-t", text="Subject: nobody\n\n", check=64)
    sendmail.daemon.stop()
    done = sendmail("a@example.net", check=75)  # EX_TEMPFAIL
    assert b"cannot reach relayd" in done.stderr

"""What the operator changes or forbids in mail when it is taken: names, rewriting, headers, copies, lists."""
from conftest import relayhost

OPEN = "listen:\n  - {address: '127.0.0.1:0', tls: off, auth: optional, trusted: [127.0.0.0/8]}\n"


def write(folder, name, text):
    path = folder / name
    path.write_text(text)
    path.chmod(0o644)
    return path


def open_relay(relayd, upstream, extra="", **options):
    return relayd(relayhost(upstream.port) + extra, listen=OPEN, **options)


def send(daemon, sender, recipients, text):
    with daemon.smtp(user=None, tls=False) as client:
        refused = client.sendmail(sender, recipients, text)
        assert refused == {}, refused


def rcpt_reply(daemon, recipient, sender="app@example.org"):
    """(code, text) of one RCPT."""
    with daemon.smtp(user=None, tls=False) as client:
        client.mail(sender)
        code, text = client.rcpt(recipient)
        client.rset()
        return code, text.decode()


# ---- names

def test_bare_names_get_the_origin_everywhere(relayd, upstream):
    daemon = open_relay(relayd, upstream, "origin: corp.example\n")
    send(daemon, "root", ["root", "ann@example.net"], "From: root (Cron Daemon)\r\nTo: root, Acme, Inc. <ann@example.net>\r\n"
         "Cc: ROOT\r\nSender: cron\r\nSubject: s\r\n\r\nhello\r\n")
    got = upstream.get()
    assert got.mail_from == "root@corp.example"
    assert got.rcpt_tos == ["root@corp.example", "ann@example.net"]
    assert "\r\nFrom: root@corp.example (Cron Daemon)\r\n" in got.head
    assert "\r\nTo: root@corp.example, Acme, Inc. <ann@example.net>\r\nCc: ROOT@corp.example\r\n" in got.head
    assert "\r\nSender: cron@corp.example\r\n" in got.head


def test_without_origin_the_host_name_completes(relayd, upstream):
    daemon = open_relay(relayd, upstream)
    send(daemon, "<>", ["postmaster"], "From: root\r\nSubject: s\r\n\r\nhello\r\n")
    got = upstream.get()
    assert got.mail_from in ("", "<>")
    assert got.rcpt_tos == ["postmaster@relay.example.org"]
    assert "\r\nFrom: root@relay.example.org\r\n" in got.head


def test_aliases_lead_to_addresses(relayd, upstream, folder):
    aliases = write(folder, "aliases", "# the machine's\nMailer-Daemon: postmaster\npostmaster: root\n"
                    "root: ann@example.net,\n\t\"ops\", \\root\n# ops\nops: bob@example.net, ann@example.net, root@corp.example\n"
                    "nobody: /dev/null\n")
    daemon = open_relay(relayd, upstream, f"origin: corp.example\naliases: {aliases}\n")
    send(daemon, "app@example.org", ["mailer-daemon"], "From: app@example.org\r\nTo: mailer-daemon\r\n\r\nhello\r\n")
    got = upstream.get()
    assert got.rcpt_tos == ["ann@example.net", "root@corp.example", "bob@example.net"]
    assert "\r\nTo: mailer-daemon@corp.example" in got.head
    # Two names of one mailbox: one copy. An address of another domain is no alias.
    send(daemon, "app@example.org", ["ops@CORP.example", "bob@example.net", "root@example.com"], "From: app@example.org\r\n\r\nhello\r\n")
    assert sorted(upstream.get().rcpt_tos) == ["ann@example.net", "bob@example.net", "root@corp.example", "root@example.com"]
    code, text = rcpt_reply(daemon, "nobody")
    assert code == 550 and "5.1.1" in text and "aliases" in text
    assert any("aliases:8:9: '/dev/null' is a file" in line for line in daemon.lines), daemon.lines

"""The main job: submitted, signed, delivered; and what happens when the next hop is in trouble."""
import re
import smtplib

import pytest

from conftest import FAST_RETRY, message, relayhost
from peers import server_context

LONG_RETRY = "retry: {greylist: [1h], throttle: [1h], connect: [1h], default: [1h]}\n"


def test_submission_to_relayhost(relayd, upstream):
    daemon = relayd(relayhost(upstream.port))
    with daemon.smtp() as client:
        client.send_message(message("hello", body="Line one\n.leading dot\n..two dots\n"))
    mail = upstream.get()
    assert mail.mail_from == "app@example.org"
    assert mail.rcpt_tos == ["user@example.net"]
    assert b"Subject: hello\r\n" in mail.data
    assert mail.data.endswith(b"\r\n\r\nLine one\r\n.leading dot\r\n..two dots\r\n")
    assert re.search(rb"^Received: by relay\.example\.org .*with ESMTPSA id \w{13}", mail.data.replace(b"\r\n\t", b" "), re.M)
    daemon.wait_log(r"event=delivered id=\w{13} user=app from=app@example.org rcpt=user@example.net outcome=delivered code=250")


def test_many_recipients_and_messages_on_one_connection(relayd, upstream):
    daemon = relayd(relayhost(upstream.port))
    with daemon.smtp() as client:
        for i in range(20):
            client.send_message(message(f"number {i}"), to_addrs=[f"u{i}@example.net", f"v{i}@example.com"])
    got = {}
    for mail in upstream.get_many(20):
        subject = re.search(rb"Subject: (.*)\r\n", mail.data).group(1).decode()
        got[subject] = sorted(mail.rcpt_tos)
    assert got == {f"number {i}": [f"u{i}@example.net", f"v{i}@example.com"] for i in range(20)}


def test_bcc_goes_and_missing_fields_come(relayd, upstream):
    daemon = relayd(relayhost(upstream.port))
    with daemon.smtp() as client:
        client.sendmail("app@example.org", ["hidden@example.net"],
                        "From: app@example.org\r\nBCC: hidden@example.net,\r\n other@example.net\r\nX-Odd:   spaces  \r\n\r\nBcc: stays\r\n")
    mail = upstream.get()
    head, body = mail.data.split(b"\r\n\r\n", 1)
    assert b"hidden" not in head.lower().replace(b"for <hidden@example.net>", b"")
    assert b"other@example.net" not in head
    assert re.search(rb"^Date: ", head, re.M) and re.search(rb"^Message-ID: <.+@.+>", head, re.M | re.I)
    assert b"X-Odd:   spaces  \r\n" in head + b"\r\n"
    assert body == b"Bcc: stays\r\n"


def test_mx_delivery_by_preference(relayd, make_upstream, dns):
    worse = make_upstream(host="127.0.0.3")
    better = make_upstream(host="127.0.0.2", port=worse.port)
    dns.start({"example.net": "@ MX 20 mx2\n@ MX 10 mx1\nmx1 A 127.0.0.2\nmx2 A 127.0.0.3\n"})
    daemon = relayd(f"dns: {{servers: ['127.0.0.1:{dns.port}']}}\ndelivery: {{port: {better.port}, allow_loopback: true}}\n")
    with daemon.smtp() as client:
        client.send_message(message())
    assert better.get().rcpt_tos == ["user@example.net"]
    daemon.wait_log(r"event=delivered .*host=mx1\.example\.net\[127\.0\.0\.2\]")
    better.stop()
    with daemon.smtp() as client:
        client.send_message(message("to the second"))
    assert b"to the second" in worse.get().data
    daemon.wait_log(r"event=delivered .*host=mx2\.example\.net\[127\.0\.0\.3\]")


def test_mx_opportunistic_starttls(relayd, make_upstream, dns, folder):
    context, _ = server_context(folder, name="mx")
    server = make_upstream(host="127.0.0.2", tls_context=context)
    dns.start({"example.net": "@ MX 10 mx1\nmx1 A 127.0.0.2\n"})
    daemon = relayd(f"dns: {{servers: ['127.0.0.1:{dns.port}']}}\ndelivery: {{port: {server.port}, allow_loopback: true}}\n")
    with daemon.smtp() as client:
        client.send_message(message())
    assert server.get().tls


def test_unknown_domain_comes_back(relayd, make_upstream, dns):
    """H1, H11: NXDOMAIN and null MX are final: the sender gets a DSN, by the MX of the sender's domain."""
    server = make_upstream(host="127.0.0.2")
    dns.start({"example.org": "@ MX 10 mx1\nmx1 A 127.0.0.2\n", "null.example": "@ MX 0 .\n", "example.net": ""})
    daemon = relayd(f"dns: {{servers: ['127.0.0.1:{dns.port}']}}\ndelivery: {{port: {server.port}, allow_loopback: true}}\n")
    with daemon.smtp() as client:
        client.send_message(message(), to_addrs=["user@missing.example.org"])
        client.send_message(message(), to_addrs=["user@null.example"])
    texts = b"".join(mail.data for mail in server.get_many(2))
    assert b"5.1.2" in texts and b"5.1.10" in texts


def test_relayhost_with_verified_tls_and_auth(relayd, make_upstream, folder):
    context, certificate = server_context(folder, name="upstream")
    certificate.chmod(0o644)
    server = make_upstream(tls_context=context, require_tls=True, credentials=("user", "p$ss:wörd"))
    (folder / "upstream.secret").write_text("p$ss:wörd\n")
    (folder / "upstream.secret").chmod(0o644)
    daemon = relayd(relayhost(server.port, tls="verify", ca_file=certificate, username="user",
                              password_file=folder / "upstream.secret"))
    with daemon.smtp() as client:
        client.send_message(message())
    mail = server.get()
    assert mail.tls and mail.login == "user"


def test_untrusted_certificate_defers_and_never_sends(relayd, make_upstream, folder):
    context, _ = server_context(folder, name="upstream")
    server = make_upstream(tls_context=context)
    daemon = relayd(relayhost(server.port, tls="verify"))
    with daemon.smtp() as client:
        client.send_message(message())
    daemon.wait_log(r"event=deferred .*class=tls")
    assert server.messages.empty()


def test_wrong_upstream_password_holds_and_never_bounces(relayd, make_upstream, folder):
    """G37"""
    context, certificate = server_context(folder, name="upstream")
    certificate.chmod(0o644)
    server = make_upstream(tls_context=context, require_tls=True, credentials=("user", "right"))
    (folder / "upstream.secret").write_text("wrong")
    (folder / "upstream.secret").chmod(0o644)
    daemon = relayd(relayhost(server.port, tls="verify", ca_file=certificate, username="user",
                              password_file=folder / "upstream.secret"))
    with daemon.smtp() as client:
        client.send_message(message())
    daemon.wait_log(r"event=destination_trouble .*class=auth")
    daemon.wait_log(r"event=deferred .*class=auth")
    assert daemon.ctl("health", "--mail", check=False).returncode == 1
    (folder / "upstream.secret").write_text("right")
    daemon.ctl("flush")
    assert server.get().login == "user"


def test_upstream_down_then_up(relayd, make_upstream):
    server = make_upstream()
    server.stop()
    daemon = relayd(relayhost(server.port) + FAST_RETRY)
    with daemon.smtp() as client:
        client.send_message(message())
    daemon.wait_log(r"event=deferred .*class=connect")
    (waiting,) = daemon.json("queue")
    assert waiting["state"] == "deferred" and waiting["attempts"] >= 1
    server.start()
    daemon.ctl("flush")
    assert server.get().rcpt_tos == ["user@example.net"]
    daemon.wait_log("event=delivered")
    assert daemon.json("queue") == []


def test_4xx_then_2xx(relayd, upstream):
    upstream.replies["rcpt"] = ["450 4.2.0 Greylisted, see http://postgrey.example/"]
    daemon = relayd(relayhost(upstream.port) + FAST_RETRY)
    with daemon.smtp() as client:
        client.send_message(message())
    daemon.wait_log(r"event=deferred .*class=greylist code=450")
    daemon.ctl("flush")
    assert upstream.get().rcpt_tos == ["user@example.net"]
    daemon.wait_log(r"event=delivered .*attempts=2")


def test_5xx_gives_a_dsn(relayd, upstream):
    upstream.replies["rcpt"] = ["550 5.1.1 no such user here"]
    daemon = relayd(relayhost(upstream.port))
    with daemon.smtp() as client:
        client.send_message(message("lost cause"), to_addrs=["nobody@example.net"])
    report = upstream.get()
    assert report.mail_from in ("", "<>")
    assert report.rcpt_tos == ["app@example.org"]
    text = report.data.decode()
    assert "multipart/report" in text and "report-type=delivery-status" in text
    assert "Final-Recipient: rfc822; nobody@example.net" in text.replace("rfc822;nobody", "rfc822; nobody")
    assert "Status: 5.1.1" in text and "550 5.1.1 no such user here" in text
    assert "Subject: lost cause" in text
    daemon.wait_log(r"event=failed .*class=mailbox code=550")


def test_a_bounce_never_bounces(relayd, upstream):
    """I3"""
    upstream.replies["rcpt"] = ["550 5.1.1 no such user", "550 5.1.1 no such sender either"]
    daemon = relayd(relayhost(upstream.port))
    with daemon.smtp() as client:
        client.send_message(message())
    daemon.wait_log(r"event=failed", count=2)
    assert daemon.json("queue") == []
    assert upstream.messages.empty()


def test_mixed_recipients(relayd, upstream):
    """G20"""
    upstream.replies["rcpt"] = [None, "550 5.1.1 unknown"]
    daemon = relayd(relayhost(upstream.port))
    with daemon.smtp() as client:
        client.send_message(message("mixed"), to_addrs=["good@example.net", "bad@example.net"])
    first, second = upstream.get(), upstream.get()
    mixed, report = (first, second) if first.mail_from else (second, first)
    assert mixed.rcpt_tos == ["good@example.net"]
    assert "bad@example.net" in report.data.decode() and report.rcpt_tos == ["app@example.org"]


def test_too_many_recipients_for_one_transaction(relayd, upstream):
    """G22: the rest goes at once in another one."""
    upstream.replies["rcpt"] = [None] * 3 + ["452 4.5.3 Too many recipients"] * 2
    daemon = relayd(relayhost(upstream.port) + LONG_RETRY)
    people = [f"user{i}@example.net" for i in range(5)]
    with daemon.smtp() as client:
        client.send_message(message(), to_addrs=people)
    assert [mail.rcpt_tos for mail in upstream.get_many(2)] == [people[:3], people[3:]]
    daemon.wait_log("event=delivered", count=5)
    assert not [line for line in daemon.lines if "event=deferred" in line]


def test_a_refused_end_of_data_is_told_once(relayd, upstream):
    """G30: one DSN for all whom the server had accepted."""
    upstream.replies["data"] = ["554 5.7.1 not this message"]
    daemon = relayd(relayhost(upstream.port))
    people = [f"user{i}@example.net" for i in range(3)]
    with daemon.smtp() as client:
        client.send_message(message(), to_addrs=people)
    report = upstream.get()
    assert report.rcpt_tos == ["app@example.org"] and report.mail_from in ("", "<>")
    assert all(f"Final-Recipient: rfc822; {person}" in report.data.decode() for person in people)
    daemon.wait_log("event=failed", count=3)
    daemon.wait_log("event=delivered")  # the DSN
    assert daemon.json("queue") == [] and upstream.messages.empty()


def test_after_a_crash_only_who_waits_is_tried_again(relayd, upstream):
    """I7: 99 of a hundred have it, one was put off."""
    upstream.replies["rcpt"] = [None] * 41 + ["451 4.3.0 not now"]
    daemon = relayd(relayhost(upstream.port) + LONG_RETRY)
    people = [f"user{i}@example.net" for i in range(100)]
    with daemon.smtp() as client:
        client.send_message(message(), to_addrs=people)
    daemon.wait_log("event=delivered", count=99)
    daemon.wait_log("event=deferred")
    assert upstream.get().rcpt_tos == people[:41] + people[42:]
    with daemon.smtp() as client:
        client.send_message(message(), to_addrs=["last@example.net"])  # its 250 comes when all before it is on disk
    assert upstream.get().rcpt_tos == ["last@example.net"]
    daemon.wait_log("event=delivered", count=100)
    daemon.kill()
    daemon.start()
    daemon.ctl("flush")
    again = upstream.get_many(1)
    daemon.wait_log(r"event=delivered .*rcpt=user41@example.net .*attempts=2")
    while not upstream.messages.empty():
        again.append(upstream.get())
    # The last one's delivery may not have been on disk yet.
    assert [mail.rcpt_tos for mail in again if mail.rcpt_tos != ["last@example.net"]] == [[people[41]]]


def test_failover_to_the_second_relayhost_and_back(relayd, make_upstream):
    """A refused connection costs a message no attempt and no wait; once the first takes connections again it is used
    again."""
    first, second = make_upstream(), make_upstream()
    first.stop()
    daemon = relayd(f"""relayhosts:
  first: {{address: "127.0.0.1:{first.port}", tls: none, priority: 1}}
  second: {{address: "127.0.0.1:{second.port}", tls: none, priority: 2}}
""" + FAST_RETRY.replace("1s", "1h"))

    def send(count):
        """One more; the log line of its delivery, of `count` until now."""
        with daemon.smtp() as client:
            client.send_message(message())
        line = daemon.wait_log("event=delivered", count=count)[-1]
        assert "attempts=1" in line, line
        return line

    for count in range(1, 4):
        assert "relayhost=second" in send(count)
    assert second.get_many(3) and first.messages.empty()
    first.start()
    while "relayhost=first" not in send(count := count + 1):  # it is looked at again when its back-off is over
        assert count < 10000
    daemon.wait_log("event=destination_ok .*destination=relayhost:first")
    for again in range(1, 4):
        assert "relayhost=first" in send(count + again)
    assert not [line for line in daemon.lines if "event=deferred" in line]


def test_a_large_message(relayd, upstream):
    upstream.stop()
    daemon = relayd(relayhost(upstream.port) + "limits: {message_size: 8M}\n" + FAST_RETRY)
    body = "".join(f"{i:06d} " + "x" * 60 + "\n" for i in range(80000))
    with daemon.smtp() as client:
        client.send_message(message(body=body))
        with pytest.raises(smtplib.SMTPSenderRefused) as refused:
            client.sendmail("app@example.org", ["user@example.net"], "From: a@example.org\r\n\r\n" + body * 2)
        assert refused.value.smtp_code == 552
        client.noop()
    daemon.wait_log("event=deferred")
    upstream.options["data_size_limit"] = 16 << 20
    upstream.start()
    daemon.ctl("flush")
    got = upstream.get().data.split(b"\r\n\r\n", 1)[1]
    assert got == body.replace("\n", "\r\n").encode()

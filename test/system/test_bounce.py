"""What senders hear of their mail: DSNs as a mail program reads them."""
import email
import email.policy

import pytest

from conftest import FAST_RETRY, message, relayhost
from test_dkim import judge, keygen

REFUSAL = "550 5.1.1 <gone@example.net>: no such user"


def parse(mail):
    """(whole message, text for people, message fields, recipients' fields, returned part)."""
    whole = email.message_from_bytes(mail.data, policy=email.policy.default)
    assert whole.get_content_type() == "multipart/report" and whole.get_param("report-type") == "delivery-status"
    words, status, returned = whole.iter_parts()
    assert status.get_content_type() == "message/delivery-status"
    fields = status.get_payload()
    return whole, words.get_content(), fields[0], fields[1:], returned


def send(daemon, mail=None, options=(), rcpt_options=(), sender="app@example.org", to="gone@example.net"):
    with daemon.smtp() as client:
        client.sendmail(sender, [to], (mail or message()).as_bytes(policy=email.policy.SMTP), mail_options=list(options),
                        rcpt_options=list(rcpt_options))


def test_failure_with_all_that_the_sender_asked_for(relayd, upstream):
    """I4"""
    daemon = relayd(relayhost(upstream.port))
    upstream.replies["rcpt"] = [REFUSAL]
    send(daemon, message("the subject", body="the body\n"), options=["RET=FULL", "ENVID=Q+2BQ+3D1"],
         rcpt_options=["NOTIFY=FAILURE,DELAY", "ORCPT=rfc822;Gone+2BX@example.net"])
    mail = upstream.get()
    whole, words, per_message, recipients, returned = parse(mail)
    assert mail.mail_from in ("", "<>") and mail.rcpt_tos == ["app@example.org"]
    assert whole["From"] == "Mail Delivery System <MAILER-DAEMON@relay.example.org>"
    assert whole["Auto-Submitted"] == "auto-replied"
    assert per_message["Reporting-MTA"] == "dns; relay.example.org"
    assert per_message["Original-Envelope-Id"] == "Q+Q=1"
    assert recipients[0]["Original-Recipient"] == "rfc822; Gone+X@example.net"
    assert recipients[0]["Final-Recipient"] == "rfc822; gone@example.net"
    assert (recipients[0]["Action"], recipients[0]["Status"]) == ("failed", "5.1.1")
    assert recipients[0]["Diagnostic-Code"] == "smtp; " + REFUSAL
    assert recipients[0]["Remote-MTA"].startswith("dns; ") and recipients[0]["Last-Attempt-Date"]
    assert "There is no such mailbox" in words and "It is attached." in words
    assert returned.get_content_type() == "message/rfc822"
    assert returned.get_content()["Subject"] == "the subject" and "the body" in returned.get_content().get_content()


@pytest.mark.parametrize("ret, size", [("RET=HDRS", 100), (None, 100), ("RET=FULL", 400 * 1024)])
def test_only_the_header_is_returned(relayd, upstream, ret, size):
    daemon = relayd(relayhost(upstream.port))
    upstream.replies["rcpt"] = [REFUSAL]
    send(daemon, message("the subject", body="the body\n" * (size // 9)), options=[ret] if ret else [])
    _, words, _, _, returned = parse(upstream.get())
    assert returned.get_content_type() == "text/rfc822-headers"
    assert "Subject: the subject" in returned.get_content() and "the body" not in returned.get_content()
    assert "Its header is attached." in words


def test_a_full_queue_has_room_for_news_of_its_mail(relayd, upstream):
    """The message that fails leaves it; without the news it could not, and nothing would come in for ever."""
    daemon = relayd(relayhost(upstream.port) + "limits: {queue_messages: 1}\n")
    upstream.replies["rcpt"] = [REFUSAL]
    send(daemon)
    assert parse(upstream.get())[3][0]["Action"] == "failed"
    daemon.wait_queued(0)
    send(daemon, to="user@example.net")
    assert upstream.get().rcpt_tos == ["user@example.net"]


def test_never_is_never(relayd, upstream):
    """I4"""
    daemon = relayd(relayhost(upstream.port))
    upstream.replies["rcpt"] = [REFUSAL]
    send(daemon, rcpt_options=["NOTIFY=NEVER"])
    daemon.wait_log(r"event=bounce_omitted .*text=NOTIFY")
    daemon.wait_log(r"event=failed ")
    send(daemon, to="user@example.net")
    assert upstream.get().rcpt_tos == ["user@example.net"]
    assert daemon.metric('relayd_bounces_total{relayhost="main",class="no_user"}') == 1


def test_news_of_success_from_a_hop_without_dsn(relayd, upstream):
    """I5"""
    daemon = relayd(relayhost(upstream.port))
    send(daemon, rcpt_options=["NOTIFY=SUCCESS,FAILURE"], to="user@example.net")
    first, second = upstream.get_many(2)
    mail, news = (first, second) if first.mail_from == "app@example.org" else (second, first)
    assert mail.rcpt_tos == ["user@example.net"]
    _, words, _, recipients, returned = parse(news)
    assert (recipients[0]["Action"], recipients[0]["Status"]) == ("relayed", "2.0.0")
    assert "does not report on deliveries" in " ".join(words.split())
    assert returned.get_content_type() == "text/rfc822-headers"


def test_a_delay_and_then_the_end(relayd, upstream):
    """I2"""
    daemon = relayd(relayhost(upstream.port) + FAST_RETRY + "  warn_after: 1s\n")
    mail = message()
    mail["X-Relayd-Lifetime"] = "6s"
    upstream.replies["rcpt"] = ["451 4.3.0 not now"] * 100
    send(daemon, mail, to="user@example.net")
    daemon.wait_log(r"event=bounce .*kind=delayed")
    daemon.wait_log(r"event=bounce .*kind=failed")
    daemon.wait_log(r"event=expired .*rcpt=user@example.net outcome=expired")
    with upstream.lock:
        upstream.replies["rcpt"] = []
    by_action = {}
    for report in upstream.get_many(2):
        _, words, _, recipients, _ = parse(report)
        by_action[recipients[0]["Action"]] = (recipients[0], words)
    delayed, words = by_action["delayed"]
    assert delayed["Status"] == "4.3.0" and delayed["Will-Retry-Until"] and "YOU NEED NOT SEND" in words
    failed, words = by_action["failed"]
    assert failed["Status"] == "5.4.7" and failed["Diagnostic-Code"] == "smtp; 451 4.3.0 not now"
    assert "It was tried until the time for it was over." in words


def test_bounce_to_and_a_signature(relayd, upstream, folder):
    path, record = keygen(folder, "s1", "rsa")
    daemon = relayd(relayhost(upstream.port) + "bounce: {to: postmaster@example.com}\n"
                    f"dkim: {{domains: {{example.org: {{s1: {path}}}}}}}\n")
    upstream.replies["rcpt"] = [REFUSAL]
    send(daemon)
    mail = upstream.get()
    assert mail.rcpt_tos == ["postmaster@example.com"] and mail.mail_from in ("", "<>")
    assert parse(mail)[0]["To"] == "postmaster@example.com"
    assert judge(mail.data, {b"s1._domainkey.example.org.": record.encode()})[:1] == [True]  # others stand in what is returned


def test_hostile_reply_text(relayd, upstream):
    """G38: cut, printable, and no line of its own."""
    daemon = relayd(relayhost(upstream.port))
    upstream.replies["rcpt"] = ["550 5.7.1 " + "no \x1b[31m way\xe9 " + "x" * 400]
    send(daemon)
    _, words, _, recipients, _ = parse(upstream.get())
    code = recipients[0]["Diagnostic-Code"]
    assert code.startswith("smtp; 550 5.7.1 no") and len(code) < 600 and code.isascii() and "\x1b" not in code
    assert "\x1b" not in words

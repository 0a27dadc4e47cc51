"""What the operator changes or forbids in mail when it is taken: names, rewriting, headers, copies, lists."""
import re
import signal
import stat
import subprocess

from conftest import FAST_RETRY, PATIENCE, RELAYCTL, relayhost, users_line
from test_dkim import judge, keygen

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


# ---- rewriting

def test_senders_and_recipients_are_rewritten_once_and_the_record_knows_both(relayd, upstream, folder):
    senders = write(folder, "from", "@corp.example  @verified.example\nroot@corp.example ops@example.com\n@verified.example never@example.com\n")
    recipients = write(folder, "to", "old@example.net new@example.net\nnew@example.net never@example.net\n")
    daemon = open_relay(relayd, upstream, f"origin: corp.example\nrewrite: {{from_file: {senders}, recipient_file: {recipients}}}\n")
    upstream.replies["rcpt"] = ["550 5.1.1 no such user"]
    send(daemon, "app@corp.example", ["old@example.net"],
         "From: The App <app@corp.example>\r\nSender: root\r\nTo: old@example.net\r\nSubject: s\r\n\r\nhello\r\n")
    dsn = upstream.get()
    assert dsn.rcpt_tos == ["app@verified.example"], "the bounce goes to the sender as rewritten"
    text = dsn.data.decode()
    assert "Original-Recipient: rfc822; old@example.net" in text and "Final-Recipient: rfc822; new@example.net" in text
    assert "From: The App <app@verified.example>" in text and "Sender: ops@example.com" in text
    assert "Reply-To: The App <app@corp.example>" in text and "\r\nTo: old@example.net" in text
    send(daemon, "<>", ["x@example.net"], "From: root\r\nReply-To: desk@example.com\r\nSubject: s\r\n\r\nhello\r\n")
    got = upstream.get()
    assert got.mail_from in ("", "<>")
    assert got.head.count("Reply-To:") == 1 and "Reply-To: desk@example.com" in got.head
    assert "From: ops@example.com" in got.head


def test_what_a_user_may_use_is_asked_before_it_is_rewritten(relayd, upstream, folder):
    senders = write(folder, "from", "* relay@verified.example\n")
    daemon = relayd(relayhost(upstream.port) + f"origin: corp.example\nrewrite: {{from_file: {senders}}}\n",
                    users=users_line(options=":from=@corp.example"))
    with daemon.smtp() as client:
        assert client.mail("relay@verified.example")[0] == 553
        assert client.mail("app")[0] == 250
        client.rcpt("x@example.net")
        code, text = client.data("From: relay@verified.example\r\n\r\nhello\r\n")
        assert code == 550 and b"from=" in text
        client.sendmail("app", ["x@example.net"], "From: app\r\n\r\nhello\r\n")
    got = upstream.get()
    assert got.mail_from == "relay@verified.example" and "From: relay@verified.example\r\n" in got.head


def test_no_from_that_readers_read_in_two_ways_passes_a_from_option(relayd, upstream):
    daemon = relayd(relayhost(upstream.port) + "origin: corp.example\n", users=users_line(options=":from=@corp.example"))
    for field in ("<boss@victim.example> <a@corp.example>", "Boss <boss@victim.example<a@corp.example>>",
                  "a@corp.example, boss@victim.example", "<a@corp.example>\r\nFrom: boss@victim.example",
                  "x: a@corp.example;, boss@victim.example;", "<@corp.example:boss@victim.example>",
                  "(a@corp.example) boss@victim.example", "\"<a@corp.example>\" <boss@victim.example>",
                  "<boss@victim.example>Group:<a@corp.example>;", "boss@victim.example:a@corp.example;",
                  "boss@victim.example <a@corp.example>", "boss@victim.example a@corp.example <a@corp.example>",
                  "<a@corp.example> boss@victim.example", "b@corp.example <a@corp.example> boss@victim.example",
                  "\"boss@victim.example\", a@corp.example", "=?utf-8?q?boss=40victim=2Eexample?=, <a@corp.example>"):
        with daemon.smtp() as client:
            client.mail("a@corp.example")
            client.rcpt("x@example.net")
            code, text = client.data(f"From: {field}\r\n\r\nhello\r\n")
            assert code == 550, (field, text)
    with daemon.smtp() as client:
        for field in ("b@corp.example <a@corp.example>", "The App, b@CORP.example <a@corp.example>", "Apps: a@corp.example;",
                      "Acme, Inc. <a@corp.example>", "=?utf-8?q?Acme=2C_Inc?= <a@corp.example>",
                      "\"boss@victim.example\" <a@corp.example>"):
            client.sendmail("a@corp.example", ["x@example.net"], f"From: {field}\r\n\r\nhello\r\n")
            assert f"From: {field}" in upstream.get().head


def test_a_from_option_holds_for_all_who_say_that_they_sent_it(relayd, upstream):
    """Readers show "sent by" or "on behalf of" with these."""
    daemon = relayd(relayhost(upstream.port) + "origin: corp.example\n", users=users_line(options=":from=@corp.example"))
    with daemon.smtp() as client:
        for fields in ("Sender: boss@victim.example", "Sender: a@corp.example\r\nSender: Boss <boss@victim.example>",
                       "sender : a@corp.example, boss@victim.example", "Resent-From: boss@victim.example",
                       "Resent-Sender: boss@victim.example", "Sender: <a@corp.example"):
            client.mail("a@corp.example")
            client.rcpt("x@example.net")
            code, text = client.data(f"From: a@corp.example\r\n{fields}\r\n\r\nhello\r\n")
            assert code == 550 and b"from=" in text, (fields, text)
        client.sendmail("a@corp.example", ["x@example.net"],
                        "From: a@corp.example\r\nSender: App <b@CORP.example>\r\nResent-From: c\r\nReply-To: d@victim.example\r\n"
                        "Resent-Sender:\r\n\r\nhello\r\n")
    assert "Sender: App <b@CORP.example>" in upstream.get().head


def test_no_way_to_write_an_address_leads_past_the_suppression_list(relayd, upstream, folder):
    suppress = write(folder, "suppress", "john@example.net\n@b\u00fccher.example\n")
    daemon = relayd(relayhost(upstream.port) + f"suppress: {suppress}\n")
    with daemon.smtp() as client:
        client.mail("app@example.org")
        for address in ("john@example.net", '"john"@Example.net', '"j\\ohn"@example.net', "x@xn--bcher-kva.example"):
            code, text = client.docmd("RCPT", f"TO:<{address}>")
            assert code == 550 and b"suppress" in text, (address, text)
        assert client.docmd("RCPT", 'TO:<"john "@example.net>')[0] == 250


# ---- header fields

def test_fields_are_removed_set_and_prefixed(relayd, upstream):
    daemon = open_relay(relayd, upstream, 'headers: {remove: [X-Originating-IP], set: ["X-Env: staging"], subject_prefix: "[Täst]"}\n')
    send(daemon, "app@example.org", ["x@example.net"],
         "From: app@example.org\r\nx-originating-ip: 192.0.2.1\r\n folded\r\nX-Env: prod\r\nSubject: one\r\n\r\nX-Env: body\r\n")
    got = upstream.get()
    assert "192.0.2.1" not in got.head and "prod" not in got.head and got.head.count("X-Env: staging") == 1
    assert "Subject: =?utf-8?Q?=5BT=C3=A4st=5D?= one\r\n" in got.head
    assert got.data.endswith(b"\r\n\r\nX-Env: body\r\n")
    send(daemon, "app@example.org", ["x@example.net"],
         "From: app@example.org\r\nSubject: Re: =?utf-8?Q?=5BT=C3=A4st=5D?= one\r\n\r\nagain\r\n")
    assert upstream.get().head.count("=5BT=C3=A4st=5D") == 1


def test_signatures_verify_behind_all_of_it(relayd, upstream, folder):
    """K2"""
    key, record = keygen(folder, "s1", "rsa", domain="verified.example")
    senders = write(folder, "from", "@corp.example @verified.example\n")
    daemon = open_relay(relayd, upstream, f"origin: corp.example\nrewrite: {{from_file: {senders}}}\n"
                        "headers: {remove: [Reply-To], set: ['X-Env: staging'], subject_prefix: '[x]'}\n"
                        "redirect: staging@example.net\n"
                        f"dkim: {{domains: {{verified.example: {{s1: {key}}}}}}}\n")
    send(daemon, "root", ["root", "ann@example.net"],
         "From: root (Cron)\r\nTo: root\r\nSubject: =?utf-8?q?=C3=A4?=\r\n folded\r\nReply-To: x@example.com\r\n\r\nhello\r\n")
    got = upstream.get()
    assert got.mail_from == "root@verified.example"
    assert judge(got.data, {b"s1._domainkey.verified.example.": record.encode()}) == [True]
    assert "Subject: [x] =?utf-8?q?=C3=A4?=\r\n folded\r\n" in got.head


# ---- copies

def test_bcc_copies_are_seen_by_nobody(relayd, upstream):
    daemon = open_relay(relayd, upstream, "bcc: [archive@example.com, ann@example.net]\n")
    send(daemon, "app@example.org", ["ann@example.net", "bob@example.net"], "From: app@example.org\r\nTo: ann@example.net\r\n\r\nhello\r\n")
    got = upstream.get()
    assert got.rcpt_tos == ["ann@example.net", "bob@example.net", "archive@example.com"]
    assert "archive" not in got.data.decode()
    upstream.replies["rcpt"] = [None, "550 5.1.1 the archive is gone"]
    send(daemon, "app@example.org", ["bob@example.net"], "From: app@example.org\r\n\r\nhello\r\n")
    daemon.wait_log(r"event=failed .*rcpt=archive@example.com")
    daemon.wait_log(r"event=bounce_omitted")
    assert daemon.json("queue") == []


def test_staging_sends_everything_to_one_mailbox(relayd, upstream):
    daemon = open_relay(relayd, upstream, "redirect: staging@example.com\nbcc: [archive@example.com]\n")
    send(daemon, "app@example.org", ["ann@example.net", "root"], "From: app@example.org\r\nTo: ann@example.net\r\n"
         "X-Relayd-Original-To: liar@example.org\r\n\r\nhello\r\n")
    got = upstream.get()
    assert got.rcpt_tos == ["staging@example.com"]
    assert "X-Relayd-Original-To: ann@example.net,\r\n root@relay.example.org" in got.head and "liar" not in got.head
    upstream.replies["rcpt"] = ["550 5.1.1 no such user"]
    send(daemon, "app@example.org", ["ann@example.net"], "From: app@example.org\r\n\r\nhello\r\n")
    bounce = upstream.get()
    assert bounce.rcpt_tos == ["staging@example.com"] and b"multipart/report" in bounce.data


# ---- lists

def test_only_allowed_recipients_are_taken(relayd, upstream):
    daemon = open_relay(relayd, upstream, "allowed_recipients: ['@example.net', boss@example.com]\n")
    code, text = rcpt_reply(daemon, "x@example.com")
    assert code == 550 and text.startswith("5.7.1") and "allowed_recipients" in text
    send(daemon, "app@example.org", ["x@EXAMPLE.net", "Boss@example.com"], "From: app@example.org\r\n\r\nhello\r\n")
    assert upstream.get().rcpt_tos == ["x@EXAMPLE.net", "Boss@example.com"]


def test_suppressed_addresses_are_refused_counted_and_read_anew(relayd, upstream, folder):
    listed = write(folder, "suppress", "# gone\nGone@example.net\n@dead.example\n")
    daemon = open_relay(relayd, upstream, f"suppress: {listed}\n")
    code, text = rcpt_reply(daemon, "gone@EXAMPLE.net")
    assert code == 550 and text.startswith("5.7.1") and "suppress" in text
    assert rcpt_reply(daemon, "x@dead.example")[0] == 550
    assert rcpt_reply(daemon, "ok@example.net")[0] == 250
    assert daemon.metric("relayd_suppressed_total") == 2
    # Nobody says anything: the change is noticed.
    mark = len(daemon.lines)
    write(folder, "suppress", "ok@example.net\n")
    daemon.wait_log("event=reloaded", since=mark)
    assert rcpt_reply(daemon, "gone@example.net")[0] == 250
    assert rcpt_reply(daemon, "ok@example.net")[0] == 550


def test_a_bad_file_is_refused_whole(relayd, upstream, folder):
    listed = write(folder, "suppress", "gone@example.net\n")
    aliases = write(folder, "aliases", "root: ann@example.net\n")
    daemon = open_relay(relayd, upstream, f"aliases: {aliases}\nsuppress: {listed}\n")
    write(folder, "suppress", "")
    write(folder, "aliases", "root: ann@example.net\nops = bob@example.net\n")
    daemon.process.send_signal(signal.SIGHUP)
    line, = daemon.wait_log("event=reload_failed")
    assert f"{aliases}:2:1: " in line
    assert rcpt_reply(daemon, "gone@example.net")[0] == 550, "the old list stays too"
    write(folder, "aliases", "root: bob@example.net\n")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_log("event=reloaded")
    assert rcpt_reply(daemon, "gone@example.net")[0] == 250
    send(daemon, "app@example.org", ["root"], "From: app@example.org\r\n\r\nhello\r\n")
    assert upstream.get().rcpt_tos == ["bob@example.net"]


# ---- sendmail

def sendmail(daemon, *arguments, text):
    return subprocess.run([RELAYCTL, "sendmail", *arguments], input=text, capture_output=True, timeout=PATIENCE,
                          env={"RELAYD_SPOOL": str(daemon.spool), "PATH": "/usr/bin"})


def test_sendmail_for_root_reaches_a_person(relayd, upstream, folder):
    aliases = write(folder, "aliases", "root: ann@example.net\n")
    daemon = open_relay(relayd, upstream, f"origin: corp.example\naliases: {aliases}\n")
    done = sendmail(daemon, "-i", "-f", "cron", "root", text=b"From: root (Cron Daemon)\nTo: root\nSubject: job\n\nout\n.\nput\n")
    assert done.returncode == 0, done.stderr
    got = upstream.get()
    assert got.rcpt_tos == ["ann@example.net"] and got.mail_from == "cron@corp.example"
    assert "From: root@corp.example (Cron Daemon)\r\nTo: root@corp.example\r\n" in got.head
    done = sendmail(daemon, "-t", text=b"To: root\nSubject: job\n\nhello\n")
    assert done.returncode == 0, done.stderr
    got = upstream.get()
    assert got.rcpt_tos == ["ann@example.net"] and "To: root@corp.example\r\n" in got.head


# ---- users

def test_a_users_own_relayhost_over_restarts(relayd, upstream, make_upstream):
    own = make_upstream()
    own.replies["rcpt"] = ["451 4.3.0 later"]
    hosts = relayhost(upstream.port) + f"  own: {{address: '127.0.0.1:{own.port}', tls: none, default: false}}\n" + FAST_RETRY.replace("1s", "3s")
    daemon = relayd(hosts, users=users_line(options=":relayhost=own") + users_line("other"))
    with daemon.smtp() as client:
        client.sendmail("app@example.org", ["x@example.net"], "From: app@example.org\r\nSubject: own\r\n\r\nhello\r\n")
    with daemon.smtp(user="other") as client:
        client.sendmail("app@example.org", ["x@example.net"], "From: app@example.org\r\nSubject: other\r\n\r\nhello\r\n")
    assert b"Subject: other" in upstream.get().data
    daemon.wait_log("event=deferred .*relayhost=own")
    assert daemon.stop() == 0
    daemon.start()
    assert b"Subject: own" in own.get().data
    assert upstream.messages.empty()


def test_a_users_relayhost_that_is_none_is_a_mistake(relayd, upstream):
    daemon = relayd(relayhost(upstream.port), users=users_line(options=":relayhost=mian"), start=False)
    daemon.spawn()
    assert daemon.wait_exit() == 78
    assert any("users:1:" in line and "did you mean 'main'" in line for line in daemon.lines), daemon.lines


# ---- ends of the road

def test_captured_and_discarded_mail_is_not_sent(relayd, upstream, folder):
    key, record = keygen(folder, "s1", "rsa")
    daemon = relayd(relayhost(upstream.port) + f"dkim: {{domains: {{example.org: {{s1: {key}}}}}}}\n"
                    "routes:\n  - {name: void, to: ['@void.example'], via: discard}\n  - {name: box, to: ['@box.example'], via: capture}\n")
    text = "From: app@example.org\r\nTo: a@box.example\r\nSubject: boxed\r\n\r\n.dot\r\n" + "x" * 76 + "\r\n" * 3
    with daemon.smtp() as client:
        refused = client.sendmail("app@example.org", ["a@box.example", "b@box.example", "c@void.example", "d@example.net"], text)
        assert refused == {}
    assert upstream.get().rcpt_tos == ["d@example.net"]
    lines = daemon.wait_log("event=delivered .*host=capture .*not sent", count=2)
    daemon.wait_log('event=delivered .*rcpt=c@void.example .*text="discarded by void, not sent"')
    name = re.search(r"captured/(\S+\.eml)", lines[0]).group(1)
    box = daemon.spool / "captured"
    assert [p.name for p in box.iterdir()] == [name]
    assert stat.S_IMODE(box.stat().st_mode) == 0o700 and stat.S_IMODE((box / name).stat().st_mode) == 0o600
    data = (box / name).read_bytes()
    head = b"Return-Path: <app@example.org>\r\nDelivered-To: a@box.example\r\nDelivered-To: b@box.example\r\n"
    assert data.startswith(head + b"DKIM-Signature:") and data.endswith(text.split("\r\n\r\n", 1)[1].encode())
    assert judge(data[len(head):], {b"s1._domainkey.example.org.": record.encode()}) == [True]
    assert daemon.json("queue") == []
    assert daemon.metric('relayd_delivery_attempts_total{relayhost="capture",operator="other",outcome="delivered"}') == 2
    assert daemon.metric('relayd_delivery_attempts_total{relayhost="discard",operator="other",outcome="delivered"}') == 1


def test_no_captured_mail_is_lost_in_a_kill(relayd, upstream):
    daemon = relayd(relayhost(upstream.port) + "routes:\n  - {via: capture}\n", listen=OPEN)
    ids = []
    with daemon.smtp(user=None, tls=False) as client:
        for i in range(40):
            client.mail("app@example.org")
            client.rcpt("a@box.example")
            code, reply = client.data(f"From: app@example.org\r\nSubject: {i}\r\n\r\nhello\r\n")
            assert code == 250
            ids.append(reply.decode().split()[-1])
        daemon.kill()
    daemon.start()
    waiting = {message["id"] for message in daemon.json("queue")}
    box = daemon.spool / "captured"
    for i, id in enumerate(ids):
        if id not in waiting:
            assert (box / f"{id}.eml").read_bytes().endswith(f"Subject: {i}\r\n\r\nhello\r\n".encode())
    for id in waiting:
        daemon.wait_log(f"event=delivered id={id} ")
        assert (box / f"{id}.eml").exists()
    assert upstream.messages.empty()


# ---- what an operator sees

def test_show_and_route_tell_what_became_of_an_address(relayd, upstream, folder):
    aliases = write(folder, "aliases", "root: ann@example.net\nold: |/usr/bin/program, bob@example.net\n")
    senders = write(folder, "from", "@corp.example @verified.example\n")
    upstream.replies["rcpt"] = ["451 4.3.0 later"]
    daemon = open_relay(relayd, upstream, f"origin: corp.example\naliases: {aliases}\nrewrite: {{from_file: {senders}}}\n"
                        "routes:\n  - {name: void, to: ['@void.example'], via: discard}\n  - {to: ['@box.example'], via: capture}\n")
    assert any("warning: " in line and "aliases:2:6: '|/usr/bin/program' is a program" in line for line in daemon.lines)
    send(daemon, "cron", ["root"], "From: cron\r\nSubject: job\r\n\r\nhello\r\n")
    line, = daemon.wait_log("event=deferred")
    id = re.search(r" id=(\S+)", line).group(1)
    shown = daemon.json("show", id)
    assert (shown["sender"], shown["submitted_sender"]) == ("cron@verified.example", "cron")
    assert (shown["recipients"][0]["address"], shown["recipients"][0]["submitted_as"]) == ("ann@example.net", "root")
    text = daemon.ctl("show", id).stdout
    assert "cron@verified.example (submitted as cron)" in text and "ann@example.net (submitted as root): deferred" in text
    assert "ann@example.net: " in daemon.ctl("route", "root").stdout
    assert "discarded by void, not sent" in daemon.ctl("route", "x@void.example").stdout
    assert "kept in SPOOL/captured, not sent" in daemon.ctl("route", "x@box.example").stdout
    hop, = daemon.json("route", "x@box.example")["recipients"][0]["next_hops"]
    assert hop["kind"] == "capture" and hop["state"] == "up"
    # A warning at a reload is one line of the log.
    mark = len(daemon.lines)
    daemon.ctl("reload")
    daemon.wait_log("event=config_warning .*is a program", since=mark)


def test_received_tells_nothing_of_the_client(relayd, upstream):
    """RFC 6409 with privacy: the id and how it came, not from where."""
    daemon = relayd(relayhost(upstream.port))
    with daemon.smtp() as client:
        client.sendmail("app@example.org", ["x@example.net"], "Subject: bare\r\nBcc: y@example.net\r\nReturn-Path: <z@example.net>\r\n\r\nhello\r\n")
    got = upstream.get()
    id = re.search(r"event=accepted id=(\S+)", daemon.wait_log("event=accepted")[0]).group(1)
    received = re.match(r"Received: by relay\.example\.org with ESMTPSA id (\S+)\r\n\tfor <x@example\.net>;\r\n\t.*\r\n", got.head)
    assert received and received.group(1) == id
    assert "127.0.0.1" not in got.head and "app.test" not in got.head
    assert "bcc" not in got.head.lower() and "return-path" not in got.head.lower()
    assert "\r\nDate: " in got.head and f"\r\nMessage-ID: <{id}." in got.head and "\r\nFrom: app@example.org" in got.head

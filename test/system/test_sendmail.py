"""relayctl under the name of sendmail, called by cron, at, PHP, mutt, s-nail and git themselves, and as scripts call it."""
import os
import re
import shutil
import subprocess
import textwrap

import pytest

from conftest import PATIENCE, RELAYCTL, relayhost
from peers import make_certificate


@pytest.fixture
def sendmail(relayd, upstream, folder):
    daemon = relayd(relayhost(upstream.port))
    (folder / "bin").mkdir()
    for name in ("sendmail", "mailq", "newaliases"):
        (folder / "bin" / name).symlink_to(RELAYCTL)

    def call(*arguments, text="Subject: x\n\nbody\n", check=0, program="sendmail", user=None, **environ):
        environ = {"RELAYD_SPOOL": str(daemon.spool), "PATH": "/usr/bin"} | environ
        done = subprocess.run([folder / "bin" / program, *arguments], input=text.encode(), capture_output=True,
                              timeout=PATIENCE, env={k: v for k, v in environ.items() if v}, user=user, cwd="/")
        assert done.returncode == check, done.stderr.decode()
        return done

    call.daemon, call.upstream, call.path = daemon, upstream, folder / "bin" / "sendmail"
    call.environ = {"RELAYD_SPOOL": str(daemon.spool)}
    return call


# ---- as they call it, by argument list


def test_cron_arguments(sendmail):
    """Glued option values, recipients in one comma list, raw UTF-8 in the header, no Date."""
    sendmail("-FCronDaemon", "-i", "-B8BITMIME", "-oem", "one@example.net,two@example.net",
             text="From: root (Cron Daemon)\nTo: one@example.net\nSubject: Cron <root@vm> echo grüße\nX-Cron-Env: <SHELL=/bin/sh>\n\nout\n")
    mail = sendmail.upstream.get()
    assert sorted(mail.rcpt_tos) == ["one@example.net", "two@example.net"]
    assert "echo grüße".encode() in mail.data and b"X-Cron-Env: <SHELL=/bin/sh>\r\n" in mail.data
    assert b"\r\n\r\nout\r\n" in mail.data and b"\r\nDate: " in b"\r\n" + mail.data


def test_at_arguments(sendmail):
    sendmail("-i", "root", text="Subject: Output from your job 1\nTo: root\n\ndone\n")
    mail = sendmail.upstream.get()
    assert mail.rcpt_tos == ["root@relay.example.org"]
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


def test_odd_arguments(sendmail):
    """Values apart, flags together, options behind the recipients, the null sender, an mbox line on top, no text at all."""
    sendmail("-B", "8BITMIME", "-ti", "-O", "DeliveryMode=b", "-h", "3", "-f", "<>", "-d0.1",
             text="From app Mon Nov 30 00:00:00 2026\nTo: a@example.net\n\nx\n")
    mail = sendmail.upstream.get()
    assert mail.mail_from in ("", "<>", None) and mail.rcpt_tos == ["a@example.net"] and b"From app" not in mail.data
    sendmail("a@example.net", "-f", "<app@example.com>", "-oi", text="")
    mail = sendmail.upstream.get()
    assert mail.mail_from == "app@example.com" and mail.rcpt_tos == ["a@example.net"]


def test_a_full_name_and_resent_fields(sendmail):
    sendmail("-F", 'Jörg "J" Müller', "-f", "j@example.org", "a@example.net")
    assert 'From: "Jörg J Müller" <j@example.org>'.encode() in sendmail.upstream.get().data
    sendmail("-t", text="Resent-To: again@example.net\nTo: first@example.net\nSubject: x\n\nbody\n")
    assert sendmail.upstream.get().rcpt_tos == ["again@example.net"]


def test_dsn_options_reach_the_queue(sendmail):
    sendmail("-N", "success,delay", "-R", "hdrs", "-V", "job=1", "a@example.net")
    sendmail.upstream.get()
    sendmail("-N", "sometimes", "a@example.net", check=64)
    sendmail("-R", "half", "a@example.net", check=64)
    sendmail.daemon.stop()
    sendmail("-Nnever", "-Rfull", "-Vx y", "a@example.net")
    (file,) = (sendmail.daemon.spool / "drop").iterdir()
    assert re.match(rb"MAIL FROM:<[^@\s]+> SIZE=\d+ RET=FULL ENVID=x\+20y\r\nRCPT TO:<a@example.net> NOTIFY=NEVER\r\nDATA\r\n",
                    file.read_bytes())


# ---- exit codes


def test_exit_codes(sendmail):
    sendmail(check=64)  # EX_USAGE: no recipients
    sendmail("-t", text="Subject: nobody\n\n", check=64)
    sendmail("-bd", check=64)
    refused = sendmail("a@b@example.net", check=65)  # EX_DATAERR
    assert refused.stderr == b"sendmail: an address cannot be read in 'a@b@example.net'\n"
    endless = 300 * "x" + "@example.net"
    done = sendmail(endless, "a@example.net", check=67)  # EX_NOUSER; the other is served
    assert endless[:200].encode() in done.stderr and b"other recipients" in done.stderr
    assert sendmail.upstream.get().rcpt_tos == ["a@example.net"]
    sendmail("-bi")
    sendmail(program="newaliases")


def test_a_message_that_is_too_large(relayd, sendmail):
    sendmail.daemon.write_config(sendmail.daemon.config + "limits: {message_size: 64K}\n")
    sendmail.daemon.ctl("reload")
    sendmail("a@example.net", text="Subject: x\n\n" + 4000 * "0123456789012345678\n", check=65)  # EX_DATAERR


def test_no_daemon_and_no_folder(sendmail):
    sendmail.daemon.stop()
    shutil.rmtree(sendmail.daemon.spool / "drop")
    assert b"drop" in sendmail("a@example.net", check=75).stderr  # EX_TEMPFAIL


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
@pytest.mark.skipif(os.path.exists("/var/spool/relayd"), reason="a relayd is installed here")
def test_a_configuration_that_the_user_may_not_read(sendmail, folder):
    """Is no reason for words: the spool is where it is by default."""
    (folder / "secret.yaml").write_text("hostname: relay.example.org\n")
    (folder / "secret.yaml").chmod(0o600)
    done = sendmail("a@example.net", check=75, user="daemon", RELAYD_SPOOL="", RELAYD_CONFIG=str(folder / "secret.yaml"))
    assert done.stderr.decode().count("\n") == 1 and b"/var/spool/relayd" in done.stderr


# ---- while the daemon is away


def test_nothing_is_lost_while_the_daemon_is_away(sendmail):
    """Also for a user who is neither root nor relayd's; the time of writing stands in Date."""
    sendmail.daemon.stop()
    user = "daemon" if os.geteuid() == 0 else None
    for n in range(5):
        sendmail("-f", "cron@example.org", f"u{n}@example.net", text=f"Subject: {n}\n\n.x\n\nno newline at the end", user=user)
    files = list((sendmail.daemon.spool / "drop").iterdir())
    assert len(files) == 5 and all(b"\r\nDate: " in file.read_bytes() for file in files)
    sendmail.daemon.start()
    mails = {m.rcpt_tos[0]: m for m in sendmail.upstream.get_many(5)}
    assert sorted(mails) == [f"u{n}@example.net" for n in range(5)]
    assert all(m.data.endswith(b"\r\n\r\n.x\r\n\r\nno newline at the end\r\n") for m in mails.values())
    sendmail.daemon.wait_log("event=drop_taken", count=5)
    assert list((sendmail.daemon.spool / "drop").iterdir()) == []


# ---- -bs, -bp


def test_smtp_on_standard_input(sendmail):
    script = "EHLO me\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"
    process = subprocess.Popen([sendmail.path, "-bs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=sendmail.environ)
    process.stdin.write(script.encode())
    process.stdin.flush()
    for line in process.stdout:
        if line.startswith(b"354"):
            break
    process.stdin.write(b"Subject: by -bs\r\n\r\nbody\r\n.\r\nQUIT\r\n")
    process.stdin.close()
    rest = process.stdout.read()
    assert process.wait() == 0 and b"250 2.0.0 Ok: queued as" in rest and b"221" in rest
    assert sendmail.upstream.get().rcpt_tos == ["b@example.net"]
    sendmail.daemon.stop()
    assert sendmail("-bs", text="QUIT\r\n", check=75).stdout.startswith(b"421 ")


def test_mailq_is_for_those_who_may_use_the_control_socket(sendmail):
    sendmail.upstream.stop()
    sendmail("-f", "x@example.org", "stuck@example.net")
    sendmail.daemon.wait_log("event=deferred")
    assert b"stuck@example.net" in sendmail(program="mailq").stdout
    assert b"stuck@example.net" in sendmail("-bp").stdout
    if os.geteuid() == 0:
        assert b"control_group" in sendmail("-bp", check=77, user="daemon").stderr
    sendmail.upstream.start()
    sendmail("-q")
    sendmail.upstream.get()


# ---- over TCP


def test_over_tcp_with_a_password(sendmail, folder):
    """A sidecar's self-signed certificate is no trouble on the loopback; elsewhere it has to be told."""
    tcp = {"RELAYD_SPOOL": "", "RELAYD_SUBMIT": f"127.0.0.1:{sendmail.daemon.port}", "RELAYD_USERNAME": "app"}
    (folder / "password").write_text("secret\n")
    sendmail("a@example.net", RELAYD_PASSWORD="secret", **tcp)
    sendmail("b@example.net", RELAYD_PASSWORD_FILE=str(folder / "password"), **tcp)
    assert sorted(m.rcpt_tos[0] for m in sendmail.upstream.get_many(2)) == ["a@example.net", "b@example.net"]
    sendmail.daemon.wait_log("event=accepted .*user=app from=", count=2)
    done = sendmail("c@example.net", RELAYD_PASSWORD="wrong", check=78, **tcp)  # EX_CONFIG
    assert b"535" in done.stderr
    assert b"certificate" in sendmail("d@example.net", RELAYD_PASSWORD="secret", RELAYD_SUBMIT_TLS="verify", check=78,
                                      **tcp).stderr.lower()
    sendmail("e@example.net", RELAYD_SUBMIT_TLS="nonsense", RELAYD_PASSWORD="secret", check=78, **tcp)
    assert b"530" in sendmail("f@example.net", check=77, **(tcp | {"RELAYD_USERNAME": ""})).stderr
    sendmail.daemon.stop()
    assert b"cannot reach" in sendmail("g@example.net", RELAYD_PASSWORD="secret", check=75, **tcp).stderr


def test_over_tcp_with_a_verified_certificate(relayd, upstream, sendmail, folder):
    certificate, key = make_certificate(folder)
    key.chmod(0o644)
    sendmail.daemon.write_config(sendmail.daemon.config + f"tls: {{certificate: {certificate}, key: {key}}}\n")
    sendmail.daemon.ctl("reload")
    sendmail("a@example.net", RELAYD_SUBMIT=f"localhost:{sendmail.daemon.port}", RELAYD_USERNAME="app",
             RELAYD_PASSWORD="secret", RELAYD_SUBMIT_TLS="verify", RELAYD_SUBMIT_CA_FILE=str(certificate))
    assert upstream.get().rcpt_tos == ["a@example.net"]


# ---- the real programs


def test_php_mail(sendmail):
    code = ("exit(mail('a@example.net', 'Grüße von PHP', \"eins\\nzwei\\n.\\n\","
            " \"From: app@example.com\\r\\nBcc: b@example.net\", '-fapp@example.com') ? 0 : 1);")
    subprocess.run(["php", "-d", f"sendmail_path={sendmail.path} -t -i", "-r", code], check=True, timeout=PATIENCE,
                   env=os.environ | sendmail.environ)
    mail = sendmail.upstream.get()
    assert sorted(mail.rcpt_tos) == ["a@example.net", "b@example.net"] and mail.mail_from == "app@example.com"
    assert mail.data.rstrip(b"\r\n").endswith(b"\r\n\r\neins\r\nzwei\r\n.") and b"bcc:" not in mail.data.lower()


def test_mutt(sendmail, folder):
    (folder / "muttrc").write_text(f'set sendmail="{sendmail.path} -oem -oi"\nset use_envelope_from=yes\n'
                                   'set from="app@example.com"\nset record=""\nset copy=no\n')
    subprocess.run(["mutt", "-F", folder / "muttrc", "-s", "von mutt", "-b", "hidden@example.net", "-c", "two@example.net", "--",
                    "one@example.net"], input="Grüße\n.\n".encode(), check=True, timeout=PATIENCE, capture_output=True,
                   env=os.environ | sendmail.environ | {"HOME": str(folder), "LANG": "C.UTF-8"})
    mail = sendmail.upstream.get()
    assert sorted(mail.rcpt_tos) == ["hidden@example.net", "one@example.net", "two@example.net"]
    assert mail.mail_from == "app@example.com" and b"hidden" not in mail.data


def test_s_nail(sendmail, folder):
    subprocess.run(["s-nail", "-:/", "-Sv15-compat", "-Smta=" + str(sendmail.path), "-r", "app@example.com", "-s", "von s-nail",
                    "-b", "hidden@example.net", "one@example.net"], input=b"text\n", check=True, timeout=PATIENCE,
                   capture_output=True, env=os.environ | sendmail.environ | {"HOME": str(folder)})
    mail = sendmail.upstream.get()
    assert sorted(mail.rcpt_tos) == ["hidden@example.net", "one@example.net"] and mail.mail_from == "app@example.com"


class Machine:
    """A mount namespace in which /usr/sbin/sendmail is ours, and cron and atd have folders of their own."""

    def __init__(self, folder, sendmail):
        self.root = folder / "machine"
        for name in ("sbin", "run", "crontabs", "atjobs", "atspool", "empty"):
            (self.root / name).mkdir(parents=True)
        for name in ("cron", "atd"):
            if os.path.exists(f"/usr/sbin/{name}"):
                shutil.copy(f"/usr/sbin/{name}", self.root / "sbin" / name)
        for name in ("atjobs", "atspool"):
            shutil.chown(self.root / name, "daemon", "daemon")
            (self.root / name).chmod(0o1770)
        (self.root / "atjobs" / ".SEQ").touch(0o600)
        shutil.chown(self.root / "atjobs" / ".SEQ", "daemon", "daemon")
        environ = " ".join(f"{k}={v}" for k, v in sendmail.environ.items())
        script = self.root / "sbin" / "sendmail"
        script.write_text(f"#!/bin/sh\necho \"$0 $*\" >>{self.root}/calls\nexec /usr/bin/env {environ} {sendmail.path} \"$@\"\n")
        script.chmod(0o755)

    def popen(self, command):
        setup = textwrap.dedent(f"""\
            set -e
            cd {self.root}
            mount --bind crontabs /var/spool/cron/crontabs
            mount --bind atjobs /var/spool/cron/atjobs
            mount --bind atspool /var/spool/cron/atspool
            mount --bind empty /etc/cron.d
            mount --bind /dev/null /etc/crontab
            mount --bind run /run
            mount --bind sbin /usr/sbin
            exec {command}""")
        return subprocess.Popen(["unshare", "-m", "sh", "-c", setup], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT)

    def calls(self):
        return (self.root / "calls").read_text()


def has_namespaces():
    return os.geteuid() == 0 and subprocess.run(["unshare", "-m", "mount", "--bind", "/etc", "/mnt"],
                                                capture_output=True).returncode == 0


needs_namespaces = pytest.mark.skipif(not has_namespaces(), reason="needs root and mount namespaces: cron and at as a machine has them")


@needs_namespaces
def test_cron(sendmail, folder):
    machine = Machine(folder, sendmail)
    table = machine.root / "crontabs" / "root"
    table.write_text("MAILTO=one@example.net,two@example.net\nMAILFROM=cron@example.org\n@reboot echo 'Grüße' # täglich\n")
    table.chmod(0o600)
    cron = machine.popen("/usr/sbin/cron -f")
    try:
        mail = sendmail.upstream.get()
    finally:
        cron.kill()
        cron.communicate()
    assert sorted(mail.rcpt_tos) == ["one@example.net", "two@example.net"]
    assert mail.data.endswith("\r\n\r\nGrüße\r\n".encode()) and "# täglich".encode() in mail.data
    assert b"X-Cron-Env: <" in mail.data
    assert "-FCronDaemon -i -B8BITMIME -oem one@example.net,two@example.net" in re.sub(" +", " ", machine.calls())


@needs_namespaces
def test_at(sendmail, folder):
    machine = Machine(folder, sendmail)
    daemon = machine.popen("sh -c 'echo \"echo from at\" | at -m now && exec /usr/sbin/atd -f'")
    try:
        mail = sendmail.upstream.get()
    finally:
        daemon.kill()
        output = daemon.communicate()[0]
    assert mail.rcpt_tos == ["root@relay.example.org"], output
    assert b"from at" in mail.data and b"Subject: Output from your job" in mail.data
    assert "-i root" in machine.calls()

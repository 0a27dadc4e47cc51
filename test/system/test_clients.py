"""The mail clients and libraries that people use, each as it is installed, with its certificate check on."""
import os
import smtplib
import ssl
import subprocess
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest

from conftest import PATIENCE, ROOT, USERS_SECRET, relayhost
from peers import make_certificate
from wire import Wire

HERE = ROOT / "test" / "system" / "clients"
FROM, TO, BCC = "app@example.org", ["one@example.net", "two@example.net"], "secret@example.net"
SUBJECT = "Grüße an alle"
LINES = ["A line.", ".a line that begins with a dot", "..", "Käse and a long " + "x" * 200, "the end"]
BUILD_PATIENCE = 300  # the Go library is compiled once


@pytest.fixture(params=["starttls", "implicit"])
def service(request, relayd, upstream, folder):
    """A daemon with a real certificate, and what a client needs to know in its environment."""
    certificate, key = make_certificate(folder)
    key.chmod(0o644)
    daemon = relayd(relayhost(upstream.port) + f"tls: {{certificate: {certificate}, key: {key}}}\n",
                    listen=f"listen:\n  - {{address: '127.0.0.1:0', tls: {request.param}}}\n")
    daemon.client_env = dict(os.environ, HOST="localhost", PORT=str(daemon.port), MAIL_USER="app", MAIL_PASSWORD=USERS_SECRET,
                             CA=str(certificate), FROM=FROM, TO=",".join(TO), BCC=BCC, SUBJECT=SUBJECT, BODY="\n".join(LINES),
                             IMPLICIT="1" if request.param == "implicit" else "0")
    daemon.implicit = request.param == "implicit"
    daemon.certificate = certificate
    return daemon


def run(service, *command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=BUILD_PATIENCE,
                          env=service.client_env, cwd=service.folder, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_arrived(service, upstream, with_bcc=True):
    """The message came whole, once for each recipient, and nobody reads of the blind copy."""
    recipients, mail = [], None
    while len(recipients) < len(TO) + with_bcc:
        received = upstream.get()
        recipients += received.rcpt_tos
        mail = message_from_bytes(received.data, policy=policy.default)
        assert BCC not in received.head and received.head.lower().count("\nbcc:") == 0
        assert received.head.startswith("Received: ")
        assert len(mail.get_all("Date")) == 1 and len(mail.get_all("Message-ID")) == 1
    assert sorted(recipients) == sorted(TO + [BCC] * with_bcc)
    assert mail["Subject"] == SUBJECT
    body = mail.get_content() if mail.get_content_charset() else mail.get_payload(decode=True).decode()
    assert body.replace("\r\n", "\n").rstrip("\n").split("\n") == LINES
    assert upstream.messages.empty()
    assert not [line for line in service.lines if "event=rejected" in line or "level=error" in line]


def text_message():
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Bcc"], mail["Subject"] = FROM, ", ".join(TO), BCC, SUBJECT
    mail.set_content("\n".join(LINES) + "\n", cte="8bit")
    return mail


def test_python_smtplib(service, upstream):
    context = ssl.create_default_context(cafile=service.certificate)
    if service.implicit:
        client = smtplib.SMTP_SSL("localhost", service.port, context=context, timeout=PATIENCE)
    else:
        client = smtplib.SMTP("localhost", service.port, timeout=PATIENCE)
        client.starttls(context=context)
    with client:
        client.login("app", USERS_SECRET)
        mail = text_message()
        del mail["Bcc"]
        client.sendmail(FROM, TO + [BCC], mail.as_bytes(policy=policy.SMTP), ["BODY=8BITMIME"])
    assert_arrived(service, upstream)


def test_curl(service, upstream, folder):
    (folder / "mail.eml").write_bytes(text_message().as_bytes(policy=policy.SMTP))
    recipients = [part for address in TO + [BCC] for part in ("--mail-rcpt", address)]
    run(service, "curl", "-sS", *([] if service.implicit else ["--ssl-reqd"]), "--cacert", service.certificate, "--user",
        f"app:{USERS_SECRET}", f"{'smtps' if service.implicit else 'smtp'}://localhost:{service.port}/app.test", "--mail-from",
        FROM, *recipients, "--upload-file", folder / "mail.eml")
    assert_arrived(service, upstream)


@pytest.mark.parametrize("more", [("--auth", "LOGIN"), ("--auth", "PLAIN", "--pipeline")], ids=["login", "pipelined"])
def test_swaks(service, upstream, folder, more):
    (folder / "mail.eml").write_bytes(text_message().as_bytes())
    told = run(service, "swaks", "--server", "localhost", "--port", service.port,
               "--tls-on-connect" if service.implicit else "--tls", "--tls-verify", "--tls-ca-path", service.certificate,
               "--auth-user", "app", "--auth-password", USERS_SECRET, "--from", FROM, "--to", ",".join(TO + [BCC]), "--helo",
               "app.test", "--data", f"@{folder / 'mail.eml'}", *more)
    assert "queued as" in told
    assert_arrived(service, upstream)


def test_msmtp(service, upstream):
    run(service, "msmtp", "--host=localhost", f"--port={service.port}", "--auth=on", "--user=app",
        f"--passwordeval=echo {USERS_SECRET}", "--tls=on", f"--tls-starttls={'off' if service.implicit else 'on'}",
        f"--tls-trust-file={service.certificate}", f"--from={FROM}", "--read-recipients",
        input=text_message().as_string(policy=policy.default))
    assert_arrived(service, upstream)


def test_s_nail(service, upstream):
    url = f"{'smtps' if service.implicit else 'smtp'}://app:{USERS_SECRET}@localhost:{service.port}"
    run(service, "s-nail", "-:/", "-S", "v15-compat", "-S", f"mta={url}", "-S", "smtp-use-starttls", "-S",
        f"tls-ca-file={service.certificate}", "-S", "tls-verify=strict", "-S", f"from={FROM}", "-S", "smtp-auth=plain", "-S",
        "sendcharsets=utf-8", "-S", "ttycharset=utf-8", "-S", "mime-encoding=8bit", "-s", SUBJECT, "-b", BCC, *TO,
        input="\n".join(LINES) + "\n")
    assert_arrived(service, upstream)


def test_nodemailer(service, upstream):
    service.client_env["NODE_PATH"] = str(ROOT / "test" / "system" / "node_modules")
    assert "queued as" in run(service, "node", HERE / "nodemailer.js")
    assert_arrived(service, upstream)


def test_nodemailer_pool(service, upstream):
    """Several messages on one connection, without RSET between them and without QUIT at the end."""
    service.client_env.update(NODE_PATH=str(ROOT / "test" / "system" / "node_modules"), POOL="5")
    told = run(service, "node", HERE / "nodemailer.js")
    assert told.count("queued as") == 5
    seen = []
    while len(seen) < 15:
        seen += upstream.get().rcpt_tos
    assert sorted(set(seen)) == sorted(TO + [BCC])
    assert service.metric('relayd_auth_attempts_total{result="ok"}') == 1
    assert not [line for line in service.lines if "level=error" in line or "level=warn" in line and "event=auth" in line]


def test_phpmailer(service, upstream):
    """It reads our id out of the reply as that of a transaction."""
    told = run(service, "php", HERE / "phpmailer.php")
    assert [line for line in service.lines if "event=accepted" in line and f"id={told.split()[-1]} " in line]
    assert_arrived(service, upstream)


def test_perl_net_smtp(service, upstream):
    assert "queued as" in run(service, "perl", HERE / "net_smtp.pl")
    assert_arrived(service, upstream)


def go_program(service):
    """Compiled once for all runs."""
    cache = ROOT / "build" / "go-cache"
    service.client_env.update(GOCACHE=str(cache), GOFLAGS="-mod=mod", GO111MODULE="off", GOPATH=str(cache / "path"))
    program = service.folder / "smtp"
    run(service, "go", "build", "-o", program, HERE / "smtp.go")
    return program


def test_go_net_smtp(service, upstream):
    """Always says BODY=8BITMIME SMTPUTF8 when they are offered."""
    run(service, go_program(service))
    assert_arrived(service, upstream)


def test_go_through_a_relayhost_without_smtputf8(service, make_upstream):
    """What Alertmanager needs: a plain message of a client that says SMTPUTF8 goes on without it."""
    old = make_upstream(smtputf8=False)
    text = service.config_path.read_text()
    first, rest = text.split("address: 127.0.0.1:", 1)
    service.write_config(first + f"address: 127.0.0.1:{old.port}\n" + rest.split("\n", 1)[1])
    service.ctl("reload")
    service.client_env.update(SUBJECT="plain", BODY="ascii alone")
    run(service, go_program(service))
    received = old.get()
    assert "SMTPUTF8" not in received.mail_options and b"ascii alone" in received.data


def test_java_mail(service, upstream, folder):
    store = folder / "trust.p12"
    subprocess.run(["keytool", "-importcert", "-noprompt", "-alias", "relay", "-file", str(service.certificate), "-keystore",
                    str(store), "-storepass", "changeit"], check=True, capture_output=True, timeout=PATIENCE)
    run(service, "java", "-cp", "/usr/share/java/javax.mail.jar:/usr/share/java/javax.activation.jar",
        f"-Djavax.net.ssl.trustStore={store}", "-Djavax.net.ssl.trustStorePassword=changeit", "-Dfile.encoding=UTF-8",
        HERE / "Send.java")
    assert_arrived(service, upstream)


def test_what_others_were_recorded_to_send(service, upstream):
    """The dialogues of clients that are not installed, as they were recorded: Alertmanager's LOGIN with its exact challenges,
    Symfony and JavaMail without initial response, git send-email with a third EHLO."""
    dialogues = {
        "alertmanager": ["AUTH LOGIN", "334 VXNlcm5hbWU6", "YXBw", "334 UGFzc3dvcmQ6", "c2VjcmV0", "235"],
        "curl": ["AUTH PLAIN", "334 ", "AGFwcABzZWNyZXQ=", "235"],
        "git": ["EHLO again.test", "250", "AUTH PLAIN AGFwcABzZWNyZXQ=", "235"],
        "lower case": ["ehlo [127.0.0.1]", "250", "auth plain AGFwcABzZWNyZXQ=", "235"],
    }
    for dialogue in dialogues.values():
        context = ssl.create_default_context(cafile=service.certificate)
        context.check_hostname = False
        with Wire(service.port, context=context if service.implicit else None) as client:
            client.ehlo("localhost.localdomain")
            if not service.implicit:
                client.starttls(context)
            for line, expected in zip(dialogue[::2], dialogue[1::2]):
                reply = client.cmd(line)
                assert reply.startswith(expected) and (len(expected) == 3 or reply == expected)
            assert client.cmd("mail FROM:<app@example.org> size=9 body=8bitmime smtputf8").code == 250
            assert client.cmd("rcpt TO:<one@example.net>").code == 250
            assert client.data(b"Subject: recorded\r\n\r\nbody\r\n").code == 250
        upstream.get()

"""Signatures, judged by verifiers that are not ours."""
import os
import re
import signal
import smtplib
import subprocess

import dkim
import pytest

from conftest import PATIENCE, RELAYCTL, child_named, message, relayhost, service_user


def keygen(folder, selector, kind, domain="example.org"):
    """(key path, the TXT record) by relayctl dkim keygen."""
    import json
    import shutil
    path = folder / f"{selector}.pem"
    done = subprocess.run([RELAYCTL, "--json", "dkim", "keygen", domain, selector, "--type", kind, "--out", path],
                          capture_output=True, text=True, timeout=PATIENCE, check=True)
    if service_user():
        shutil.chown(path, service_user())
    return path, json.loads(done.stdout)["txt"]


@pytest.fixture
def keys(folder):
    rsa, ed = keygen(folder, "rsa1", "rsa"), keygen(folder, "ed1", "ed25519")
    records = {b"rsa1._domainkey.example.org.": rsa[1].encode(), b"ed1._domainkey.example.org.": ed[1].encode()}
    yaml = f"dkim: {{domains: {{example.org: {{rsa1: {rsa[0]}, ed1: {ed[0]}}}}}}}\n"
    return yaml, records


def judge(data, records):
    """dkimpy's verdict on each signature, first to last."""
    count = len(re.findall(rb"^DKIM-Signature:", data, re.M | re.I))
    verifier = dkim.DKIM(data)
    return [verifier.verify(idx=i, dnsfunc=lambda name, timeout=5: records.get(name)) for i in range(count)]


BODIES = {
    "plain": "Hello\n",
    "empty": "",
    "blanks at line ends": "one  \ntwo\t\n\n\n\n",
    "runs of blanks": "a   b\t\tc\n",
    "dots": ".\n..\n...x\n",
    "long": "y" * 900 + "\n" + "z" * 2000 + "\n",
}


@pytest.mark.parametrize("name", BODIES)
def test_both_signatures_verify(relayd, upstream, keys, name):
    """K1, K2"""
    yaml, records = keys
    daemon = relayd(relayhost(upstream.port) + yaml)
    text = f"From: App <app@example.org>\nTo: user@example.net\nSubject:  odd   spacing \n folded\nX-Odd : x\n\n{BODIES[name]}"
    text = text.replace("X-Odd : x\n", "")
    with daemon.smtp() as client:
        client.sendmail("app@example.org", ["user@example.net"], text.replace("\n", "\r\n").encode())
    data = upstream.get().data
    assert data.split(b"\r\n\r\n", 1)[1] == BODIES[name].replace("\n", "\r\n").encode()
    assert judge(data, records) == [True, True]
    assert daemon.metric('relayd_dkim_signatures_total{algorithm="rsa-sha256",result="ok"}') == 1


def test_a_change_on_the_way_is_noticed(relayd, upstream, keys):
    yaml, records = keys
    daemon = relayd(relayhost(upstream.port) + yaml)
    with daemon.smtp() as client:
        client.send_message(message("original"))
    data = upstream.get().data
    assert judge(data, records) == [True, True]
    assert judge(data.replace(b"Subject: original", b"Subject: changed"), records) == [False, False]
    assert judge(b"Subject: added on top\r\n" + data, records) == [False, False]


def test_mail_dkim_of_perl_agrees(relayd, upstream, keys, folder):
    yaml, records = keys
    daemon = relayd(relayhost(upstream.port) + yaml)
    with daemon.smtp() as client:
        client.send_message(message("for perl"))
    (folder / "mail.eml").write_bytes(upstream.get().data)
    script = r"""
        use Mail::DKIM::Verifier; use Mail::DKIM::PublicKey;
        my ($record, $file) = @ARGV;
        { no warnings 'redefine';
          *Mail::DKIM::PublicKey::fetch = sub { my $class = shift; return $class->parse($record) };
          *Mail::DKIM::PublicKey::fetch_async = sub {
              my ($class, %options) = @_;
              my $key = $class->parse($record);
              $options{Callbacks}{Success}->($key) if $options{Callbacks}{Success};
              return sub { $key } } }
        my $dkim = Mail::DKIM::Verifier->new(); open(my $in, '<', $file); binmode $in;
        $dkim->PRINT(do { local $/; <$in> }); $dkim->CLOSE;
        print join(",", map { $_->algorithm . "=" . $_->result_detail } $dkim->signatures), "\n";"""
    done = subprocess.run(["perl", "-e", script, records[b"rsa1._domainkey.example.org."].decode(), folder / "mail.eml"],
                          capture_output=True, text=True, timeout=PATIENCE)
    assert "rsa-sha256=pass" in done.stdout, done.stdout + done.stderr


def test_parent_domain_signs_for_a_subdomain(relayd, upstream, keys):
    yaml, records = keys
    daemon = relayd(relayhost(upstream.port) + yaml)
    with daemon.smtp() as client:
        client.send_message(message(sender="app@deep.sub.example.org"))
        client.send_message(message("unsigned", sender="app@example.com"))
    first, second = upstream.get().data, upstream.get().data
    daemon.wait_log("event=accepted .* from=app@example.com .* dkim=none")  # nobody would miss the signature otherwise
    daemon.wait_log("event=accepted .* dkim=signed")
    signed, plain = (first, second) if b"unsigned" in second else (second, first)
    assert judge(signed, records) == [True, True] and b" d=example.org;" in signed.replace(b";d=", b"; d=")
    assert b"DKIM-Signature" not in plain


@pytest.fixture
def hung(relayd, upstream, keys):
    """hung(yaml of dkim) -> (daemon, client logged in, wake): the helper that signs stands still until wake()."""
    stopped = []

    def wake():
        while stopped:
            os.kill(stopped.pop(), signal.SIGCONT)

    def start(more):
        daemon = relayd(relayhost(upstream.port) + keys[0].replace("dkim: {", "dkim: {" + more) + "helpers: 1\n")
        client = daemon.smtp()
        stopped.append(child_named(daemon, "relayd: crypto"))
        os.kill(stopped[-1], signal.SIGSTOP)
        return daemon, client, wake

    yield start
    wake()


def test_what_cannot_be_signed_is_not_taken(hung, upstream, keys):
    daemon, client, wake = hung("")
    with client:
        with pytest.raises(smtplib.SMTPDataError) as error:
            client.send_message(message("refused"))
        assert (error.value.smtp_code, error.value.smtp_error[:6]) == (451, b"4.7.0 ")
        daemon.wait_log("event=alert alert=signing state=active")
        daemon.wait_queued(0)
        wake()
        client.send_message(message("signed"))
    assert judge(upstream.get().data, keys[1]) == [True, True]
    daemon.wait_log("event=alert alert=signing state=over")


def test_unsigned_allow_takes_what_cannot_be_signed(hung, upstream):
    daemon, client, _ = hung("unsigned: allow, ")
    with client:
        client.send_message(message("unsigned"))
    assert b"DKIM-Signature" not in (data := upstream.get().data) and b"Subject: unsigned\r\n" in data
    daemon.wait_log("event=alert alert=signing state=active")


def test_fields_that_the_upstream_rewrites_are_not_signed(relayd, upstream, keys):
    yaml, records = keys
    daemon = relayd(relayhost(upstream.port, rewrites="[Date, Message-ID]") + yaml)
    with daemon.smtp() as client:
        client.send_message(message())
    data = upstream.get().data
    changed = re.sub(rb"^(Date|Message-ID): .*\r\n", b"", data, flags=re.M | re.I)
    assert changed != data and judge(changed, records) == [True, True]


def check(folder, dns):
    """(exit code, what relayctl dkim check says of each key)."""
    import json
    config = folder / "check.yaml"
    config.write_text(f"hostname: relay.example.org\ndns: {{servers: ['127.0.0.1:{dns.port}']}}\n"
                      f"dkim: {{domains: {{example.org: {{one: {folder}/one.pem, two: {folder}/two.pem}}}}}}\n")
    done = subprocess.run([RELAYCTL, "-c", config, "--json", "dkim", "check"], capture_output=True, text=True,
                          timeout=PATIENCE)
    return done.returncode, {key["selector"]: key for key in json.loads(done.stdout)}


def zone_text(txt):
    return " ".join(f'"{txt[at:at + 200]}"' for at in range(0, len(txt), 200))


def test_check_compares_with_what_is_published(dns, folder):
    (_, rsa), (_, ed) = keygen(folder, "one", "rsa"), keygen(folder, "two", "ed25519")
    dns.start({"example.org": f"one._domainkey TXT {zone_text(rsa)}\ntwo._domainkey TXT {zone_text(ed)}\n"})
    code, found = check(folder, dns)
    assert code == 0 and found["one"]["ok"] and found["two"]["ok"]
    assert found["one"]["name"] == "one._domainkey.example.org"
    dns.stop()
    dns.start({"example.org": f"one._domainkey TXT {zone_text(ed)}\n"})
    code, found = check(folder, dns)
    assert code == 1 and not found["one"]["ok"] and not found["two"]["ok"]
    assert "another type" in found["one"]["text"] and "nothing is published" in found["two"]["text"]
    dns.stop()
    revoked = "v=DKIM1; k=rsa; p="
    (folder / "two.pem").unlink()
    (_, other) = keygen(folder, "two", "ed25519")
    dns.start({"example.org": f"one._domainkey TXT {zone_text(revoked)}\ntwo._domainkey TXT {zone_text(ed)}\n"})
    code, found = check(folder, dns)
    assert code == 1 and "revoked" in found["one"]["text"] and "another key" in found["two"]["text"] and other != ed
    text = subprocess.run([RELAYCTL, "-c", folder / "check.yaml", "dkim", "check", "example.org"], capture_output=True,
                          text=True, timeout=PATIENCE).stdout
    assert "BAD one._domainkey.example.org" in text and "publish this record" in text

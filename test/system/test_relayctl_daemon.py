"""relayctl against the daemon as a whole: relayhosts paused, routes asked for, the queue drained."""
import subprocess

from conftest import RELAYCTL, message, relayhost
from peers import free_udp_port


def test_pause_and_resume(relayd, upstream):
    daemon = relayd(relayhost(upstream.port))
    assert daemon.ctl("pause", "nobody", check=False).returncode == 4
    assert daemon.ctl("pause", "main").stdout == "main is paused\n"
    assert daemon.ctl("pause", "main").stdout == "main was already paused\n"
    with daemon.smtp() as client:
        client.send_message(message("waits"))
    daemon.kill()
    daemon.start()
    assert daemon.json("status")["relayhosts"][0]["paused"] is True
    assert "PAUSED" in daemon.ctl("status").stdout
    assert len(daemon.json("queue")) == 1 and upstream.messages.empty()
    assert daemon.json("resume", "main") == {"name": "main", "paused": False, "changed": True}
    upstream.get()


def test_route_by_relayhost(relayd, upstream, folder):
    daemon = relayd(relayhost(upstream.port) + "routes:\n"
                    "  - {name: partners, to: ['*.example.org'], via: [mx, main], tls: verify}\n"
                    f"dns: {{servers: ['127.0.0.1:{free_udp_port()}']}}\nsuppress: {folder / 'suppress'}\n", start=False)
    (folder / "suppress").write_text("gone@example.net\n")
    daemon.start()
    route = daemon.json("route", "someone@example.com", "--from", "app@example.org")
    (recipient,) = route["recipients"]
    assert recipient["next_hops"] == [{"kind": "relayhost", "name": "main", "address": f"127.0.0.1:{upstream.port}",
                                       "tls": "none", "state": "up", "reason": ""}]
    assert "no route fits" in daemon.ctl("route", "someone@example.com").stdout
    hops = daemon.json("route", "someone@sub.example.org")["recipients"][0]
    assert "partners" in hops["why"] and [hop["kind"] for hop in hops["next_hops"]] == ["mx", "relayhost"]
    assert hops["next_hops"][0]["tls"] == "verify"
    daemon.ctl("pause", "main")
    assert "paused" in daemon.ctl("route", "someone@example.com").stdout
    done = daemon.ctl("route", "gone@example.net", check=False)
    assert done.returncode == 1 and "suppress" in done.stdout
    assert daemon.ctl("route", "no address at all", check=False).returncode == 2
    assert daemon.ctl("route", check=False).returncode == 2


def test_route_by_mx_is_looked_up(relayd, dns):
    dns.start({"example.net": "@ MX 10 mx1\n@ MX 20 mx2\nmx1 A 127.0.0.2\nmx2 A 127.0.0.3\n",
               "null.example": "@ MX 0 .\n"})
    daemon = relayd(f"dns: {{servers: ['127.0.0.1:{dns.port}']}}\ndelivery: {{allow_loopback: true}}\n")
    (hop,) = daemon.json("route", "user@example.net")["recipients"][0]["next_hops"]
    assert (hop["kind"], hop["status"], hop["tls"]) == ("mx", "ok", "opportunistic")
    assert [(h["name"], h["preference"], h["addresses"]) for h in hop["hosts"]] == [
        ("mx1.example.net", 10, ["127.0.0.2"]), ("mx2.example.net", 20, ["127.0.0.3"])]
    text = daemon.ctl("route", "user@example.net").stdout
    assert "by MX of example.net" in text and "10 mx1.example.net [127.0.0.2], TLS if the server offers it" in text
    (hop,) = daemon.json("route", "user@null.example")["recipients"][0]["next_hops"]
    assert hop["status"] == "null-mx" and hop["hosts"] == []


def test_drain_delivers_and_stops(relayd, upstream):
    port = upstream.port
    upstream.stop()
    daemon = relayd(relayhost(port))
    with daemon.smtp() as client:
        for number in range(20):
            client.send_message(message(f"number {number}"))
    daemon.wait_log("event=destination_trouble")
    upstream.start()  # the back-off would be long: drain attempts at once
    assert daemon.json("drain", "--timeout", "25s") == {"left": 0, "held": 0, "drained": True}
    assert daemon.wait_exit() == 0
    assert len(upstream.get_many(20)) == 20


def test_drain_gives_up_in_time_and_keeps_the_rest(relayd, upstream):
    upstream.stop()
    daemon = relayd(relayhost(upstream.port))
    with daemon.smtp() as client:
        client.send_message(message("waits"))
        client.send_message(message("held"))
    daemon.wait_log("event=deferred", count=2)
    daemon.ctl("hold", daemon.json("queue")[1]["id"])
    done = daemon.ctl("drain", "--timeout", "1s", check=False)
    assert done.returncode == 5 and "2 messages are left, 1 of them held" in done.stdout
    assert daemon.wait_exit() == 0
    daemon.start()
    assert len(daemon.json("queue")) == 2
    assert daemon.ctl("drain", "--timeout", "soon", check=False).returncode == 2


def test_a_draining_daemon_takes_no_mail_and_says_so(relayd, upstream):
    upstream.stop()
    daemon = relayd(relayhost(upstream.port))
    with daemon.smtp() as client:
        client.send_message(message("waits"))
    drain = subprocess.Popen([str(RELAYCTL), "-s", str(daemon.spool / "control.sock"), "drain", "--timeout", "1h"],
                             stdout=subprocess.PIPE, text=True)
    daemon.wait_log("event=draining")
    try:
        daemon.smtp()
        raise AssertionError("a connection was taken")
    except OSError:
        pass
    status, reason = daemon.scrape("/readyz")
    assert status == 503 and "drained" in reason
    daemon.ctl("delete", "--all", "--yes")  # nothing is left: it is over
    assert drain.communicate()[0] == "stopped; nothing is left\n" and drain.returncode == 0
    assert daemon.wait_exit() == 0


def test_no_text_of_others_turns_a_terminal_round(relayd, upstream):
    """What changes the direction of text, or cannot be seen, is shown as a question mark."""
    daemon = relayd(relayhost(upstream.port))
    daemon.ctl("pause", "main")
    tricks = ["\u202e", "\u2066", "\u061c", "\u200b", "\u2060", "\U000e0041", "\ufeff"]
    sender = f"a{''.join(tricks)}z\u00e9@example.org"
    with daemon.smtp() as client:
        client.ehlo()
        client.mail(sender, ["SMTPUTF8"])
        assert client.rcpt("user@example.net")[0] == 250
        client.data(f"From: x@example.org\r\nSubject: {'|'.join(tricks)}\r\n\r\nbody\r\n".encode())
    ident = daemon.json("queue")[0]["id"]
    for text in daemon.ctl("queue").stdout, daemon.ctl("show", ident).stdout:
        assert not [hex(ord(c)) for c in tricks if c in text]
    assert "a???????z\u00e9@example.org" in daemon.ctl("queue").stdout

"""Events at a real HTTPS server: signed, in order, at least once, whatever happens to the server or to relayd."""
import email.policy
import hashlib
import hmac
import http.server
import json
import queue
import re
import threading
import time

import pytest

from conftest import FAST_RETRY, PATIENCE, message, relayhost
from peers import free_port, server_context

SECRET = "hook secret"
SMTP_POLICY = email.policy.SMTP


def is_signed(headers, body, secret=SECRET):
    """As relayd.yaml(5) tells receivers to look."""
    fields = dict(field.split("=", 1) for field in headers["X-Relayd-Signature"].split(","))
    expected = hmac.new(secret.encode(), fields["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, fields["v1"]) and abs(time.time() - int(fields["t"])) < 300


class Hook:
    """An HTTPS server. `answers`: statuses to give first, each once; `judge` may answer by the events instead;
    `gate`: requests wait for it."""

    def __init__(self, folder):
        self.context, self.ca = server_context(folder, name="hook")
        self.port = free_port()
        self.posts = queue.Queue()
        self.answers = []
        self.judge = None
        self.gate = threading.Event()
        self.gate.set()
        self.server = None

    @property
    def yaml(self):
        return (f"https: {{ca_file: {self.ca}}}\ndelivery: {{allow_loopback: true}}\n"
                f"webhook: {{url: 'https://localhost:{self.port}/hook?a=1', secret_file: {self.secret}")

    def configure(self, folder, more="", events=None):
        self.secret = folder / "hook.secret"
        self.secret.write_text(SECRET + "\n")
        self.secret.chmod(0o644)
        return self.yaml + (f", events: [{events}]" if events else "") + "}\n" + more

    def start(self):
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.gate.wait(PATIENCE)
                events = json.loads(body)["events"]
                status = hook.answers.pop(0) if hook.answers else hook.judge(events) if hook.judge else 204
                hook.posts.put((status, self.path, self.headers, body, events))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self):
                sock, address = super().get_request()
                return hook.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), address

            def handle_error(self, *_):
                pass

        self.server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def stop(self):
        self.gate.set()
        if self.server:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def get(self):
        try:
            return self.posts.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError("no POST arrived") from None

    def taken(self, count, wanted=lambda event: True):
        """The next `count` different events that were answered 2xx, each once, in order."""
        found = {}
        while len(found) < count:
            status, _, headers, body, events = self.get()
            assert is_signed(headers, body)
            if 200 <= status <= 299:
                for event in filter(wanted, events):
                    found.setdefault(event["event_id"], event)
        return list(found.values())


@pytest.fixture
def hook(folder):
    server = Hook(folder)
    yield server.start()
    server.stop()


def send(daemon, count=1, to="user@example.net", tag=None):
    with daemon.smtp() as client:
        for i in range(count):
            mail = message(f"number {i}")
            if tag:
                mail["X-Relayd-Tag"] = tag
            client.send_message(mail, to_addrs=[to.replace("%d", str(i))])


def test_events_are_signed_and_tell_all(relayd, upstream, hook, folder):
    upstream.replies["rcpt"] = ["452 4.2.2 mailbox full"]
    daemon = relayd(relayhost(upstream.port) + FAST_RETRY + hook.configure(folder))
    send(daemon, tag="welcome")
    deferred, delivered = hook.taken(2)
    assert (deferred["event"], delivered["event"]) == ("deferred", "delivered")
    assert deferred["id"] == delivered["id"] and re.fullmatch(r"[0-9A-Z]{13}", delivered["id"])
    assert deferred["event_id"] != delivered["event_id"]
    assert {key: deferred[key] for key in ("user", "from", "rcpt", "outcome", "class", "code", "enhanced", "stage", "text",
                                           "relayhost", "attempts", "tag")} == {
        "user": "app", "from": "app@example.org", "rcpt": "user@example.net", "outcome": "deferred", "class": "mailbox",
        "code": 452, "enhanced": "4.2.2", "stage": "rcpt", "text": "mailbox full", "relayhost": "main", "attempts": 1,
        "tag": "welcome"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", deferred["time"]) and deferred["next_attempt"] > deferred["time"]
    assert delivered["code"] == 250 and delivered["attempts"] == 2 and "next_attempt" not in delivered
    daemon.wait_log(r"event=delivered ")
    assert daemon.metric('relayd_webhook_events_total{result="sent"}') == 2


def test_request_line_and_headers(relayd, upstream, hook, folder):
    daemon = relayd(relayhost(upstream.port) + hook.configure(folder))
    send(daemon)
    _, path, headers, body, _ = hook.get()
    assert path == "/hook?a=1" and headers["Content-Type"] == "application/json" and headers["Host"] == f"localhost:{hook.port}"
    assert json.loads(body)["relay"] == "relay.example.org"
    assert is_signed(headers, body) and not is_signed(headers, body, "another") and not is_signed(headers, body + b" ")


def test_only_what_is_wanted(relayd, upstream, hook, folder):
    upstream.replies["rcpt"] = ["550 5.1.1 no such user"]
    daemon = relayd(relayhost(upstream.port) + hook.configure(folder, events="failed"))
    send(daemon, to="gone@example.net")
    [event] = hook.taken(1)
    assert (event["event"], event["rcpt"], event["code"], event["class"]) == ("failed", "gone@example.net", 550, "mailbox")
    assert upstream.get().rcpt_tos == ["app@example.org"]  # the DSN goes out beside it
    daemon.wait_log(r"event=delivered ")
    assert hook.posts.empty()


def test_a_server_that_is_down_and_comes_back(relayd, upstream, hook, folder):
    hook.stop()
    daemon = relayd(relayhost(upstream.port) + hook.configure(folder, events="delivered"))
    send(daemon, 20)
    upstream.get_many(20)  # mail does not wait
    daemon.wait_log(r"event=webhook_deferred .*connect", count=2)
    hook.start()
    events = hook.taken(20)
    assert len({event["id"] for event in events}) == 20


def test_a_kill_loses_no_event(relayd, upstream, hook, folder):
    hook.stop()
    daemon = relayd(relayhost(upstream.port) + hook.configure(folder, events="delivered"))
    send(daemon, 30)
    upstream.get_many(30)
    daemon.wait_log(r"event=delivered ", count=30)
    daemon.kill()
    hook.start()
    daemon.start()
    events = hook.taken(30)
    assert len({event["id"] for event in events}) == 30
    assert daemon.json("queue") == []


def test_errors_are_tried_again_in_order(relayd, upstream, hook, folder):
    hook.answers = [500, 429, 301]
    daemon = relayd(relayhost(upstream.port) + hook.configure(folder, events="delivered"))
    send(daemon, 5, to="u%d@example.net")
    assert [event["rcpt"] for event in hook.taken(5)] == [f"u{i}@example.net" for i in range(5)]
    failures = daemon.wait_log(r"event=webhook_deferred", count=3)
    assert [re.search(r"answers (\d+)", line).group(1) for line in failures] == ["500", "429", "301"]


def test_a_refused_event_does_not_hide_in_a_batch(relayd, upstream, hook, folder):
    """After a 4xx events go one by one, so that only the bad one is to blame."""
    hook.gate.clear()
    hook.judge = lambda events: 422 if any(event["rcpt"] == "bad@example.net" for event in events) else 200
    daemon = relayd(relayhost(upstream.port) + hook.configure(folder, events="delivered"))
    send(daemon, to="first@example.net")
    for address in ("a@example.net", "b@example.net", "bad@example.net"):
        send(daemon, to=address)
    upstream.get_many(4)
    daemon.wait_log(r"event=delivered ", count=4)
    hook.gate.set()
    assert [event["rcpt"] for event in hook.taken(3)] == ["first@example.net", "a@example.net", "b@example.net"]


def test_a_slow_server_holds_nothing_up(relayd, upstream, hook, folder):
    hook.gate.clear()
    daemon = relayd(relayhost(upstream.port) + hook.configure(folder, events="delivered"))
    send(daemon, 150)
    upstream.get_many(150)
    hook.gate.set()
    assert len(hook.taken(150)) == 150


def test_failures_by_webhook_alone(relayd, upstream, hook, folder):
    upstream.replies["rcpt"] = ["550 5.1.1 no such user"]
    hook.answers = [500]
    daemon = relayd(relayhost(upstream.port) + hook.configure(folder, "bounce: {mode: webhook}\n", events="alert"))
    send(daemon, to="gone@example.net")
    [event] = hook.taken(1, lambda event: event["event"] == "failed")
    assert (event["rcpt"], event["outcome"]) == ("gone@example.net", "failed")
    daemon.wait_log(r"event=bounce_omitted .*text=bounce\.mode")
    daemon.wait_log(r"event=failed ")
    assert upstream.messages.empty() and daemon.json("queue") == []


def submit_and_kill(daemon, event, rounds=3):
    """30 messages a round, and a kill while they end; all ids that got a 250."""
    accepted = set()
    for _ in range(rounds):
        mark = len(daemon.lines)
        with daemon.smtp() as client:
            for _ in range(30):
                client.mail("app@example.org")
                client.rcpt("user@example.net")
                reply = client.data(message().as_bytes(policy=SMTP_POLICY))[1]
                accepted.add(re.search(rb"queued as (\w{13})", reply).group(1).decode())
        daemon.wait_log(rf"event={event} ", since=mark, count=5)
        daemon.kill()
        daemon.start()
    return accepted


@pytest.mark.parametrize("outcome", ["failed", "delivered"])
def test_kills_lose_no_event(relayd, upstream, hook, folder, outcome):
    """Whatever a kill hits, each message that is gone has told its end; failures with bounce.mode webhook."""
    hook.stop()
    daemon = relayd(relayhost(upstream.port) + hook.configure(folder, "bounce: {mode: webhook}\n", events=outcome))
    if outcome == "failed":
        upstream.replies["rcpt"] = ["550 5.1.1 no such user"] * 1000
    accepted = submit_and_kill(daemon, outcome)
    hook.start()
    events = hook.taken(len(accepted))
    assert {event["id"] for event in events} == accepted
    deadline = time.monotonic() + PATIENCE
    while daemon.json("queue") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert daemon.json("queue") == []
    if outcome == "failed":
        assert upstream.messages.empty()


def test_both(relayd, upstream, hook, folder):
    upstream.replies["rcpt"] = ["550 5.1.1 no such user"]
    daemon = relayd(relayhost(upstream.port) + hook.configure(folder, "bounce: {mode: both}\n", events="failed"))
    send(daemon, to="gone@example.net")
    assert hook.taken(1)[0]["event"] == "failed"
    assert upstream.get().rcpt_tos == ["app@example.org"]


def test_expiry_is_a_failure(relayd, upstream, hook, folder):
    upstream.replies["rcpt"] = ["451 4.3.0 not now"] * 100
    daemon = relayd(relayhost(upstream.port) + FAST_RETRY + "  expire: 3s\n"
                    + hook.configure(folder, "bounce: {mode: webhook}\n", events="failed"))
    send(daemon)
    [event] = hook.taken(1)
    assert (event["event"], event["outcome"], event["code"]) == ("expired", "expired", 451)
    daemon.wait_log(r"event=expired ")


def test_what_an_operator_deletes(relayd, hook, folder):
    daemon = relayd(relayhost(free_port()) + hook.configure(folder, events="deleted"))
    send(daemon, 3, to="u%d@example.net")
    daemon.wait_log(r"event=deferred ", count=3)
    first = min(daemon.json("queue"), key=lambda message: message["id"])
    daemon.ctl("delete", first["id"])
    daemon.ctl("delete", "--sender", "app@example.org", "--yes")
    events = hook.taken(3)
    assert {event["rcpt"] for event in events} == {f"u{i}@example.net" for i in range(3)}
    assert events[0]["id"] == first["id"] and {event["outcome"] for event in events} == {"deleted"}


def test_alerts_begin_and_end(relayd, upstream, make_upstream, hook, folder):
    port = free_port()
    daemon = relayd(relayhost(port) + FAST_RETRY + hook.configure(folder, events="alert"))
    send(daemon)
    [begin] = hook.taken(1)
    assert (begin["event"], begin["alert"], begin["state"]) == ("alert", "relayhost", "active")
    assert "main" in begin["text"] and begin["relay"] == "relay.example.org"
    assert daemon.scrape("/mailz")[0] == 503
    server = make_upstream(port=port)
    server.get()
    [end] = hook.taken(1)
    assert (end["alert"], end["state"], end["since"]) == ("relayhost", "over", begin["since"])
    assert daemon.metric('relayd_alert_active{alert="relayhost"}') == 0


def test_damaged_bytes_are_an_alert_until_they_are_gone(relayd, hook, folder):
    daemon = relayd(hook.configure(folder, events="alert"))
    quarantine = daemon.spool / "quarantine"
    damaged = quarantine / "journal-0000000000000001.bin"
    damaged.write_bytes(b"?")
    [begin] = hook.taken(1)
    assert (begin["alert"], begin["state"]) == ("corruption", "active") and "1 files" in begin["text"]
    assert daemon.scrape("/mailz")[0] == 503 and daemon.ctl("health", "--mail", check=False).returncode == 1
    damaged.unlink()
    [end] = hook.taken(1)
    assert (end["alert"], end["state"]) == ("corruption", "over")
    assert daemon.scrape("/mailz")[0] == 200


def test_a_reload_changes_secret_and_events(relayd, upstream, hook, folder):
    daemon = relayd(relayhost(upstream.port) + hook.configure(folder, events="failed"))
    send(daemon)
    upstream.get()
    daemon.wait_log(r"event=delivered ")
    hook.secret.write_text("a new one\n")
    daemon.write_config(daemon.config.replace("events: [failed]", "events: [delivered]"))
    daemon.ctl("reload")
    send(daemon, to="later@example.net")
    _, _, headers, body, [event] = hook.get()
    assert event["rcpt"] == "later@example.net" and is_signed(headers, body, "a new one")


def test_an_unreadable_secret_is_refused(relayd, upstream, hook, folder):
    text = relayhost(upstream.port) + hook.configure(folder)
    hook.secret.unlink()
    daemon = relayd(text, start=False)
    daemon.spawn()
    assert daemon.wait_exit() == 78
    assert any("hook.secret" in line for line in daemon.lines)

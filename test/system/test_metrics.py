"""/metrics as promtool and Prometheus want it: clean, and every known label value there from the start."""
import re
import subprocess

from conftest import message, relayhost

REASONS = "auth sender size rate disk syntax tls".split()
STATES = "ready inflight deferred held".split()
OPERATORS = "google microsoft yahoo apple other".split()
CLASSES = "greylist throttle auth mailbox policy connect dns tls other".split()
BOUNCES = "no_user policy size relay expired other".split()


def promtool(text):
    done = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True)
    assert done.returncode == 0 and done.stdout + done.stderr == "", done.stdout + done.stderr


def expected(listener):
    """Name and labels of what must be there at once, and at 0."""
    for place in (listener, "submit.sock", "drop"):
        for result in ("accepted", "rejected", "deferred"):
            yield f'relayd_submissions_total{{listener="{place}",user="",result="{result}"}}'
    for reason in REASONS:
        yield f'relayd_submission_rejections_total{{reason="{reason}"}}'
    for result in ("ok", "failed", "error", "blocked"):
        yield f'relayd_auth_attempts_total{{result="{result}"}}'
    for name in ("submission_duration_seconds", "message_size_bytes"):
        yield f"relayd_{name}_count"
    for state in STATES:
        for name in ("queue_messages", "queue_recipients", "queue_bytes", "queue_oldest_age_seconds"):
            yield f'relayd_{name}{{state="{state}"}}'
    for operator in OPERATORS:
        for outcome in ("delivered", "deferred", "failed", "expired"):
            yield f'relayd_delivery_attempts_total{{relayhost="mx",operator="{operator}",outcome="{outcome}"}}'
    for relayhost in ("mx", "main"):
        for name in CLASSES:
            yield f'relayd_deferrals_total{{relayhost="{relayhost}",class="{name}"}}'
        for name in BOUNCES:
            yield f'relayd_bounces_total{{relayhost="{relayhost}",class="{name}"}}'
        for name in ("delivery_latency_seconds_count", "last_success_timestamp_seconds", "upstream_auth_failures_total"):
            yield f'relayd_{name}{{relayhost="{relayhost}"}}'
    for phase in ("dns", "connect", "tls", "auth", "envelope", "data"):
        yield f'relayd_attempt_duration_seconds_count{{phase="{phase}"}}'
    for alert in ("journal", "corruption", "relayhost", "no_delivery", "oldest", "disk", "certificate", "signing", "tls",
                  "webhook", "refused"):
        yield f'relayd_alert_active{{alert="{alert}"}}'
    for direction in ("in", "out"):
        yield f'relayd_connections{{direction="{direction}"}}'
    for algorithm in ("rsa-sha256", "ed25519-sha256"):
        for result in ("ok", "failed"):
            yield f'relayd_dkim_signatures_total{{algorithm="{algorithm}",result="{result}"}}'
    for scope in ("user", "relayhost", "route"):
        yield f'relayd_rate_limit_waits_total{{scope="{scope}"}}'
    for used in ("yes", "no"):
        yield f'relayd_greylist_hints_total{{used="{used}"}}'
    for result in ("sent", "expired", "refused", "full", "lost"):
        yield f'relayd_webhook_events_total{{result="{result}"}}'
    for version in ("TLSv1.2", "TLSv1.3"):
        yield f'relayd_tls_handshakes_total{{direction="in",version="{version}",result="ok"}}'
        for result in ("ok", "unverified", "failed"):
            yield f'relayd_tls_handshakes_total{{direction="out",version="{version}",result="{result}"}}'
    for direction, result in (("in", "failed"), ("out", "failed"), ("out", "plain")):
        yield f'relayd_tls_handshakes_total{{direction="{direction}",version="",result="{result}"}}'
    yield from ("relayd_journal_errors_total", "relayd_log_lines_dropped_total", "relayd_suppressed_total",
                "relayd_greylist_wait_seconds_count")


def test_every_label_value_is_there_from_the_start(relayd, upstream):
    daemon = relayd(relayhost(upstream.port))
    samples = dict(line.rsplit(" ", 1) for line in daemon.scrape()[1].splitlines() if not line.startswith("#"))
    listener = daemon.addresses[0]
    assert [name for name in expected(listener) if samples.get(name) != "0"] == []
    assert samples['relayd_relayhost_up{relayhost="main"}'] == "1"
    assert samples["relayd_config_last_reload_successful"] == "1"
    for name in ("relayd_journal_bytes", "relayd_journal_free_bytes", "process_cpu_seconds_total",
                 "process_resident_memory_bytes", "process_virtual_memory_bytes", "process_open_fds", "process_max_fds",
                 "process_start_time_seconds", f'relayd_certificate_expiry_timestamp_seconds{{listener="{listener}"}}'):
        assert float(samples[name]) > 0, name
    (build,) = [name for name in samples if name.startswith("relayd_build_info")]
    assert re.fullmatch(r'relayd_build_info\{version="[0-9.]+",revision="[0-9a-z]+",gnutls="[0-9.]+"\}', build)


def test_promtool_and_no_address_in_any_label(relayd, upstream):
    daemon = relayd(relayhost(upstream.port))
    promtool(daemon.scrape()[1])
    with daemon.smtp() as client:
        client.send_message(message(sender="a-sender@example.org", to="a-recipient@example.net"))
    upstream.get()
    daemon.wait_log("event=delivered")
    text = daemon.scrape()[1]
    promtool(text)
    assert "example" not in text.replace("relay.example.org", "")
    listener = daemon.addresses[0]
    assert daemon.metric(f'relayd_submissions_total{{listener="{listener}",user="app",result="accepted"}}') == 1
    assert daemon.metric(f'relayd_submissions_total{{listener="{listener}",user="app",result="rejected"}}') == 0
    for phase in ("dns", "connect", "auth", "envelope", "data"):
        assert daemon.metric(f'relayd_attempt_duration_seconds_count{{phase="{phase}"}}') == 1, phase

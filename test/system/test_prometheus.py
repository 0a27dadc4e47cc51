"""contrib/prometheus and contrib/grafana in the real programs: Prometheus scrapes relayd, a shipped rule fires, and
Alertmanager mails it through relayd."""
import http.client
import json
import re
import subprocess
import time
import urllib.parse

import pytest

from conftest import PATIENCE, ROOT, message, relayhost, users_line
from peers import free_port, make_certificate

CONTRIB = ROOT / "contrib"


def run(*command, cwd=None):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_rules_and_examples_are_good():
    folder = CONTRIB / "prometheus"
    run("promtool", "check", "rules", "relayd.rules.yml", cwd=folder)
    run("promtool", "test", "rules", "relayd.rules.test.yml", cwd=folder)
    run("promtool", "check", "config", "prometheus.yml", cwd=folder)
    run("amtool", "check-config", "alertmanager.yml", cwd=folder)


def dashboard_expressions():
    dashboard = json.loads((CONTRIB / "grafana" / "relayd.json").read_text())
    identities = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(identities)) == len(identities)
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], re.sub(r"label_values\((.*), \w+\)", r"\1", variable["query"]["query"])


def fill(expression):
    """What Grafana does to an expression before it asks."""
    return expression.replace("$__rate_interval", "1m").replace("$job", "relayd").replace("$instance", ".*")


def metric_names(text):
    return {name for name in re.findall(r"\b((?:relayd|process)_[a-z_]+)\b", text)}


class Server:
    """Prometheus or Alertmanager on a free port."""

    def __init__(self, *command, cwd, port):
        self.port = port
        self.log = open(cwd / f"{command[0]}.log", "w+")
        self.process = subprocess.Popen(list(map(str, command)), cwd=cwd, stdout=self.log, stderr=subprocess.STDOUT)

    def get(self, path):
        """The answer as JSON, None while nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
            return json.loads(body) if response.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def wait(self, path, ready):
        """Asks until the answer will do; it comes by their clocks (a scrape a second), so there is no event to wait for."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.words()
            answer = self.get(path)
            if answer is not None and ready(answer):
                return answer
            time.sleep(0.1)
        raise AssertionError(f"{path}: {answer}\n{self.words()}")

    def words(self):
        self.log.seek(0)
        return self.log.read()[-3000:]

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


@pytest.fixture
def prometheus(folder):
    """(scraped address, Alertmanager's port) -> Prometheus with the shipped rules, looking every second."""
    running = []

    def start(target, alertmanager):
        port = free_port()
        config = {"global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                  "rule_files": [str(CONTRIB / "prometheus" / "relayd.rules.yml")],
                  "scrape_configs": [{"job_name": "relayd", "static_configs": [{"targets": [target]}]}],
                  "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager}"]}]}]}}
        (folder / "prometheus.yml").write_text(json.dumps(config))
        running.append(Server("prometheus", "--config.file=prometheus.yml", f"--web.listen-address=127.0.0.1:{port}",
                              "--storage.tsdb.path=tsdb", cwd=folder, port=port))
        return running[0]

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def alertmanager(folder):
    """Alertmanager that mails at once through the relayd at this SMTP port."""
    running = []

    def start(smtp_port):
        port = free_port()
        config = {"global": {"smtp_smarthost": f"localhost:{smtp_port}", "smtp_from": "alerts@example.org",
                             "smtp_auth_username": "alertmanager", "smtp_auth_password": "secret"},
                  "route": {"receiver": "people", "group_by": ["alertname"], "group_wait": "0s", "group_interval": "1s"},
                  "receivers": [{"name": "people", "email_configs": [
                      {"to": "ops@example.net", "tls_config": {"insecure_skip_verify": True}}]}]}
        (folder / "alertmanager.yml").write_text(json.dumps(config))
        running.append(Server("prometheus-alertmanager", "--config.file=alertmanager.yml", "--storage.path=alerts",
                              f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=", cwd=folder, port=port))
        return running[0]

    yield start
    for server in running:
        server.stop()


def test_an_alert_fires_and_its_mail_is_delivered(relayd, upstream, folder, prometheus, alertmanager):
    """The certificate expires in five days, which is a shipped rule."""
    certificate, key = make_certificate(folder, days=5)
    key.chmod(0o644)
    daemon = relayd(relayhost(upstream.port) + f"tls: {{certificate: {certificate}, key: {key}}}\n",
                    users=users_line("alertmanager") + users_line())
    with daemon.smtp() as client:
        client.send_message(message("ordinary"))
    upstream.get()
    manager = alertmanager(daemon.port)
    manager.wait("/api/v2/status", lambda answer: "versionInfo" in answer)
    server = prometheus(daemon.http, manager.port)
    server.wait("/api/v1/query?query=relayd_build_info", lambda answer: answer["data"]["result"])
    mail = upstream.get()
    assert mail.rcpt_tos == ["ops@example.net"] and mail.mail_from == "alerts@example.org"
    assert b"RelaydCertificate" in mail.data
    rules = server.get("/api/v1/rules")["data"]["groups"][0]["rules"]
    assert {rule["name"]: rule["state"] for rule in rules if rule["state"] != "inactive"} == {"RelaydCertificate": "firing"}
    assert [rule["lastError"] for rule in rules if rule.get("lastError")] == []

    # What the dashboard asks for is there.
    known = set(server.get("/api/v1/label/__name__/values")["data"])
    for title, expression in dashboard_expressions():
        assert metric_names(expression) <= known, title
        query = "/api/v1/query?query=" + urllib.parse.quote(fill(expression))
        assert server.get(query)["status"] == "success", (title, expression)
    for name in metric_names((CONTRIB / "prometheus" / "relayd.rules.yml").read_text()):
        assert name in known, name

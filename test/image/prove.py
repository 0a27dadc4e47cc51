"""Runs the image that dockerfile.py built as compose.yaml and README say, sends mail through it, and tells what holds.

    prove.py ROOTS SCRATCH

Exit 0 only if all of it is true.
"""
import email.policy
import email.utils
import http.client
import json
import logging
import re
import shlex
import shutil
import smtplib
import ssl
import sys
from email.message import EmailMessage
from pathlib import Path

import dkim
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "test" / "system"))
from dockerfile import instructions
from engine import APP, BOX, GATEWAY, NETWORK, PATIENCE, STRANGER, UPSTREAM, Bridge, Container, Image, make_volume, must, run
from peers import Upstream, server_context

SECRETS = {"app": "a long password for the app", "upstream": "the password at your provider"}


def say(text):
    print(f"  proved      {text}", flush=True)


def check(condition, text):
    if not condition:
        raise AssertionError(text)


def seconds(text):
    return float(re.fullmatch(r"(\d+)s", text)[1])


def readme_environment():
    """The variables of README's container section: its indented NAME=value words."""
    section = (ROOT / "README.md").read_text().split("### In a container", 1)[1].split("\n#", 1)[0]
    return dict(re.findall(r"(RELAYD_\w+)=(\S+)", section))


class Sample:
    """contrib/docker/compose.yaml."""

    def __init__(self, image):
        path = ROOT / "contrib/docker/compose.yaml"
        self.text = yaml.safe_load(path.read_text())
        self.relayd, self.app = self.text["services"]["relayd"], self.text["services"]["app"]
        self.environ, self.grace = self.relayd["environment"], seconds(self.relayd["stop_grace_period"])
        self.check(path, image)

    def check(self, path, image):
        build = self.relayd["build"]
        context = (path.parent / build["context"]).resolve()
        check(context == ROOT and (context / build["dockerfile"]).is_file(), f"compose.yaml: build: {build}")
        for service in (self.relayd, self.app):
            for name in service["secrets"]:
                check(name in self.text["secrets"], f"compose.yaml: secret {name} is not defined")
        for name, value in self.environ.items():
            if name.endswith("_FILE"):
                check(value.removeprefix("/run/secrets/") in self.relayd["secrets"], f"compose.yaml: {name}: {value}")
        (volume,) = self.relayd["volumes"]
        source, target = volume.split(":")
        check(source in self.text["volumes"] and [target] == image.metadata["volumes"], f"compose.yaml: volume {volume}")
        check(self.relayd["read_only"] is True, "compose.yaml: read_only")
        check(self.relayd["cap_drop"] == ["ALL"] and self.relayd["security_opt"] == ["no-new-privileges:true"],
              "compose.yaml: the rights that this test takes away are not taken away there")
        check("healthcheck" in image.metadata and self.app["depends_on"]["relayd"]["condition"] == "service_healthy",
              "compose.yaml: the app does not wait for the health check")
        check(self.grace > 10, "compose.yaml: stop_grace_period is not above relayd's stop_timeout of 10 s")

    def app_script(self):
        shell, option, script = self.app["command"]
        check((shell, option) == ("sh", "-c"), "compose.yaml: the app's command")
        return script.replace("$$", "$")


def mail(subject):
    text = EmailMessage()
    text["From"], text["To"], text["Subject"] = "app@example.com", "you@example.com", subject
    text["Message-ID"], text["Date"] = email.utils.make_msgid(domain="example.com"), email.utils.formatdate()
    text.set_content("It works.\n")
    return text


def connect(port, source=APP):
    return smtplib.SMTP(BOX, port, local_hostname="app.example.com", timeout=PATIENCE, source_address=(source, 0))


def login(client):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # relayd's certificate is its own
    client.starttls(context=context)
    client.login("app", SECRETS["app"])
    return client


def submit(client, subject):
    """The id of the 250."""
    text = mail(subject)
    client.mail(text["From"])
    client.rcpt(text["To"])
    code, reply = client.data(text.as_bytes(policy=email.policy.SMTP))
    match = re.match(rb"2\.0\.0 Ok: queued as (\w{13})$", reply)
    check(code == 250 and match, f"{code} {reply}")
    return match[1].decode()


def get(path):
    connection = http.client.HTTPConnection(BOX, 9587, timeout=PATIENCE)
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, body


def subject_of(received):
    return re.search(r"^Subject: (.*)$", received.head, re.M)[1].strip()


class Proof:
    def __init__(self, roots, scratch):
        self.roots, self.scratch = roots, scratch
        self.image = Image(roots / "image", json.loads((roots / "image.json").read_text()))
        self.sample = Sample(self.image)
        self.containers = []
        self.upstream_name, _, port = self.sample.environ["RELAYD_RELAYHOST"].partition(":")
        self.bridge = Bridge({self.upstream_name: UPSTREAM})
        context, certificate = server_context(scratch, name="upstream", names=(self.upstream_name,), ips=(UPSTREAM,))
        # What the image trusts, and the provider's certificate.
        self.trust = scratch / "ca-certificates.crt"
        self.trust.write_bytes((roots / "image/etc/ssl/certs/ca-certificates.crt").read_bytes() + certificate.read_bytes())
        self.upstream = Upstream(tls_context=context, require_tls=True, host=UPSTREAM, port=int(port),
                                 credentials=(self.sample.environ["RELAYD_RELAYHOST_USERNAME"], SECRETS["upstream"]))
        self.upstream.start()
        self.volume = make_volume(self.image, scratch, "relayd_spool")
        self.secrets = {}
        for name, value in SECRETS.items():
            self.secrets[name] = scratch / f"{name}.secret"
            self.secrets[name].write_text(value)

    def container(self, **options):
        options = {"environ": self.sample.environ, "secrets": self.secrets, "volume": self.volume, "trust": self.trust,
                   "hostname": self.sample.relayd["hostname"], **options}
        container = Container(self.image, self.scratch, **options)
        self.containers.append(container)
        return container

    def close(self):
        for container in self.containers:
            container.remove()
        self.upstream.stop()
        self.bridge.stop()

    # ---- What is in the image.

    def libraries(self):
        steps = instructions((ROOT / "contrib/docker/Dockerfile").read_text())
        install = [rest for word, rest in steps if word == "RUN" and "ca-certificates" in rest]
        packages = re.search(r"apt-get install ([^&]*)&&", install[-1])[1].split()
        packages = [word for word in packages if not word.startswith("-")]
        found = set()
        for program in ("/usr/sbin/relayd", "/usr/bin/relayctl"):
            listed = must("chroot", self.image.root, "ldd", program)
            check("not found" not in listed, listed)
            found.update(re.findall(r"(\S+) => ", listed))
        owners = must("chroot", self.image.root, "dpkg-query", "-W", "-f", "${Package}\\n").split()
        for package in packages:
            check(package in owners, f"{package} is not installed")
            if package != "ca-certificates":
                files = must("chroot", self.image.root, "dpkg-query", "-L", package)
                check(any(f"/{library}\n" in files for library in found), f"nothing needs {package}")
        size = int(must("du", "-sm", self.image.root).split()[0])
        say(f"the programs find all their {len(found)} libraries in the last stage, and each package named there is needed"
            f" (root: {size} MB)")

    # ---- Starts that must fail.

    def refused(self, codes, pattern, **options):
        """(exit code, the line that says why)"""
        container = self.container(**options).spawn()
        code, text = container.wait_exit()
        check(code in codes, f"exit {code}, not {codes}")
        line = next((line for line in text.splitlines() if re.search(pattern, line)), None)
        check(line, f"no line {pattern!r}")
        container.remove()
        return f"exit {code}, {line!r}"

    def refusals(self):
        self.refused([73], "overlay.*would be lost", volume=None)
        anonymous = make_volume(self.image, self.scratch, "0123456789abcdef" * 4)
        why = self.refused([73], "anonymous volume.*would be lost", volume=anonymous)
        say(f"a spool without a volume, or on an anonymous one, is refused: {why}")
        why = self.refused([78], "users", environ={}, secrets={})
        say(f"no configuration at all is refused: {why}")
        private = self.scratch / "private.secret"
        private.write_text("x")
        private.chmod(0o600)
        why = self.refused([77, 78], "/run/secrets/app", secrets={**self.secrets, "app": private})
        say(f"a secret that the user cannot read is refused: {why}")
        self.bridge.privileged_ports_below(1024)
        why = self.refused([71, 77], r"0\.0\.0\.0:587")
        self.bridge.privileged_ports_below(0)
        say(f"under an engine that keeps the ports below 1024 for root: {why}")

    # ---- As compose.yaml starts it.

    def compose(self):
        checked = self.container(command=[*self.image.metadata["entrypoint"], "-t"]).spawn()
        code, text = checked.wait_exit()
        check(code == 0, text)
        box = self.container().start()
        addresses = {m[1] for m in box.wait_log(r"event=listening .*address=(\S+:\d+)")}
        check(addresses == {f"0.0.0.0:{port}" for port in self.image.metadata["ports"]}, f"listens on {addresses}")
        say(f"with compose.yaml's environment and secrets it starts, and listens on the ports of EXPOSE: {sorted(addresses)}")
        self.rights(box)
        self.health(box)
        self.app()
        self.submission()
        self.metrics()
        return box

    def rights(self, box):
        names, processes = [], list(map(int, box.exec("sh", "-c", "echo /proc/[0-9]*").stdout.replace("/proc/", "").split()))
        for pid in [box.pid, *self.children(box.pid)]:
            status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
            check(set(status["Uid"].split()) == {str(self.image.uid)} and set(status["Gid"].split()) == {str(self.image.gid)},
                  f"{status['Name']} runs as {status['Uid']}")
            check(int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0, f"{status['Name']} has capabilities")
            names.append(status["NSpid"].split()[-1])
        check(names[0] == "1" and 1 in processes, "relayd is not process 1")
        for path in ("/", "/etc", "/usr/sbin", "/run"):
            done = box.exec("touch", f"{path}/written", user=False)
            check("Read-only file system" in done.stderr, f"{path}: {done.stderr}")
        say(f"relayd is process 1; it and its {len(names) - 1} helpers are user {self.image.user} ({self.image.uid}) without any"
            " capability; the root file system is read-only, even for root")

    @staticmethod
    def children(pid):
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

    def health(self, box):
        command = self.image.metadata["healthcheck"]["command"]
        done = box.exec("timeout", self.image.metadata["healthcheck"]["timeout"], *command)
        check(done.returncode == 0, f"{command}: exit {done.returncode} {done.stdout}{done.stderr}")
        say(f"the HEALTHCHECK command, {shlex.join(command)}, in the container as its user: exit 0, {done.stdout.strip()!r}")

    def app(self):
        """The app of compose.yaml, from the bridge; its apt-get is put aside, curl is this machine's."""
        folder = self.scratch / "app"
        folder.mkdir()
        (folder / "apt-get").write_text("#!/bin/sh\n")
        (folder / "apt-get").chmod(0o755)
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{BOX} relayd\n")
        Path("/run/secrets").mkdir(exist_ok=True)
        shutil.copy(self.secrets["app"], "/run/secrets/app")
        must("unshare", "--mount", "--propagation", "private", "sh", "-euc",
             f"mount --bind {folder}/hosts /etc/hosts; PATH={folder}:$PATH exec sh -c \"$1\"", "sh", self.sample.app_script())
        got = self.upstream.get()
        check(subject_of(got) == "hello from compose" and got.tls and got.login == self.upstream.credentials[0] and
              got.helo == self.sample.environ["RELAYD_HOSTNAME"], got.head)
        say("compose.yaml's app (curl, STARTTLS, AUTH) is delivered to its relayhost, found by the resolver at 127.0.0.11, over"
            f" TLS verified with the image's trust store, logged in as {got.login}, EHLO {got.helo}")

    def submission(self):
        with connect(587) as client:
            code, reply = client.docmd("MAIL FROM:<app@example.com>")
            check(code == 530 and b"5.7.0" in reply, f"587 without TLS: {code} {reply}")
            check(not client.has_extn("auth"), "587 offers AUTH without TLS")
        with connect(587) as client:
            try:
                client.starttls(context=ssl._create_unverified_context())
                client.login("app", "wrong")
                raise AssertionError("587 took a wrong password")
            except smtplib.SMTPAuthenticationError as error:
                check(error.smtp_code == 535, str(error))
        with connect(587, STRANGER) as client:
            identity = submit(login(client), "through 587")
        check(subject_of(self.upstream.get()) == "through 587", "another message")
        say(f"port 587: 530 without STARTTLS, 535 for a wrong password, and delivered with STARTTLS and AUTH ({identity})")
        for source in (APP, GATEWAY, STRANGER):
            self.is_refused(2525, source)
        say("port 2525 without RELAYD_TRUSTED: 530 for everybody")

    @staticmethod
    def is_refused(port, source):
        with connect(port, source) as client:
            client.ehlo()
            code, reply = client.mail("app@example.com")
            check(code == 530, f"{port} from {source}: {code} {reply}")

    def metrics(self):
        status, text = get("/metrics")
        wanted = r'^relayd_delivery_attempts_total{relayhost="main".*outcome="delivered".*} (\d+)$'
        count = re.search(wanted, text, re.M)
        check(status == 200 and count and int(count[1]) == 2, f"/metrics: {status}\n{text}")
        for path in ("/livez", "/healthz", "/readyz", "/mailz"):
            check(get(path)[0] == 200, path)
        check(get("/v1/status")[0] == 404, "control on TCP")
        say(f"port 9587: {count[0]}; /livez /healthz /readyz /mailz 200, no control")

    # ---- The queue outlives the container.

    def restart(self, box):
        self.upstream.stop()
        client = login(connect(587))
        waiting = {submit(client, f"waits {i}"): f"waits {i}" for i in range(3)}
        box.wait_log("event=deferred", count=3)
        code, took = box.stop(self.sample.grace)  # the client is still there
        told = client.getreply()
        client.close()
        check(code == 0 and told[0] == 421, f"exit {code}, the client was told {told}")
        say(f"{self.image.metadata['stop_signal']} with mail waiting and a client connected, who is told {told[0]}: exit 0 after"
            f" {took:.1f} s (grace period {self.sample.grace:.0f} s)")
        box.remove()
        box = self.container().start()
        queued = {row["id"]: row["state"] for row in json.loads(box.exec("relayctl", "--json", "queue").stdout)}
        check(queued.keys() == waiting.keys(), f"{queued} instead of {waiting}")
        with connect(587) as client:
            identity = submit(login(client), "waits for the second")
            waiting[identity] = "waits for the second"
        box.kill()
        box.remove()
        box = self.container().start()
        self.upstream.start()
        check(box.exec("relayctl", "flush").returncode == 0, "relayctl flush")
        arrived = sorted(subject_of(got) for got in self.upstream.get_many(len(waiting)))
        check(arrived == sorted(waiting.values()), f"{arrived} instead of {waiting}")
        for identity in waiting:
            box.wait_log(f"event=delivered id={identity}")
        queue = box.exec("relayctl", "--json", "queue").stdout
        check(json.loads(queue) == [] and box.stop(self.sample.grace)[0] == 0, f"the queue: {queue}")
        check(self.upstream.messages.empty(), "one arrived twice")
        say(f"a new container on the same volume, after {self.image.metadata['stop_signal']} and after SIGKILL, has the queue:"
            f" all {len(waiting)} waiting messages arrive, each once, under their ids")
        box.remove()

    # ---- README's environment, and trusted networks.

    def dkim_key(self):
        """Made by the image itself; (path, DNS record)."""
        maker = self.container(environ={}, secrets={}, command=["relayctl", "dkim", "keygen", "example.com", "default", "--out",
                                                                "/var/spool/relayd/dkim.pem"]).spawn()
        code, record = maker.wait_exit()
        check(code == 0, record)
        return self.volume / "dkim.pem", re.search(r"p=[A-Za-z0-9+/=]+", re.sub(r'"\s*"', "", record))[0]

    def readme(self):
        environ = readme_environment()
        key, record = self.dkim_key()
        self.upstream.credentials = (environ["RELAYD_RELAYHOST_USERNAME"], SECRETS["upstream"])
        box = self.container(environ={**environ, "RELAYD_TRUSTED": NETWORK}, secrets={**self.secrets, "dkim": key}).start()
        with connect(2525, APP) as client:
            client.ehlo()
            identity = submit(client, "through 2525")
        got = self.upstream.get()
        verified = dkim.verify(got.data, dnsfunc=lambda name, timeout=5: f"v=DKIM1; k=rsa; {record}".encode())
        check(subject_of(got) == "through 2525" and got.login == environ["RELAYD_RELAYHOST_USERNAME"] and verified, got.head)
        for source in (STRANGER, GATEWAY):
            self.is_refused(2525, source)
        say(f"with README's environment and RELAYD_TRUSTED={NETWORK}: port 2525 takes mail from {APP} without TLS and AUTH"
            f" ({identity}), signed for {environ['RELAYD_DKIM_DOMAIN']} (verified by dkimpy) and delivered; {STRANGER} and the"
            f" gateway {GATEWAY} get 530")
        check(box.stop(self.sample.grace)[0] == 0, "exit")
        box.remove()

    def all(self):
        self.libraries()
        self.refusals()
        self.restart(self.compose())
        self.readme()


def main():
    logging.disable(logging.WARNING)  # aiosmtpd's, about itself
    proof = Proof(*map(Path, sys.argv[1:]))
    try:
        proof.all()
    except Exception:
        for container in proof.containers[-1:]:
            print("\n".join(["  the last container's log:", *container.lines[-40:]]), file=sys.stderr)
        raise
    finally:
        proof.close()


main()

"""contrib/kubernetes: what kustomize makes of it fits together, and relayd runs with exactly the configuration, environment
and secrets that it would find in the pod, and takes over secrets that the kubelet has exchanged."""
import base64
import re
import shutil
import subprocess

import pytest
import yaml

from conftest import FAST_RETRY, ROOT, Relayd, message, service_user, users_line

FOLDER = ROOT / "contrib" / "kubernetes"
SECRETS, CONFIG, SPOOL = "/run/secrets/relayd", "/etc/relayd", "/var/spool/relayd"


@pytest.fixture(scope="module")
def objects():
    """(kind, name) -> object, of the example."""
    done = subprocess.run(["kubectl", "kustomize", FOLDER / "example"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {(o["kind"], o["metadata"]["name"]): o for o in yaml.safe_load_all(done.stdout)}
    assert all(o["metadata"]["namespace"] == "mail" for o in found.values())
    return found


@pytest.fixture(scope="module")
def pod(objects):
    return objects["StatefulSet", "relayd"]["spec"]["template"]["spec"]


def data_of(objects, kind):
    data = objects[kind, "relayd"]["data"]
    return {name: base64.b64decode(text).decode() if kind == "Secret" else text for name, text in data.items()}


def test_the_objects_fit_together(objects, pod):
    stateful = objects["StatefulSet", "relayd"]["spec"]
    labels = stateful["template"]["metadata"]["labels"]
    assert stateful["selector"]["matchLabels"].items() <= labels.items()
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for (kind, name), service in objects.items():
        if kind != "Service":
            continue
        assert service["spec"]["selector"].items() <= labels.items()
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports.keys()
    assert objects["Service", stateful["serviceName"]]["spec"]["clusterIP"] == "None"
    assert objects["PodDisruptionBudget", "relayd"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    volumes = {v["name"]: v for v in pod["volumes"]} | {v["metadata"]["name"]: v for v in stateful["volumeClaimTemplates"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert mounts[SPOOL]["spec"]["accessModes"] == ["ReadWriteOnce"], "the spool is a claim, never an emptyDir"
    assert ("ConfigMap", mounts[CONFIG]["configMap"]["name"]) in objects
    assert ("Secret", mounts[SECRETS]["secret"]["secretName"]) in objects
    assert stateful["template"]["metadata"]["annotations"]["prometheus.io/port"] == str(ports["http"])
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in ports
        assert container[probe]["httpGet"]["path"] in ("/livez", "/readyz")


def test_it_needs_no_right_that_it_does_not_have(pod):
    dockerfile = (ROOT / "contrib" / "docker" / "Dockerfile").read_text()
    uid = int(re.search(r"--uid (\d+)", dockerfile).group(1))
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == uid
    assert pod["securityContext"]["runAsNonRoot"] and "hostNetwork" not in pod
    (container,) = pod["containers"]
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                            "capabilities": {"drop": ["ALL"]}}
    assert all(port["containerPort"] > 1023 for port in container["ports"])
    assert pod["terminationGracePeriodSeconds"] > 10  # stop_timeout


class Mounted:
    """A volume as the kubelet makes it: links into a hidden folder that is exchanged as a whole."""

    def __init__(self, path):
        self.path, self.turn = path, 0
        path.mkdir()

    def put(self, files):
        self.turn += 1
        fresh = self.path / f"..turn_{self.turn}"
        fresh.mkdir()
        for name, text in files.items():
            (fresh / name).write_text(text)
            (fresh / name).chmod(0o644)
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")
        (self.path / "..data_tmp").symlink_to(fresh.name)
        (self.path / "..data_tmp").rename(self.path / "..data")
        if self.turn > 1:
            shutil.rmtree(self.path / f"..turn_{self.turn - 1}")


@pytest.fixture
def in_pod(objects, pod, folder, upstream):
    """relayd with what the pod has: the image's environment, the container's above it, the mounted files."""
    dockerfile = (ROOT / "contrib" / "docker" / "Dockerfile").read_text().replace("\\\n", " ")
    environ = dict(re.findall(r'(RELAYD_\w+)="([^"]*)"', re.search(r"^ENV (.*)$", dockerfile, re.M).group(1)))
    environ |= {e["name"]: e["value"] for e in pod["containers"][0]["env"]}
    assert set(environ) == {"RELAYD_LISTEN", "RELAYD_HTTP"}
    environ |= {name: re.sub(r"0\.0\.0\.0:\d+", "127.0.0.1:0", value) for name, value in environ.items()}
    secrets, config = Mounted(folder / "secrets"), Mounted(folder / "etc")
    key = subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519"], check=True, capture_output=True, text=True).stdout
    files = data_of(objects, "Secret") | {"dkim": key, "users": users_line()}
    secrets.put(files)
    text = data_of(objects, "ConfigMap")["relayd.yaml"]
    assert set(re.findall(SECRETS + r"/(\w+)", text)) == set(files), "every secret that is named is generated, and used"
    text = text.replace(SECRETS, str(secrets.path))
    text = text.replace("smtp.example.net:587", f"127.0.0.1:{upstream.port}").replace("{format: json}", "{format: text}")
    text += f"spool: {folder / 'spool'}\nephemeral_spool: allow\n" + FAST_RETRY
    if service_user():
        text += f"user: {service_user()}\n"
    config.put({"relayd.yaml": text})
    daemon = Relayd(folder, None, environ | {"RELAYD_CONFIG": str(config.path / "relayd.yaml")})
    daemon.secrets, daemon.files = secrets, files
    daemon.start()
    yield daemon
    assert daemon.stop() == 0


def test_relayd_runs_with_it(in_pod, pod):
    (container,) = pod["containers"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert in_pod.scrape(container[probe]["httpGet"]["path"])[0] == 200
    with in_pod.smtp() as client:
        client.send_message(message(sender="app@example.com"))
    in_pod.wait_log("event=accepted")


def test_secrets_that_the_kubelet_exchanges_are_taken_over(in_pod):
    in_pod.secrets.put(in_pod.files | {"users": users_line(password="rotated")})
    in_pod.wait_log("event=reloaded")
    in_pod.smtp(password="rotated").quit()


def test_what_is_in_the_example_says_what_to_put_there(objects):
    """Nobody runs with a secret that everybody knows."""
    secrets = data_of(objects, "Secret")
    assert "relayctl user add" in secrets["users"] and "relayctl dkim keygen" in secrets["dkim"]
    assert "$b2$" + "A" * 43 + "=" in secrets["users"]

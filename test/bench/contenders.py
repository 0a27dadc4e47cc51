"""The relays that are compared, each as a private instance below one folder: own configuration, queue and log.

A contender knows: start(), submit (ADDR:PORT), roots (pids whose families are the contender), flush() (attempt all that
waits now), kill() (SIGKILL to every process at once), stop(). All take mail from loopback without TLS and AUTH and send
everything to the given next hops.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time

import postfix
from meters import family

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
DOMAIN = "app.example.org"  # of the From field that load.c writes


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def is_listening(address):
    """Without connecting: an idle relay is to stay as it is."""
    port = f":{int(address.rsplit(':', 1)[1]):04X}"
    with open("/proc/net/tcp") as f:
        return any(line.split()[1].endswith(port) and line.split()[3] == "0A" for line in f if ":" in line)


def wait_until_listening(relay, process, program):
    until = time.monotonic() + 30
    while not is_listening(relay.submit):
        if process.poll() is not None:
            raise SystemExit(f"{program} ended with status {process.returncode}: {relay.log_tail(program)}")
        if time.monotonic() > until:
            raise SystemExit(f"{program} does not listen on {relay.submit}: {relay.log_tail(program)}")
        time.sleep(0.02)


def make_key(path, algorithm):
    options = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"] if algorithm == "rsa" else \
        ["-algorithm", "ED25519"]
    subprocess.run(["openssl", "genpkey", *options, "-out", path], check=True, capture_output=True)
    os.chmod(path, 0o600)


def end(process, patience=20):
    if process is None:
        return
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Contender:
    signings = ()
    per_destination = 20  # connections at a time
    many_destinations = {}  # limits that are better for many destinations, of which some are slow

    def __init__(self, folder, next_hops, signing="none", **limits):
        """next_hops: recipient domain -> ADDR:PORT; "" is the default. limits: of the class, when others here."""
        self.folder, self.next_hops, self.signing = folder, next_hops, signing
        self.__dict__.update(limits)
        self.processes = []
        self.submit = f"127.0.0.1:{free_port()}"
        os.makedirs(folder, mode=0o755)
        self.configure()

    def spawn(self, command, **more):
        log = open(f"{self.folder}/{os.path.basename(command[0])}.log", "ab")
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **more)
        log.close()
        self.processes.append(process)
        return process

    def log_tail(self, name):
        with open(f"{self.folder}/{name}.log", errors="replace") as f:
            return f.read()[-1000:]

    @property
    def roots(self):
        return [process.pid for process in self.processes]

    def kill(self):
        pids = [pid for root in self.roots for pid in family(root)]
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for process in self.processes:
            process.wait()
        while any(os.path.exists(f"/proc/{pid}") for pid in pids):
            time.sleep(0.01)
        self.processes = []

    def stop(self):
        for process in reversed(self.processes):
            end(process)
        self.processes = []

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)


SETTINGS = {
    "command_directory": "/usr/sbin",
    "sendmail_path": "/usr/sbin/sendmail",
    "mailq_path": "/usr/bin/mailq",
    "newaliases_path": "/usr/bin/newaliases",
    "myhostname": "relay.example.org",
    "mynetworks": "127.0.0.0/8",
    "smtpd_relay_restrictions": "permit_mynetworks, reject",
    "smtp_dns_support_level": "disabled",
    "smtp_host_lookup": "native",
    "smtp_tls_security_level": "none",
    "smtpd_tls_security_level": "none",
    "in_flow_delay": 0,
    "default_process_limit": 200,
    "default_destination_concurrency_failed_cohort_limit": 100,
    "smtpd_client_connection_count_limit": 0,
    "smtpd_client_connection_rate_limit": 0,
    "smtpd_client_message_rate_limit": 0,
    "smtpd_client_recipient_rate_limit": 0,
    "qmgr_message_active_limit": 40000,
    "qmgr_message_recipient_limit": 40000,
    "default_recipient_limit": 40000,
}

SERVICES = """\
{listen} inet n - n - 200 smtpd
pickup unix n - n 60 1 pickup
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxywrite unix - - n - 1 proxymap
smtp unix - - n - 200 smtp
relay unix - - n - 200 smtp
showq unix n - n - - showq
discard unix - - n - - discard
scache unix - - n - 1 scache
"""

OPENDKIM_CONF = """\
Socket local:{folder}/milter/sock
UserID postfix
UMask 000
Mode s
Domain {domain}
Selector s1
KeyFile {folder}/rsa.pem
Canonicalization relaxed/relaxed
SignatureAlgorithm rsa-sha256
InternalHosts 127.0.0.0/8
RequireSafeKeys no
Syslog no
"""


class Postfix(Contender):
    """Debian's Postfix, tuned: no chroot, no flow delay, as many processes and connections as are useful; logs to a file.
    Signs rsa-2048 through OpenDKIM, a milter on a unix socket."""

    name = "Postfix"
    signings = ("none", "rsa")
    per_destination = 100
    initial = 20
    many_destinations = {"initial": 5}  # its default: with 20 ten tarpits hold all 200 processes

    @staticmethod
    def programs():
        return ["/usr/lib/postfix/sbin/master", "/usr/sbin/opendkim"]

    def configure(self):
        if os.geteuid() != 0:
            raise SystemExit("Postfix needs root to be started")
        folder = self.folder
        account = pwd.getpwnam("postfix")
        transports = ", ".join(f"{{ {domain} = smtp:{self._hop(hop)} }}" for domain, hop in self.next_hops.items()
                               if domain)
        own = {"maillog_file": f"{folder}/maillog",
               "maillog_file_prefixes": folder,
               "relayhost": self._hop(self.next_hops[""]),
               "transport_maps": f"inline:{{ {transports} }}" if transports else "",
               "initial_destination_concurrency": self.initial,
               "default_destination_concurrency_limit": self.per_destination}
        if self.signing == "rsa":
            make_key(f"{folder}/rsa.pem", "rsa")
            os.mkdir(f"{folder}/milter", 0o700)
            os.chown(f"{folder}/rsa.pem", account.pw_uid, -1)
            os.chown(f"{folder}/milter", account.pw_uid, -1)
            with open(f"{folder}/opendkim.conf", "w") as f:
                f.write(OPENDKIM_CONF.format(folder=folder, domain=DOMAIN))
            own |= {"smtpd_milters": f"unix:{folder}/milter/sock", "milter_default_action": "tempfail"}
        postfix.lay_out(folder, {**SETTINGS, **own}, SERVICES.format(listen=self.submit))

    @staticmethod
    def _hop(address):
        host, port = address.rsplit(":", 1)
        return f"[{host}]:{port}"

    def start(self):
        if self.signing == "rsa":
            milter = self.spawn(["/usr/sbin/opendkim", "-f", "-x", f"{self.folder}/opendkim.conf"])
            while not os.path.exists(f"{self.folder}/milter/sock"):
                if milter.poll() is not None:
                    raise SystemExit(f"OpenDKIM does not start: {self.log_tail('opendkim')}")
                time.sleep(0.05)
        check = subprocess.run(["/usr/sbin/postfix", "-c", f"{self.folder}/etc", "check"], capture_output=True, text=True)
        if check.returncode:
            raise SystemExit(f"postfix check: {check.stderr or check.stdout or self.maillog()}")
        process = self.spawn(["/usr/lib/postfix/sbin/master", "-c", f"{self.folder}/etc", "-s"])
        wait_until_listening(self, process, "master")

    def maillog(self):
        with open(f"{self.folder}/maillog", errors="replace") as f:
            return f.read()[-1000:]

    def kill(self):
        super().kill()
        # postsuper, which tidies up at the next start, drops its rights and logs here while postlogd is away.
        os.chmod(f"{self.folder}/maillog", 0o666)
        # A hard kill of the machine would have taken the lock with it.
        try:
            os.unlink(f"{self.folder}/queue/pid/master.pid")
        except FileNotFoundError:
            pass

    def flush(self):
        subprocess.run(["/usr/sbin/postqueue", "-c", f"{self.folder}/etc", "-f"], check=True)


RELAYD_YAML = """\
hostname: relay.example.org
spool: {folder}/spool
{user}
users: {folder}/users
listen:
  - {{address: "{submit}", tls: "off", auth: optional, trusted: [127.0.0.0/8]}}
http: "{http}"
limits: {{connections: 2000, connections_per_address: 2000, messages_per_connection: 1000000}}
dkim:
  unsigned: {unsigned}
{keys}
relayhosts:
{relayhosts}
routes: {routes}
delivery: {{allow_loopback: true, connections: 200, per_destination: {per_destination}}}
"""


class Relayd(Contender):
    """relayd as it comes: two helpers, sync after each batch."""

    name = "relayd"
    signings = ("none", "ed25519", "rsa")
    build = os.environ.get("B", "build/release")

    def configure(self):
        folder = self.folder
        self.http = f"127.0.0.1:{free_port()}"
        keys = "  domains: {}"
        if self.signing != "none":
            make_key(f"{folder}/key.pem", self.signing)
            keys = f"  domains:\n    {DOMAIN}: {{s1: {folder}/key.pem}}"
        user = ""
        if os.geteuid() == 0:
            account = pwd.getpwnam("nobody")
            user = "user: nobody"
            if self.signing != "none":
                os.chown(f"{folder}/key.pem", account.pw_uid, -1)
        open(f"{folder}/users", "w").close()
        os.chmod(f"{folder}/users", 0o644)
        relayhosts, routes = "", []
        for domain, hop in self.next_hops.items():
            name = f"to-{domain.replace('.', '-') or 'sink'}"
            relayhosts += f"  {name}: {{address: \"{hop}\", tls: none, auth: none, default: {str(not domain).lower()}}}\n"
            if domain:
                routes.append(f"{{name: {name}, to: [\"{domain}\"], via: [{name}]}}")
        with open(f"{folder}/relayd.yaml", "w") as f:
            f.write(RELAYD_YAML.format(folder=folder, user=user, submit=self.submit, http=self.http,
                                       unsigned="allow" if self.signing == "none" else "refuse", keys=keys,
                                       relayhosts=relayhosts, per_destination=self.per_destination,
                                       routes=f"[{', '.join(routes)}]"))

    @classmethod
    def program(cls, name):
        return os.path.join(ROOT, cls.build, name, name)

    @classmethod
    def programs(cls):
        return [cls.program("relayd"), cls.program("relayctl")]

    def start(self):
        process = self.spawn([self.program("relayd"), "-c", f"{self.folder}/relayd.yaml"])
        wait_until_listening(self, process, "relayd")

    def flush(self):
        subprocess.run([self.program("relayctl"), "-c", f"{self.folder}/relayd.yaml", "flush"], check=False,
                       capture_output=True)


CONTENDERS = {"relayd": Relayd, "postfix": Postfix}

"""The HTTP listener and the control socket against clients without manners; mail goes on meanwhile."""
import concurrent.futures
import os
import re
import socket
import time

from conftest import PATIENCE, relayhost
from wire import Wire


def connect(daemon, path=None):
    if path:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        return sock
    host, port = daemon.http.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=PATIENCE)


def statuses(answer):
    return [int(code) for code in re.findall(rb"(?m)^HTTP/1\.[01] (\d\d\d)", answer)]


def ask(daemon, request, path=None, patience=PATIENCE):
    """The first answer, or all that comes until the server closes, or until the patience is over: some requests look as if
    they went on."""
    sock, answer = connect(daemon, path), b""
    sock.settimeout(patience)
    try:
        sock.sendall(request)
        while statuses(answer) == [] and (data := sock.recv(65536)):
            answer += data
    except OSError:
        pass
    sock.close()
    return answer


GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
NONE = 0  # no answer, or none yet, will do too
REQUESTS = {
    "long line": (b"GET /" + b"x" * 65536 + b" HTTP/1.1\r\nHost: x\r\n\r\n", {400, 404, 413, 414, 431}),
    "long field": (GET + b"X: " + b"y" * 1000000 + b"\r\n\r\n", {NONE, 400, 413, 431}),
    "many fields": (GET + b"X: y\r\n" * 100000 + b"\r\n", {NONE, 400, 413, 431}),
    "post": (b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", {405}),
    "large body": (b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 500000, {NONE, 405, 413}),
    "dots": (b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", {400, 404}),
    "escaped": (b"GET /%2e%2e/%00metrics%0d%0a HTTP/1.1\r\nHost: x\r\n\r\n", {400, 404}),
    "nul": (b"GET /li\0vez HTTP/1.1\r\nHost: x\r\n\r\n", {400, 404}),
    "0.9": (b"GET /livez\r\n\r\n", {NONE, 400}),
    "two lengths": (b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400, 405}),
    "garbage": (os.urandom(3000), {NONE, 400, 505}), "tls": (b"\x16\x03\x01\x02\x00\x01\x00" + b"\0" * 100, {NONE, 400}),
    "smtp": (b"EHLO x\r\nMAIL FROM:<a@b>\r\nDATA\r\n", {NONE, 400, 505}),
}


def test_odd_requests(relayd):
    """K9: refused or closed, and nothing of what came is shown."""
    daemon = relayd()
    for name, (request, codes) in REQUESTS.items():
        found = statuses(ask(daemon, request, patience=0.5 if NONE in codes else PATIENCE)) or [NONE]
        assert len(found) == 1 and found[0] in codes, (name, found)
        assert daemon.scrape("/livez")[0] == 200, name
    with connect(daemon) as sock:
        sock.sendall((GET + b"\r\n") * 50)
        answer = b""
        while len(statuses(answer)) < 50 and (data := sock.recv(65536)):
            answer += data
    assert statuses(answer) == [200] * 50
    labels = set(re.findall(r'(\w+)="', daemon.scrape()[1]))
    assert labels and not {"path", "url", "client", "address", "ip"} & labels


def test_a_crowd_of_slow_requests_holds_no_probe_up_for_long(relayd, upstream):
    """K9: 300 that never end their request; scrapes of 100 at once; mail meanwhile."""
    daemon = relayd(relayhost(upstream.port))
    slow = [connect(daemon) for _ in range(300)]
    for sock in slow:
        sock.sendall(b"GET /metr")
    assert daemon.scrape("/livez")[0] == 200
    with Wire(daemon.port).ready() as client:
        assert client.message().code == 250
    with concurrent.futures.ThreadPoolExecutor(100) as pool:
        assert list(pool.map(lambda _: daemon.scrape()[0], range(100))) == [200] * 100
    for sock in slow:
        sock.close()
    upstream.get()


def test_the_control_socket_bears_a_crowd_and_nonsense(relayd, upstream):
    """K7: long lines, NUL, large bodies, a crowd that never reads."""
    daemon = relayd(relayhost(upstream.port))
    path = daemon.spool / "control.sock"
    nonsense = [b"GET /v1/" + b"x" * 4000000, b"GET /v1/stat\0us HTTP/1.1\r\nHost: x\r\n\r\n",
                b"POST /v1/hold HTTP/1.1\r\nHost: x\r\nContent-Length: 300\r\n\r\n" + b"[" * 300, b"\0" * 10000]
    for request in nonsense:
        assert 200 not in statuses(ask(daemon, request, path, patience=0.5))
        assert daemon.json("status")
    with connect(daemon, path) as endless:
        endless.sendall(b"POST /v1/hold HTTP/1.1\r\nHost: x\r\nContent-Length: 90000000\r\n\r\n" + b"{" * 1000000)
        assert daemon.json("status")
    crowd = []
    for _ in range(300):
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            sock.connect(str(path))
            sock.send(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n" * 100)  # and never reads
        except OSError:
            pass
        crowd.append(sock)
    with Wire(daemon.port).ready() as client:
        assert client.message().code == 250
    begun = time.monotonic()
    while daemon.ctl("status", check=False).returncode != 0:
        assert time.monotonic() < begun + PATIENCE
    for sock in crowd:
        sock.close()
    upstream.get()
    assert daemon.json("status")

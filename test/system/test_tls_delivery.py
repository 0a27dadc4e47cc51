"""TLS of deliveries by MX: what a destination publishes in DNSSEC and by HTTPS, and what hostile hosts make of it."""
import ssl
import warnings

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP
from cryptography.x509.oid import ExtendedKeyUsageOID

from conftest import message, relayhost
from peers import Upstream
from secure_peers import Authority, PolicyServer, ScriptedMx, SignedDns, tlsa


@pytest.fixture
def authority(folder):
    return Authority(folder)


@pytest.fixture
def secure_dns(folder):
    server = SignedDns(folder / "dns")
    yield server
    server.stop()


RETRY = "retry: {tls: [1s], dns: [1s], default: [1s]}\n"


def by_mx(dns, port, ca_file=None, extra=""):
    """Deliveries by MX on loopback through the validating resolver."""
    trust = f", ca_file: {ca_file}" if ca_file else ""
    return (f"dns: {{servers: ['127.0.0.1:{dns.resolver_port}'], trust_ad: true}}\n"
            f"delivery: {{port: {port}, allow_loopback: true{trust}{extra}}}\n{RETRY}")


def send(daemon, to="user@dane.example", **options):
    with daemon.smtp() as client:
        client.send_message(message(to=to), **options)


ZONE = "@ MX 10 mx1\nmx1 A 127.0.0.2\n"


def start_dane(secure_dns, port, record, signed=True, tampered=(), name="dane.example", more=""):
    records = "".join(f"_{port}._tcp.mx1 TLSA {one}\n" for one in ([record] if isinstance(record, str) else record))
    secure_dns.start({name: ZONE + records + more}, signed=[name] if signed else [], tampered=tampered)


# ---- DANE (RFC 7672) ----

@pytest.mark.parametrize("usage,selector,matching", [(3, 1, 1), (3, 0, 2), (3, 1, 0)])
def test_dane_names_the_certificate(relayd, make_upstream, authority, secure_dns, usage, selector, matching):
    """An end-entity record is all it takes: neither authority, name nor date count."""
    issued = authority.issue("elsewhere.example", days=-5)
    server = make_upstream(host="127.0.0.2", tls_context=issued.context())
    start_dane(secure_dns, server.port, tlsa(issued.certificate, usage, selector, matching))
    daemon = relayd(by_mx(secure_dns, server.port))
    send(daemon)
    assert server.get().tls
    daemon.wait_log(r"event=delivered .*host=mx1\.dane\.example")
    assert daemon.metric('relayd_tls_handshakes_total{direction="out",version="TLSv1.3",result="ok"}') == 1


def test_dane_names_an_authority(relayd, make_upstream, authority, secure_dns):
    issued = authority.issue("mx1.dane.example")
    server = make_upstream(host="127.0.0.2", tls_context=issued.context())
    start_dane(secure_dns, server.port, tlsa(authority.certificate, 2, 0))
    daemon = relayd(by_mx(secure_dns, server.port))
    send(daemon)
    assert server.get().tls


def test_dane_authority_but_another_name(relayd, make_upstream, authority, secure_dns):
    issued = authority.issue("mx2.dane.example")
    server = make_upstream(host="127.0.0.2", tls_context=issued.context())
    start_dane(secure_dns, server.port, tlsa(authority.certificate, 2, 0))
    daemon = relayd(by_mx(secure_dns, server.port, authority.pem))
    send(daemon)
    daemon.wait_log(r"event=deferred .*class=tls")
    assert server.messages.empty()


def test_dane_wrong_certificate_defers(relayd, make_upstream, authority, secure_dns):
    """Trusted by an authority and for the right name, but not the one that DNS names."""
    issued, other = authority.issue("mx1.dane.example"), authority.issue("mx1.dane.example")
    server = make_upstream(host="127.0.0.2", tls_context=issued.context())
    start_dane(secure_dns, server.port, tlsa(other.certificate, 3))
    daemon = relayd(by_mx(secure_dns, server.port, authority.pem))
    send(daemon)
    assert "DANE: no TLSA record matches" in daemon.wait_log(r"event=deferred .*class=tls")[0]
    daemon.wait_log(r"event=deferred .*class=tls", count=2)
    assert server.messages.empty()


def test_dane_stripped_starttls_defers(relayd, make_upstream, authority, secure_dns):
    """G16: not in clear text."""
    server = make_upstream(host="127.0.0.2")
    start_dane(secure_dns, server.port, tlsa(authority.certificate, 3))
    daemon = relayd(by_mx(secure_dns, server.port))
    send(daemon)
    daemon.wait_log(r"event=deferred .*class=tls")
    assert server.messages.empty()


def test_dane_bogus_records_defer(relayd, make_upstream, authority, secure_dns):
    """H21: somebody has put another record into the signed zone: the resolver says SERVFAIL, and nothing goes there."""
    issued = authority.issue("mx1.dane.example")
    server = make_upstream(host="127.0.0.2", tls_context=issued.context())
    data = tlsa(issued.certificate, 3)
    digest = data.split()[-1].upper()
    start_dane(secure_dns, server.port, data, tampered=[(digest, "00" * 32)])
    daemon = relayd(by_mx(secure_dns, server.port))
    send(daemon)
    assert "TLSA records of mx1.dane.example cannot be had" in daemon.wait_log(r"event=deferred .*class=dns")[0]
    assert server.messages.empty() and server.sessions == 0


def test_dane_insecure_records_do_not_count(relayd, make_upstream, authority, secure_dns):
    """H21: without DNSSEC anybody could have written them."""
    issued = authority.issue("mx1.dane.example")
    server = make_upstream(host="127.0.0.2", tls_context=issued.context())
    start_dane(secure_dns, server.port, "3 1 1 " + "00" * 32, signed=False)
    daemon = relayd(by_mx(secure_dns, server.port))
    send(daemon)
    assert server.get().tls


@pytest.mark.parametrize("record", ["1 1 1 " + "00" * 32, "3 1 9 " + "00" * 32, "3 1 1 " + "00" * 31])
def test_dane_unusable_records_ask_for_encryption(relayd, make_upstream, authority, secure_dns, folder, record):
    """H21: nobody can be authenticated by them, but they say that there is TLS: encrypted, or not at all."""
    clear = make_upstream(host="127.0.0.2")
    start_dane(secure_dns, clear.port, record)
    daemon = relayd(by_mx(secure_dns, clear.port))
    send(daemon)
    daemon.wait_log(r"event=deferred .*class=tls")
    assert clear.messages.empty()
    clear.stop()
    issued = authority.issue("elsewhere.example")
    server = make_upstream(host="127.0.0.2", port=clear.port, tls_context=issued.context())
    assert server.get().tls


def test_dane_level_wants_records(relayd, make_upstream, authority, secure_dns):
    issued = authority.issue("mx1.plain.example")
    server = make_upstream(host="127.0.0.2", tls_context=issued.context())
    secure_dns.start({"dane.example": ZONE + f"_{server.port}._tcp.mx1 TLSA {tlsa(issued.certificate, 3)}\n",
                      "plain.example": ZONE}, signed=["dane.example"])
    daemon = relayd(by_mx(secure_dns, server.port, authority.pem) + "routes: [{via: [mx], tls: dane}]\n")
    send(daemon, to="user@plain.example")
    assert "has no TLSA records with DNSSEC" in daemon.wait_log(r"event=deferred .*class=tls")[0]
    send(daemon)
    assert server.get().rcpt_tos == ["user@dane.example"]


def test_dane_next_host_when_the_first_is_wrong(relayd, make_upstream, authority, secure_dns):
    issued, other = authority.issue("mx1.dane.example"), authority.issue("mx1.dane.example")
    wrong = make_upstream(host="127.0.0.2", tls_context=issued.context())
    right = make_upstream(host="127.0.0.3", port=wrong.port, tls_context=other.context())
    start_dane(secure_dns, wrong.port, tlsa(other.certificate, 3),
               more=f"@ MX 20 mx2\nmx2 A 127.0.0.3\n_{wrong.port}._tcp.mx2 TLSA {tlsa(other.certificate, 3)}\n")
    daemon = relayd(by_mx(secure_dns, wrong.port))
    send(daemon)
    assert right.get().tls
    assert wrong.messages.empty()


def test_dane_relayhost(relayd, make_upstream, authority, secure_dns):
    issued = authority.issue("elsewhere.example")
    server = make_upstream(host="127.0.0.2", tls_context=issued.context())
    start_dane(secure_dns, server.port, tlsa(issued.certificate, 3))
    daemon = relayd(by_mx(secure_dns, server.port) + relayhost(server.port, host="mx1.dane.example", tls="dane"))
    send(daemon, to="user@example.net")
    assert server.get().tls


# ---- REQUIRETLS (RFC 8689) ----

class RequireTlsSmtp(SMTP):
    """aiosmtpd does not know the parameter: it is noted, and taken away."""

    async def smtp_MAIL(self, arg):
        word = " REQUIRETLS"
        self.event_handler.required.append(arg.endswith(word))
        await super().smtp_MAIL(arg.removesuffix(word))


class RequireTlsUpstream(Upstream):
    """Offers REQUIRETLS under TLS; `required`: whether each MAIL had it."""

    def __init__(self, **options):
        super().__init__(**options)
        self.required = []

    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        session.host_name = hostname
        return responses[:-1] + ["250-REQUIRETLS"] + responses[-1:] if session.ssl else responses

    def start(self):
        outer = self

        class Started(Controller):
            def factory(self):
                return RequireTlsSmtp(outer, **self.SMTP_kwargs)

        self.controller = Started(self, hostname=self.host, port=self.port, **self.options)
        self.controller.start()


@pytest.fixture
def requiretls_mx(authority):
    """An MX that offers REQUIRETLS, and its certificate for these names."""
    started = []

    def start(*names, host="127.0.0.2"):
        issued = authority.issue(*names)
        started.append(RequireTlsUpstream(host=host, tls_context=issued.context()))
        started[-1].start()
        return started[-1], issued

    yield start
    for server in started:
        server.stop()


def test_requiretls_needs_an_authenticated_host(relayd, requiretls_mx, authority, secure_dns):
    """A good certificate for a name that plain DNS gave is not enough."""
    server, _ = requiretls_mx("mx1.plain.example")
    secure_dns.start({"plain.example": ZONE})
    daemon = relayd(by_mx(secure_dns, server.port, authority.pem))
    send(daemon, to="user@plain.example", mail_options=["REQUIRETLS"])
    assert "REQUIRETLS" in daemon.wait_log(r"event=failed .*rcpt=user@plain.example .*class=tls")[0]
    send(daemon, to="user@plain.example")
    server.get()
    assert server.required == [False] and server.messages.empty()


def test_requiretls_is_passed_on(relayd, requiretls_mx, secure_dns):
    server, issued = requiretls_mx("mx1.dane.example")
    start_dane(secure_dns, server.port, tlsa(issued.certificate, 3))
    daemon = relayd(by_mx(secure_dns, server.port))
    send(daemon, mail_options=["REQUIRETLS"])
    server.get()
    assert server.required == [True]


def two_dane_hosts(secure_dns, first, second):
    """dane.example with two MX hosts, (certificate, port) each; the second at 127.0.0.3."""
    (one, port), (two, _) = first, second
    start_dane(secure_dns, port, tlsa(one, 3),
               more=f"@ MX 20 mx2\nmx2 A 127.0.0.3\n_{port}._tcp.mx2 TLSA {tlsa(two, 3)}\n")


def test_requiretls_where_it_is_not_offered_fails(relayd, make_upstream, authority, secure_dns):
    """RFC 8689 section 4.2.1: the sender hears of it, by 5.7.30."""
    issued = authority.issue("mx1.dane.example")
    server = make_upstream(host="127.0.0.2", tls_context=issued.context())
    back = make_upstream()
    start_dane(secure_dns, server.port, tlsa(issued.certificate, 3))
    daemon = relayd(relayhost(back.port) + by_mx(secure_dns, server.port)
                    + "routes: [{to: ['@dane.example'], via: [mx]}, {via: [main]}]\n")
    send(daemon, mail_options=["REQUIRETLS", "RET=FULL"])
    daemon.wait_log(r"event=failed .*rcpt=user@dane.example .*class=tls .*enhanced=5\.7\.30")
    dsn = back.get().data.decode()
    assert "Status: 5.7.30" in dsn and "Subject: test" in dsn and "Hello" not in dsn
    assert server.messages.empty()


def test_requiretls_looks_for_a_host_that_offers_it(relayd, requiretls_mx, make_upstream, authority, secure_dns):
    """RFC 8689 section 4.2.1: with each host of the domain, in one attempt; mail without it goes to the first."""
    second, its = requiretls_mx("mx2.dane.example", host="127.0.0.3")
    issued = authority.issue("mx1.dane.example")
    first = make_upstream(host="127.0.0.2", port=second.port, tls_context=issued.context())
    two_dane_hosts(secure_dns, (issued.certificate, first.port), (its.certificate, second.port))
    daemon = relayd(by_mx(secure_dns, first.port))
    send(daemon, mail_options=["REQUIRETLS"])
    second.get()
    (line,) = daemon.wait_log("event=delivered")
    assert second.required == [True] and "attempts=1" in line
    daemon.stop()
    daemon.start()
    send(daemon)
    first.get()


def test_requiretls_waits_for_a_host_that_is_away(relayd, requiretls_mx, make_upstream, authority, secure_dns):
    """The first offers it and is down, the second does not: not for good."""
    first, its = requiretls_mx("mx1.dane.example")
    first.stop()
    issued = authority.issue("mx2.dane.example")
    second = make_upstream(host="127.0.0.3", port=first.port, tls_context=issued.context())
    two_dane_hosts(secure_dns, (its.certificate, first.port), (issued.certificate, second.port))
    daemon = relayd(by_mx(secure_dns, first.port).replace("tls: [1s]", "tls: [1h]"))
    send(daemon, mail_options=["REQUIRETLS"])
    daemon.wait_log(r"event=deferred .*enhanced=4\.7\.30")
    first.start()
    daemon.ctl("flush")
    first.get()
    assert first.required == [True] and second.messages.empty()


# ---- TLS-Required: No (RFC 8689) ----

def send_anyhow(daemon, to="user@dane.example", **options):
    with daemon.smtp() as client:
        client.send_message(message(to=to, TLS_Required="No"), **options)


def test_tls_required_no_stands_above_dane(relayd, make_upstream, authority, secure_dns):
    """A certificate that no TLSA record names; then no TLS at all. Other mail waits, before and after."""
    issued, other = authority.issue("mx1.dane.example"), authority.issue("mx1.dane.example")
    server = make_upstream(host="127.0.0.2", tls_context=issued.context())
    start_dane(secure_dns, server.port, tlsa(other.certificate, 3))
    daemon = relayd(by_mx(secure_dns, server.port).replace("[1s]", "[1h]"))
    send(daemon)
    daemon.wait_log(r"event=deferred .*class=tls")
    send_anyhow(daemon)
    mail = server.get()
    assert mail.tls and "TLS-Required: No" in mail.data.decode()
    server.stop()
    clear = make_upstream(host="127.0.0.2", port=server.port)
    send_anyhow(daemon)
    assert not clear.get().tls
    send(daemon)
    daemon.wait_log(r"event=deferred .*class=tls", count=2)
    assert clear.messages.empty()


def test_tls_required_no_asks_for_no_records(relayd, make_upstream, authority, secure_dns):
    """Records that cannot be had keep it from nowhere."""
    issued = authority.issue("mx1.dane.example")
    server = make_upstream(host="127.0.0.2", tls_context=issued.context())
    data = tlsa(issued.certificate, 3)
    start_dane(secure_dns, server.port, data, tampered=[(data.split()[-1].upper(), "00" * 32)])
    daemon = relayd(by_mx(secure_dns, server.port))
    send_anyhow(daemon)
    assert server.get().tls


def test_tls_required_no_is_kept_over_a_restart(relayd, make_upstream, authority, secure_dns):
    other = authority.issue("mx1.dane.example")
    server = make_upstream(host="127.0.0.2")
    start_dane(secure_dns, server.port, tlsa(other.certificate, 3))
    server.stop()
    daemon = relayd(by_mx(secure_dns, server.port).replace("[1s]", "[1h]"))
    send_anyhow(daemon)
    daemon.wait_log(r"event=deferred .*class=connect")
    daemon.kill()
    server.start()
    daemon.start()
    daemon.ctl("flush")
    assert not server.get().tls


def test_tls_required_no_does_not_stand_above_the_operator(relayd, make_upstream, secure_dns):
    server = make_upstream(host="127.0.0.2")
    secure_dns.start({"dane.example": ZONE})
    daemon = relayd(by_mx(secure_dns, server.port) + "routes: [{via: [mx], tls: required}]\n")
    send_anyhow(daemon)
    daemon.wait_log(r"event=deferred .*class=tls")
    assert server.messages.empty()


def test_requiretls_stands_above_tls_required_no(relayd, make_upstream, authority, secure_dns):
    other = authority.issue("mx1.dane.example")
    server = make_upstream(host="127.0.0.2", tls_context=authority.issue("mx1.dane.example").context())
    start_dane(secure_dns, server.port, tlsa(other.certificate, 3))
    daemon = relayd(by_mx(secure_dns, server.port))
    send_anyhow(daemon, mail_options=["REQUIRETLS"])
    daemon.wait_log(r"event=deferred .*class=tls")
    assert server.messages.empty()


# ---- MTA-STS (RFC 8461) ----

STS_ZONE = ZONE + "@ MX 20 mx2\nmx2 A 127.0.0.3\nmta-sts A 127.0.0.1\n_mta-sts TXT \"v=STSv1; id=1;\"\n"


@pytest.fixture
def policies(authority):
    server = PolicyServer(authority.issue("mta-sts.sts.example").context())
    yield server
    server.stop()


def by_sts(dns, policies, port, authority):
    return (by_mx(dns, port, authority.pem, extra=f", mta_sts_port: {policies.port}")
            + f"https: {{ca_file: {authority.pem}}}\n")


@pytest.fixture
def sts(relayd, make_upstream, authority, secure_dns, policies):
    """sts(certificate's names, zone): a relay, and the MX of sts.example with that certificate (none: clear text)."""
    class Place:
        pass

    def start(*names, zone=STS_ZONE):
        place = Place()
        context = authority.issue(*names).context() if names else None
        place.server = make_upstream(host="127.0.0.2", tls_context=context)
        secure_dns.start({"sts.example": zone})
        place.daemon = relayd(by_sts(secure_dns, policies, place.server.port, authority))
        return place

    return start


def test_sts_enforce_delivers_to_the_right_host(sts, policies):
    policies.publish("sts.example", mx=["mx1.sts.example"])
    place = sts("mx1.sts.example")
    send(place.daemon, to="user@sts.example")
    assert place.server.get().tls
    assert policies.requests == [("mta-sts.sts.example", "/.well-known/mta-sts.txt")]
    place.daemon.wait_log(r"event=mta_sts domain=sts\.example version=1 mode=enforce")
    send(place.daemon, to="user@sts.example")
    assert place.server.get().tls
    assert len(policies.requests) == 1


def test_sts_enforce_wildcard(sts, policies):
    policies.publish("sts.example", mx=["*.sts.example"])
    place = sts("mx1.sts.example")
    send(place.daemon, to="user@sts.example")
    assert place.server.get().tls


@pytest.mark.parametrize("names", [(), ("mx9.sts.example",)], ids=["stripped", "wrong name"])
def test_sts_enforce_never_goes_without(sts, policies, names):
    """G16: not in clear text, nor to somebody else."""
    policies.publish("sts.example", mx=["mx1.sts.example"])
    place = sts(*names)
    send(place.daemon, to="user@sts.example")
    place.daemon.wait_log(r"event=deferred .*class=tls", count=2)
    assert place.server.messages.empty()


def test_sts_enforce_leaves_other_hosts_alone(sts, policies, make_upstream, authority):
    """The first MX is not in the policy, the second is."""
    policies.publish("sts.example", mx=["mx2.sts.example"])
    place = sts("mx1.sts.example")
    second = make_upstream(host="127.0.0.3", port=place.server.port,
                           tls_context=authority.issue("mx2.sts.example").context())
    send(place.daemon, to="user@sts.example")
    assert second.get().tls
    assert place.server.messages.empty()


def test_tls_required_no_stands_above_sts(sts, policies):
    policies.publish("sts.example", mx=["mx1.sts.example"])
    place = sts()
    send(place.daemon, to="user@sts.example")
    place.daemon.wait_log(r"event=deferred .*class=tls")
    send_anyhow(place.daemon, to="user@sts.example")
    mail = place.server.get()
    assert not mail.tls and "TLS-Required: No" in mail.data.decode()
    assert place.server.messages.empty()


def test_sts_enforce_without_a_listed_host_defers(sts, policies):
    policies.publish("sts.example", mx=["*.elsewhere.example"])
    place = sts("mx1.sts.example")
    send(place.daemon, to="user@sts.example")
    assert "is not among the hosts of the MTA-STS policy" in place.daemon.wait_log(r"event=deferred .*class=tls")[0]
    assert place.server.messages.empty()


def test_sts_testing_delivers_anyway(sts, policies):
    policies.publish("sts.example", mode="testing", mx=["mx7.sts.example"])
    place = sts()
    send(place.daemon, to="user@sts.example")
    assert not place.server.get().tls
    place.daemon.wait_log(r"event=mta_sts_testing domain=sts\.example")


@pytest.mark.parametrize("changes", [dict(status=404), dict(status=302), dict(kind="text/html"), dict(text="nonsense"),
                                     dict(text="x" * 70000)], ids=["404", "redirect", "html", "broken", "huge"])
def test_sts_policy_that_cannot_be_had_is_none(sts, policies, changes):
    """H22: an error, a redirect, a huge file."""
    policies.publish("sts.example", mx=["mx9.sts.example"], **changes)
    place = sts("mx1.sts.example")
    send(place.daemon, to="user@sts.example")
    assert place.server.get().tls
    place.daemon.wait_log(r"level=warn event=mta_sts domain=sts\.example version=1")
    assert policies.requests == [("mta-sts.sts.example", "/.well-known/mta-sts.txt")]


def test_sts_server_with_a_wrong_certificate_has_no_say(relayd, make_upstream, authority, secure_dns):
    policies = PolicyServer(authority.issue("mta-sts.other.example").context())
    try:
        policies.publish("sts.example", mx=["mx9.sts.example"])
        server = make_upstream(host="127.0.0.2")
        secure_dns.start({"sts.example": STS_ZONE})
        daemon = relayd(by_sts(secure_dns, policies, server.port, authority))
        send(daemon, to="user@sts.example")
        server.get()
        assert policies.requests == []
    finally:
        policies.stop()


def test_sts_policy_outlives_a_restart_and_its_server(sts, policies):
    """H22: what was fetched holds until it expires."""
    policies.publish("sts.example", mx=["mx1.sts.example"])
    place = sts("mx1.sts.example")
    send(place.daemon, to="user@sts.example")
    assert place.server.get().tls
    assert place.daemon.stop() == 0
    policies.pages.clear()
    place.server.stop()
    place.server.options.pop("tls_context"), place.server.options.pop("require_starttls")
    place.server.start()
    place.daemon.start()
    send(place.daemon, to="user@sts.example")
    place.daemon.wait_log(r"event=deferred .*class=tls")
    assert place.server.messages.empty()


def test_sts_slow_server_keeps_nobody_for_long(sts, policies):
    policies.pages["mta-sts.sts.example"] = None
    place = sts("mx1.sts.example")
    send(place.daemon, to="user@sts.example")
    assert place.server.get().tls


def test_dane_wins_over_sts(relayd, make_upstream, authority, secure_dns, policies):
    policies.publish("sts.example", mx=["mx9.sts.example"])
    issued = authority.issue("elsewhere.example")
    server = make_upstream(host="127.0.0.2", tls_context=issued.context())
    secure_dns.start({"sts.example": STS_ZONE + f"_{server.port}._tcp.mx1 TLSA {tlsa(issued.certificate, 3)}\n"},
                     signed=["sts.example"])
    daemon = relayd(by_sts(secure_dns, policies, server.port, authority))
    send(daemon, to="user@sts.example")
    assert server.get().tls


# ---- what was learnt ----

def start_clear(server):
    """The same server without STARTTLS, as somebody on the way makes it look."""
    server.stop()
    context = server.options.pop("tls_context")
    server.options.pop("require_starttls")
    server.start()
    return context


def start_encrypted(server, context):
    server.stop()
    server.options.update(tls_context=context, require_starttls=False)
    server.start()


def test_stripped_starttls_is_noticed(relayd, make_upstream, authority, secure_dns):
    issued = authority.issue("mx1.plain.example")
    server = make_upstream(host="127.0.0.2", tls_context=issued.context())
    secure_dns.start({"plain.example": ZONE})
    daemon = relayd(by_mx(secure_dns, server.port, authority.pem))
    send(daemon, to="user@plain.example")
    assert server.get().tls
    assert daemon.stop() == 0  # it outlives a restart
    context = start_clear(server)
    daemon.start()
    send(daemon, to="user@plain.example")
    assert "what was learnt: " in daemon.wait_log(r"event=deferred .*class=tls", count=2)[0]
    daemon.wait_log(r"level=warn event=tls_stripped host=mx1\.plain\.example")
    daemon.wait_log(r"event=alert alert=tls state=active")
    assert server.messages.empty()
    start_encrypted(server, context)
    assert server.get().tls
    daemon.wait_log(r"event=alert alert=tls state=over")


def test_a_host_without_a_good_certificate_may_do_without_tls(relayd, make_upstream, authority, secure_dns):
    server = make_upstream(host="127.0.0.2", tls_context=authority.issue("elsewhere.example").context())
    secure_dns.start({"plain.example": ZONE})
    daemon = relayd(by_mx(secure_dns, server.port, authority.pem))
    send(daemon, to="user@plain.example")
    assert server.get().tls
    daemon.stop()
    start_clear(server)
    daemon.start()
    send(daemon, to="user@plain.example")
    assert not server.get().tls


# ---- client certificates ----

def test_client_certificate_for_a_relayhost(relayd, make_upstream, authority):
    ours = authority.issue("relay.example.org", usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    context = authority.issue("127.0.0.1").context()
    context.load_verify_locations(authority.pem)
    context.verify_mode = ssl.CERT_REQUIRED
    server = make_upstream(tls_context=context, require_tls=True)
    options = dict(tls="verify", ca_file=authority.pem)
    daemon = relayd(relayhost(server.port, **options) + RETRY)
    send(daemon, to="user@example.net")
    daemon.wait_log(r"event=deferred ")
    assert server.messages.empty()
    daemon.stop()
    daemon.write_config(daemon.config.replace(f"ca_file: {authority.pem}",
                                              f"ca_file: {authority.pem}\n    certificate: {ours.chain}\n    key: {ours.key}"))
    daemon.start()
    assert server.get().tls


# ---- hosts that misbehave ----

@pytest.fixture
def scripted(authority):
    started = []

    def start(trick=None, context=None, **options):
        started.append(ScriptedMx(context or authority.issue("mx1.plain.example").context(), trick, **options))
        return started[-1]

    yield start
    for server in started:
        server.stop()


def by_plain_mx(dns, port, level="opportunistic", ca_file=None):
    dns.start({"plain.example": "@ MX 10 mx1\nmx1 A 127.0.0.2\n"})
    return (by_mx(dns, port, ca_file, extra=", connect_timeout: 2s") + f"routes: [{{via: [mx], tls: {level}}}]\n")


def old_context(authority):
    context = authority.issue("mx1.plain.example").context()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
    return context


TRICKS = ["garbage", "close", "stall", "old"]


@pytest.mark.parametrize("trick", TRICKS)
def test_handshake_that_fails_opportunistic(relayd, scripted, authority, secure_dns, trick):
    """G17: opportunistic: in clear text on a new connection; nothing of it on the old one."""
    server = scripted(None if trick == "old" else trick, old_context(authority) if trick == "old" else None)
    daemon = relayd(by_plain_mx(secure_dns, server.port))
    send(daemon, to="user@plain.example")
    is_tls, lines = server.get()
    assert not is_tls and "Hello" in lines
    mails = [number for number, _, line in server.commands if line.startswith("MAIL")]
    asked = [number for number, _, line in server.commands if line == "STARTTLS"]
    assert asked == [1] and mails == [2]
    daemon.wait_log(r"event=delivered ")
    assert daemon.metric('relayd_tls_handshakes_total{direction="out",version="",result="failed"}') == 1
    assert daemon.metric('relayd_tls_handshakes_total{direction="out",version="",result="plain"}') == 1


def test_a_host_that_demands_tls_while_its_handshake_fails(relayd, scripted, secure_dns):
    """Opportunistic: in clear text it says 530 (RFC 3207 section 4); that is the handshake's fault, and passes with it."""
    server = scripted("garbage", demands_tls=True)
    daemon = relayd(by_plain_mx(secure_dns, server.port))
    send(daemon, to="user@plain.example")
    daemon.wait_log(r"event=deferred .*class=tls .*STARTTLS")
    server.trick = None
    assert server.get()[0]
    daemon.wait_log(r"event=delivered ")


@pytest.mark.parametrize("trick", TRICKS)
def test_handshake_that_fails_required(relayd, scripted, authority, secure_dns, trick):
    """G16, G17: required: it waits, and no MAIL is ever said in clear text."""
    server = scripted(None if trick == "old" else trick, old_context(authority) if trick == "old" else None)
    daemon = relayd(by_plain_mx(secure_dns, server.port, level="required"))
    send(daemon, to="user@plain.example")
    daemon.wait_log(r"event=deferred .*class=tls", count=2)
    assert server.messages.empty()
    assert not any(line.startswith("MAIL") for _, _, line in server.commands)


def test_starttls_not_offered_where_it_is_required(relayd, scripted, secure_dns):
    """G16: stripped."""
    server = scripted(offers=((), ()))
    daemon = relayd(by_plain_mx(secure_dns, server.port, level="required"))
    send(daemon, to="user@plain.example")
    daemon.wait_log(r"event=deferred .*class=tls")
    assert not any(line.startswith(("MAIL", "STARTTLS")) for _, _, line in server.commands)


def test_replies_injected_behind_the_220(relayd, scripted, secure_dns):
    """G15: more than the 220 breaks the protocol: nothing is said to such a server, in clear text or under TLS."""
    server = scripted("inject")
    daemon = relayd(by_plain_mx(secure_dns, server.port))
    send(daemon, to="user@plain.example")
    daemon.wait_log(r"event=deferred ")
    assert not any(line.startswith("MAIL") for _, _, line in server.commands)


def test_only_what_is_offered_under_tls_counts(relayd, scripted, secure_dns):
    """G19: a SIZE that was said before would have forbidden the message."""
    server = scripted(offers=(("STARTTLS", "SIZE 1", "SMTPUTF8"), ("SIZE 1000000",)))
    daemon = relayd(by_plain_mx(secure_dns, server.port))
    send(daemon, to="user@plain.example")
    assert server.get()[0]


def test_auth_offered_before_tls_alone_is_none(relayd, scripted, authority, folder):
    """G19: no password in clear text, nor where AUTH is not offered under TLS."""
    server = scripted(context=authority.issue("127.0.0.2").context(), offers=(("STARTTLS", "AUTH PLAIN LOGIN"), ()))
    (folder / "secret").write_text("secret")
    (folder / "secret").chmod(0o644)
    daemon = relayd(relayhost(server.port, host="127.0.0.2", tls="verify", ca_file=authority.pem, username="user",
                              password_file=folder / "secret"))
    send(daemon, to="user@example.net")
    daemon.wait_log(r"event=deferred .*class=auth")
    assert not any(line.startswith(("AUTH", "MAIL")) for _, _, line in server.commands)


GOOD, BAD = True, False


@pytest.mark.parametrize("names,days,is_good", [
    (["mx1.plain.example"], 30, GOOD), (["*.plain.example"], 30, GOOD), (["*.mx1.plain.example"], 30, BAD),
    (["mx1.plain.example"], -5, BAD), (["127.0.0.2"], 30, BAD), (["plain.example"], 30, BAD),
], ids=["exact", "wildcard", "other wildcard", "expired", "address", "domain"])
def test_certificates_by_mx(relayd, scripted, authority, secure_dns, names, days, is_good):
    """G18: verify asks for the host's name, within its dates."""
    server = scripted(context=authority.issue(*names, days=days).context())
    daemon = relayd(by_plain_mx(secure_dns, server.port, level="verify", ca_file=authority.pem))
    send(daemon, to="user@plain.example")
    if is_good:
        assert server.get()[0]
    else:
        daemon.wait_log(r"event=deferred .*class=tls")
        assert not any(line.startswith("MAIL") for _, _, line in server.commands)


def test_bad_certificates_are_good_enough_for_opportunism(relayd, scripted, authority, secure_dns):
    """G18: encrypted to whomever is better than not encrypted."""
    server = scripted(context=authority.issue("elsewhere.example", days=-5).context())
    daemon = relayd(by_plain_mx(secure_dns, server.port, ca_file=authority.pem))
    send(daemon, to="user@plain.example")
    assert server.get()[0]
    daemon.wait_log(r"event=delivered ")
    assert daemon.metric('relayd_tls_handshakes_total{direction="out",version="TLSv1.3",result="unverified"}') == 1

"""What strangers try on a server of chat.example: somebody without an account, and servers below stranger.example,
which have a valid certificate. The server `quiet` has two settings more.

Requests come on standard input (`serve` in session.py).

    certificates PEM PEM    a certificate of these servers with its key, in base64: a valid one, and one that nobody has
                            signed
    run [NAME]              tries each row of docs/security.md, or those with this in the name: JSON with the failures
                            by name, null if there is none
    open COUNT              opens and closes so many streams of clients, one after the other
"""

import asyncio
import base64
import concurrent.futures
import functools
import hashlib
import http.client
import itertools
import json
import os
import re
import socket
import ssl
import tempfile
import time
import traceback

from session import TIMEOUT, serve
from sockets import plain

DOMAIN = "chat.example"
STRANGER = "stranger.example"
ROOMS, UPLOAD, PROXY = f"conference.{DOMAIN}", f"upload.{DOMAIN}", f"proxy.{DOMAIN}"
# alice has an account, nobody has none.
ALICE, NOBODY = f"alice@{DOMAIN}", f"nobody@{DOMAIN}"
BYTESTREAMS = "http://jabber.org/protocol/bytestreams"
COMMANDS = "http://jabber.org/protocol/commands"
OWNER = "http://jabber.org/protocol/muc#owner"
PUBSUB = "http://jabber.org/protocol/pubsub"

rows = {}
# TLS with the certificate of the other servers, and with the one that nobody has signed.
valid = unsigned = None


def row(check):
    rows[check.__name__] = check
    return check


@functools.cache
def address(host):
    """Docker's name server is slow."""
    return socket.gethostbyname(host)


def connect(port, host=DOMAIN):
    return socket.create_connection((address(host), port), timeout=TIMEOUT)


def context(pem=None):
    made = ssl.create_default_context()
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    if pem:
        with tempfile.NamedTemporaryFile() as file:
            file.write(base64.b64decode(pem))
            file.flush()
            made.load_cert_chain(file.name)
    return made


class Stream:
    """An XML stream to a server."""

    def __init__(self, port, namespace, host=DOMAIN):
        self.socket = connect(port, host)
        self.namespace = namespace
        self.number = 0

    def ask(self, request, pattern):
        """Sends this. Returns what comes until the pattern, or until the server closes the stream."""
        answer = b""
        try:
            self.socket.sendall(request.encode())
            while not re.search(pattern, answer.decode(errors="replace"), re.DOTALL):
                more = self.socket.recv(65536)
                if not more:
                    break
                answer += more
        except (ConnectionError, ssl.SSLError):
            pass  # closed, as it may be
        return answer.decode(errors="replace")

    def open(self, to=DOMAIN, sender=None, until="</stream:features>|<stream:features/>"):
        """Returns the features."""
        ours = f"from='{sender}' " if sender else ""
        return self.ask(
            f"<?xml version='1.0'?><stream:stream {ours}to='{to}' version='1.0' xmlns='{self.namespace}'"
            " xmlns:stream='http://etherx.jabber.org/streams'>",
            until,
        )

    def encrypt(self, tls):
        proceed = self.ask("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "<proceed[^>]*>")
        assert "<proceed" in proceed, proceed
        self.socket = tls.wrap_socket(self.socket, server_hostname=DOMAIN)

    def iq(self, kind, to, content, sender=None):
        """Sends a request. Returns the answer, or what came instead when the server closed the stream."""
        self.number += 1
        ours = f"from='{sender}' " if sender else ""
        answer = self.ask(
            f"<iq type='{kind}' id='q{self.number}' {ours}to='{to}'>{content}</iq>",
            f"<iq\\b[^>]*\\bid='q{self.number}'[^>]*(/>|>.*?</iq>)",
        )
        found = re.search(f"<iq\\b[^>]*\\bid='q{self.number}'[^>]*?(/>|>.*?</iq>)", answer, re.DOTALL)
        return found.group() if found else answer

    def close(self):
        self.socket.close()


def condition(answer):
    """The condition of an error, or `result`."""
    if "type='result'" in answer:
        return "result"
    found = re.search("<(?:stream:)?error[^>]*>.*?<([a-z-]+) [^>]*urn:ietf:params:xml:ns:xmpp-", answer, re.DOTALL)
    return found[1] if found else answer


def client(host=DOMAIN):
    """A stream of a client, encrypted, before login."""
    stream = Stream(5223, "jabber:client", host)
    stream.socket = context().wrap_socket(stream.socket, server_hostname=DOMAIN)
    return stream


def logged_in(user="alice", password="secret-a"):
    stream = client()
    stream.open()
    answer = stream.ask(plain(user, password), "<(success|failure)")
    assert "<success" in answer, answer
    stream.open()
    answer = stream.ask("<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>", "</iq>")
    stream.jid = re.search("<jid>([^<]*)", answer)[1]
    stream.ask("<presence/>", "<presence[^>]*>")
    return stream


class Server(Stream):
    """A stream of another server, encrypted, before it has proved who it is."""

    count = itertools.count()

    def __init__(self, to=DOMAIN, host=DOMAIN, tls=None, name=None):
        super().__init__(5269, "jabber:server", host)
        # Prosody answers a server on one stream, so each has its own name.
        self.name = name or f"s{next(self.count)}.{STRANGER}"
        self.user = f"mallory@{self.name}/x"
        self.to = to
        self.open(to, self.name)
        self.encrypt(tls or valid)
        self.features = self.open(to, self.name)

    def log_in(self):
        """Proves who it is. Answers of the host come on this stream as well (XEP-0288)."""
        assert "EXTERNAL" in self.features, self.features
        name = base64.b64encode(self.name.encode()).decode()
        answer = self.ask(
            "<bidi xmlns='urn:xmpp:bidi'/>"
            f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>{name}</auth>",
            "<(success|failure)[^>]*>",
        )
        assert "<success" in answer, answer
        self.open(self.to, self.name)
        return self

    def request(self, kind, content, to=None):
        """What a user of this server is answered by the host, or by a user there."""
        return self.iq(kind, to or self.to, content, self.user)

    def ping(self):
        return f"<iq type='get' id='ping' from='{self.user}' to='{self.to}'><ping xmlns='urn:xmpp:ping'/></iq>"


def stranger(to=DOMAIN, host=DOMAIN):
    return Server(to, host).log_in()


class Web:
    """A connection of HTTP or HTTPS that is used again and again."""

    def __init__(self, port=5281):
        if port == 5281:
            self.connection = http.client.HTTPSConnection(address(DOMAIN), port, timeout=TIMEOUT, context=context())
        else:
            self.connection = http.client.HTTPConnection(address(DOMAIN), port, timeout=TIMEOUT)

    def ask(self, method, path, host=DOMAIN, body=None, headers=None):
        """The answer: status, headers and content. The path is sent as it is."""
        self.connection.request(method, path, body, {"Host": host, **(headers or {})})
        answer = self.connection.getresponse()
        return answer.status, str(answer.headers), answer.read().decode(errors="replace")


def register(user):
    return f"<query xmlns='jabber:iq:register'><username>{user}</username><password>secret-n</password></query>"


def assert_no_account(user):
    stream = client()
    stream.open()
    answer = stream.ask(plain(user, "secret-n"), "<(success|failure).*>")
    assert "<not-authorized" in answer, f"{user} has an account: {answer}"


@row
def no_account_in_band():
    # Without an invitation, and with one that nobody made (XEP-0445).
    for token in ("", "<preauth xmlns='urn:xmpp:pars:0' token='1'/>"):
        stream = client()
        stream.open()
        if token:
            answer = stream.iq("set", DOMAIN, token)
            assert condition(answer) == "forbidden", answer
        answer = stream.iq("set", DOMAIN, register("new1"))
        assert condition(answer) == "not-acceptable", answer
    assert_no_account("new1")


@row
def no_account_from_another_server():
    stream = stranger()
    for kind, content in (("get", "<query xmlns='jabber:iq:register'/>"), ("set", register("new2"))):
        answer = stream.request(kind, content)
        assert condition(answer) == "service-unavailable", answer
    assert_no_account("new2")


@row
def no_account_on_the_web():
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    body = "user=new3&username=new3&password=secret-n&token=1"
    for port in (5280, 5281):
        web = Web(port)
        for path in ("/register", "/register_web", "/register_web/", "/invites", "/invite", "/register_api", "/api"):
            for request in (("GET", path), ("POST", path, DOMAIN, body, form)):
                status, _, answer = web.ask(*request)
                assert status == 404, f"{request}: {status} {answer}"
    assert_no_account("new3")


@row
def no_anonymous_login():
    stream = client()
    features = stream.open()
    assert "ANONYMOUS" not in features, features
    answer = stream.ask("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>", "</failure>|<success")
    assert "<invalid-mechanism" in answer, answer


@row
def no_login_in_plain_text():
    stream = Stream(5222, "jabber:client")
    features = stream.open()
    assert "<mechanism>" not in features and "<required/>" in features, features
    answer = stream.ask(plain("alice", "secret-a"), "</failure>|<success|</stream:error>")
    assert "<success" not in answer and "<failure" in answer, answer
    # BOSH and WebSocket on the port of HTTP.
    bosh = (
        f"<body xmlns='http://jabber.org/protocol/httpbind' rid='1' to='{DOMAIN}' wait='1' hold='1' ver='1.6'"
        " xmlns:xmpp='urn:xmpp:xbosh' xmpp:version='1.0'/>"
    )
    _, _, answer = Web(5280).ask("POST", "/http-bind", body=bosh)
    assert "httpbind" in answer and "<mechanism>" not in answer, answer
    stream = websocket()
    opening = f"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='{DOMAIN}' version='1.0'/>"
    answer = stream.say(opening, "features>|error>")
    assert "<mechanism>" not in answer, answer
    answer = stream.say(plain("alice", "secret-a"), "failure>|success|error>")
    assert "<success" not in answer, answer


class WebSocket(Stream):
    def say(self, text, pattern):
        """Sends a frame of less than 126 bytes, with the mask 0 (RFC 6455)."""
        content = text.encode()
        self.socket.sendall(bytes([0x81, 0x80 | len(content)]) + bytes(4) + content)
        return self.ask("", pattern)


def websocket():
    stream = WebSocket(5280, "jabber:client")
    answer = stream.ask(
        f"GET /xmpp-websocket HTTP/1.1\r\nHost: {DOMAIN}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: xmpp\r\n"
        f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n\r\n",
        "\r\n\r\n",
    )
    assert "101 " in answer, answer
    return stream


@row
def no_name_by_login():
    answers = []
    for user in ("alice", "nobody"):
        stream = client()
        stream.open()
        answers.append(stream.ask(plain(user, "wrong"), "</failure>|<success"))
    assert "<not-authorized" in answers[0] and answers[0] == answers[1], answers


@row
def no_name_from_another_server():
    def items(node):
        return f"<pubsub xmlns='{PUBSUB}'><items node='{node}'/></pubsub>"

    questions = (
        ("get", "<vCard xmlns='vcard-temp'/>"),
        ("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>"),
        ("get", "<query xmlns='http://jabber.org/protocol/disco#items'/>"),
        ("get", "<query xmlns='jabber:iq:last'/>"),
        ("get", "<query xmlns='jabber:iq:version'/>"),
        ("get", "<ping xmlns='urn:xmpp:ping'/>"),
        ("get", items("urn:xmpp:avatar:metadata")),
        ("get", items("urn:xmpp:vcard4")),
        ("get", items("eu.siacs.conversations.axolotl.devicelist")),
        ("get", "<query xmlns='jabber:iq:roster'/>"),
        ("set", "<query xmlns='urn:xmpp:mam:2'/>"),
        ("get", "<query xmlns='jabber:iq:private'><x xmlns='x:y'/></query>"),
        ("get", "<blocklist xmlns='urn:xmpp:blocking'/>"),
    )
    stream = stranger()
    for kind, content in questions:
        answers = [stream.request(kind, content, jid) for jid in (ALICE, NOBODY)]
        assert condition(answers[0]) == condition(answers[1]), f"{content}: {answers}"
    for kind in ("probe", "subscribe", "unsubscribe"):
        answers = []
        for jid in (ALICE, NOBODY):
            presence = f"<presence type='{kind}' from='{stream.user}' to='{jid}'/>"
            answers.append(stream.ask(presence + stream.ping(), "id='ping'.*>").count("<presence"))
        assert answers[0] == answers[1], f"{kind}: {answers}"


def scram(user):
    stream = client()
    stream.open()
    first = base64.b64encode(f"n,,n={user},r=abcdefgh".encode()).decode()
    return stream.ask(
        f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'>{first}</auth>",
        "</(failure|challenge)>",
    )


@row
def names_by_scram():
    assert "<challenge" in scram("alice") and "<not-authorized" in scram("nobody")


@row
def names_by_messages():
    stream = stranger()
    texts = [message(stream.user, jid, "hello") + stream.ping() for jid in (ALICE, NOBODY)]
    answers = [stream.ask(text, "id='ping'") for text in texts]
    assert ["<error" in answer for answer in answers] == [False, True], answers


@row
def what_the_server_is():
    stream = stranger()
    for content in (
        "<query xmlns='http://jabber.org/protocol/disco#info'/>",
        "<query xmlns='http://jabber.org/protocol/disco#items'/>",
        "<query xmlns='jabber:iq:version'/>",
        "<query xmlns='jabber:iq:last'/>",
        "<time xmlns='urn:xmpp:time'/>",
    ):
        answer = stream.request("get", content)
        assert condition(answer) == "result", answer


def delivered(send):
    """What alice gets while this is sent, up to a message that she sends to herself."""
    alice = logged_in()
    send()
    seen = alice.ask(f"<message to='{ALICE}' type='chat' id='end'><body>end</body></message>", "end</body>")
    alice.close()
    return seen


def message(sender=None, to=ALICE, body="forged"):
    ours = f"from='{sender}' " if sender else ""
    return f"<message {ours}to='{to}' type='chat'><body>{body}</body></message>"


@row
def no_stanza_before_login():
    def send():
        presence = f"<presence to='{ALICE}'><status>forged</status></presence>"
        for text in (message(), message(f"bob@{DOMAIN}/x"), presence):
            stream = client()
            stream.open()
            answer = stream.ask(text, "</(message|presence)>")
            assert condition(answer) == "service-unavailable", answer
        stream = Server()
        stream.ask(message(stream.user) + stream.ping(), "^")
        # What was sent before has been read.
        stream.log_in()

    seen = delivered(send)
    assert "forged" not in seen, seen


@row
def no_forged_sender():
    def send():
        for sender in (f"bob@{DOMAIN}", DOMAIN, "mallory@bank.example", f"x@{STRANGER}"):
            answer = stranger().ask(message(sender), "</stream:stream>")
            assert "<stream:error" in answer, f"{sender}: {answer}"

    seen = delivered(send)
    assert "forged" not in seen, seen

    def send_as_mallory():
        stream = stranger()
        stream.ask(message(stream.user) + stream.ping(), "id='ping'")

    seen = delivered(send_as_mallory)
    assert "forged" in seen, f"a message with its sender does not arrive: {seen}"


@row
def no_server_without_a_certificate():
    def dialback(name):
        return f"<db:result xmlns:db='jabber:server:dialback' from='{name}' to='{DOMAIN}'>0</db:result>"

    def send():
        certificates = {f"unsigned.{STRANGER}": unsigned, "bank.example": valid, f"none.{STRANGER}": context()}
        for name, tls in certificates.items():
            stream = Server(tls=tls, name=name)
            assert "EXTERNAL" not in stream.features, stream.features
            answer = stream.features + stream.ask(dialback(name) + message(stream.user), "</stream:stream>")
            assert condition(answer) in ("not-authorized", "policy-violation"), answer
        # Without TLS. What was sent before TLS has been read then.
        stream = Stream(5269, "jabber:server")
        stream.open(sender=STRANGER)
        stream.ask(dialback(STRANGER) + message(f"mallory@{STRANGER}"), "^")
        stream.encrypt(valid)

    seen = delivered(send)
    assert "forged" not in seen, seen


@row
def no_relay_between_other_domains():
    stream = stranger()
    answer = stream.ask(message(stream.user, "x@other.example"), "</stream:stream>|</message>")
    assert condition(answer) == "host-unknown", answer
    for port, namespace in ((5222, "jabber:client"), (5269, "jabber:server")):
        answer = Stream(port, namespace).open("other.example", STRANGER)
        assert condition(answer) == "host-unknown", answer


@row
def no_large_stanza_before_login():
    """CVE-2026-43507."""
    stream = client()
    stream.open()
    for stream in (stream, Server()):
        answer = stream.ask("<iq type='set' id='big'><query xmlns='x:y'>" + "x" * 12000, "</stream:stream>")
        assert condition(answer) == "policy-violation", answer


@row
def no_large_request_before_login():
    with connect(5280) as stream:
        stream.sendall(f"POST /http-bind HTTP/1.1\r\nHost: {DOMAIN}\r\nContent-Length: 524289\r\n\r\n".encode())
        # The server closes the connection, and reads no content.
        answer = b"".join(iter(lambda: stream.recv(65536), b""))
    assert not answer.startswith(b"HTTP/1.1 200 "), answer


@row
def no_entities():
    bomb = "<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;'>]>"
    for port, namespace in ((5222, "jabber:client"), (5269, "jabber:server")):
        stream = Stream(port, namespace)
        answer = stream.ask(f"<?xml version='1.0'?>{bomb}", "</stream:stream>")
        assert condition(answer) in ("restricted-xml", "not-well-formed"), answer


@row
def few_bytes_a_second():
    def seconds(stream, size):
        start = time.monotonic()
        answer = stream.ask(" " * size + "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "<proceed")
        assert "<proceed" in answer, answer
        return time.monotonic() - start

    # The limits are 10 kB/s and 30 kB/s. The time for nothing is that of a busy machine.
    for port, namespace, size in ((5222, "jabber:client", 20000), (5269, "jabber:server", 60000)):
        streams = [Stream(port, namespace) for _ in range(2)]
        for stream in streams:
            stream.open(sender=STRANGER)
        took, least = seconds(streams[0], size), seconds(streams[1], 0)
        assert took > 1 + least, f"{size} bytes in {took} s, none in {least} s"


@row
def no_room():
    stream = stranger(ROOMS)
    room = f"new@{ROOMS}"
    join = (
        f"<presence from='{stream.user}' to='{room}/mallory'><x xmlns='http://jabber.org/protocol/muc'/></presence>"
    )
    answer = stream.ask(join, "</presence>|</stream:stream>")
    assert condition(answer) == "not-allowed", answer
    form = f"<query xmlns='{OWNER}'><x xmlns='jabber:x:data' type='submit'/></query>"
    answer = stream.request("set", form, room)
    assert condition(answer) in ("item-not-found", "not-allowed"), answer
    answer = logged_in().iq("get", ROOMS, "<query xmlns='http://jabber.org/protocol/disco#items'/>")
    assert condition(answer) == "result" and room not in answer, answer


class Proxied:
    """A connection to proxy65 for the session of this initiator and target (XEP-0065)."""

    def __init__(self, initiator, target, sid="s"):
        self.name = hashlib.sha1(f"{sid}{initiator}{target}".encode()).hexdigest()
        self.socket = connect(5000)
        self.socket.sendall(b"\5\1\0")
        assert self.read(2) == b"\5\0"
        self.socket.sendall(b"\5\1\0\3\x28" + self.name.encode() + b"\0\0")
        assert self.read(47)[:2] == b"\5\0"

    def read(self, count):
        seen = b""
        while len(seen) < count:
            more = self.socket.recv(count - len(seen))
            if not more:
                break
            seen += more
        return seen


def activate(target):
    return f"<query xmlns='{BYTESTREAMS}' sid='s'><activate>{target}</activate></query>"


def nothing_comes(connection):
    """Whether nothing arrives within half a second. What is relayed, is in milliseconds."""
    connection.socket.settimeout(0.5)
    try:
        return not connection.socket.recv(100)
    except TimeoutError:
        return True


@row
def no_relay_by_proxy65():
    """CVE-2026-43504."""
    stream = stranger(PROXY)
    answer = stream.request("get", f"<query xmlns='{BYTESTREAMS}' sid='s'/>")
    assert condition(answer) == "forbidden", answer
    target, source = (Proxied(stream.user, f"other@{STRANGER}") for _ in range(2))
    answer = stream.request("set", activate(f"other@{STRANGER}"))
    assert condition(answer) == "forbidden", answer
    source.socket.sendall(b"relayed")
    assert nothing_comes(target), "proxy65 relays"


@row
def no_relay_before_activation():
    """CVE-2026-43505."""
    alice = logged_in()
    target, source = (Proxied(alice.jid, NOBODY) for _ in range(2))
    source.socket.sendall(b"early")
    assert nothing_comes(target), "proxy65 relays what came before the activation"
    target.socket.sendall(b"early")
    assert nothing_comes(source), "proxy65 relays back what came before the activation"
    # Afterwards it relays.
    answer = alice.iq("set", PROXY, activate(NOBODY))
    assert condition(answer) == "result", answer
    source.socket.sendall(b"late")
    assert not nothing_comes(target), "proxy65 does not relay"


@row
def no_upload():
    slot = "<request xmlns='urn:xmpp:http:upload:0' filename='x.txt' size='5' content-type='text/plain'/>"
    answer = stranger(UPLOAD).request("get", slot)
    assert condition(answer) == "forbidden", answer
    answer = logged_in().iq("get", UPLOAD, slot)
    put = re.search("<put [^>]*url='https://[^/]*([^']*)'", answer)[1]
    token = re.search("Bearer ([^<]*)", answer)[1]
    wrong = token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB")

    def status(method, path, token=None, port=5281):
        headers = {"Content-Type": "text/plain", **({"Authorization": f"Bearer {token}"} if token is not None else {})}
        return Web(port).ask(method, path, UPLOAD, "hello" if method == "PUT" else None, headers)[0]

    for port in (5280, 5281):
        for tried in (None, "", wrong):
            seen = status("PUT", put, tried, port)
            assert seen in (401, 403), f"{tried}: {seen}"
        seen = status("PUT", "/file_share/other/x.txt", token, port)
        assert seen in (400, 403), seen
    seen = status("GET", put)
    assert seen in (404, 410), seen
    # With its token, there is a file.
    seen = [status("PUT", put, token), status("GET", put)]
    assert seen == [201, 200], seen


@row
def no_metrics():
    for port in (5280, 5281):
        web = Web(port)
        for host in (DOMAIN, UPLOAD, "localhost", "127.0.0.1"):
            for path in ("/metrics", "/metrics/", "/openmetrics"):
                status, _, content = web.ask("GET", path, host)
                assert status == 404 and "prosody_" not in content, f"{host}{path}: {status} {content}"


@row
def no_file_over_http():
    up = ("/..", "/%2e%2e", "/..%2f", "/%252e%252e", "/.%00.")
    files = ("/etc/prosody/prosody.cfg.lua", "/etc/passwd", "/run/prosody/current/prosody.cfg.lua")
    paths = [start + step * 8 + file for start in ("", "/file_share", "/http-bind") for step in up for file in files]
    paths += ["/", "/file_share/", "/files/", "/files/passwd", "/certs/", "/prosody.cfg.lua", "/.well-known/"]
    web = Web(5280)
    for host in (DOMAIN, UPLOAD):
        for path in paths:
            _, _, content = web.ask("GET", path, host)
            for word in ("root:", "VirtualHost", "PRIVATE KEY", "Index of", "x.txt"):
                assert word not in content, f"{host}{path}: {content}"


@row
def no_admin_command():
    def command(node):
        return f"<command xmlns='{COMMANDS}' node='{node}' action='execute'/>"

    stream, alice = stranger(), logged_in()
    items = f"<query xmlns='http://jabber.org/protocol/disco#items' node='{COMMANDS}'/>"
    answer = stream.request("get", items)
    assert re.findall("<item [^>]*node='([^']*)'", answer) == ["uptime"], answer
    for name in ("add-user", "delete-user", "change-user-password", "get-user-roster", "shutdown"):
        node = command(f"http://jabber.org/protocol/admin#{name}")
        for answer in (stream.request("set", node), alice.iq("set", DOMAIN, node)):
            assert condition(answer) == "forbidden", answer
    for name in ("invite", "create-account"):
        answer = stream.request("set", command(f"urn:xmpp:invite#{name}"))
        assert condition(answer) == "forbidden", answer


@row
def no_data_of_users():
    def pubsub(content):
        return f"<pubsub xmlns='{PUBSUB}'>{content}</pubsub>"

    def item(node, more=""):
        return pubsub(f"<publish node='{node}'><item id='current'><x xmlns='x:y'>secret</x></item></publish>{more}")

    whitelist = (
        "<publish-options><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>"
        f"<value>{PUBSUB}#publish-options</value></field><field var='pubsub#access_model'>"
        "<value>whitelist</value></field></x></publish-options>"
    )
    private = "<query xmlns='jabber:iq:private'><x xmlns='x:y'>secret</x></query>"
    alice = logged_in()
    for content in (item("urn:xmpp:bookmarks:1", whitelist), item("x:mood"), private):
        answer = alice.iq("set", ALICE, content)
        assert condition(answer) == "result", answer
    stream = stranger()
    for kind, content in (
        ("get", pubsub("<items node='urn:xmpp:bookmarks:1'/>")),
        ("get", pubsub("<items node='x:mood'/>")),
        ("set", item("x:mood")),
        ("get", "<query xmlns='jabber:iq:private'><x xmlns='x:y'/></query>"),
        ("get", "<query xmlns='jabber:iq:roster'/>"),
        ("set", "<query xmlns='urn:xmpp:mam:2'/>"),
        ("get", "<blocklist xmlns='urn:xmpp:blocking'/>"),
        ("get", "<query xmlns='jabber:iq:last'/>"),
    ):
        answer = stream.request(kind, content, ALICE)
        assert condition(answer) not in ("result", answer), f"{content}: {answer}"
    # Whether she is online.
    probe = f"<presence type='probe' from='{stream.user}' to='{ALICE}'/>"
    answer = stream.ask(probe + stream.ping(), "id='ping'")
    presence = re.findall("<presence[^>]*>", answer)
    assert all("type='unsubscribed'" in seen for seen in presence), answer


@row
def no_version():
    """The server `quiet` has `PROSODY_MODULES_DISABLED=version`."""
    answer = stranger(host="quiet").request("get", "<query xmlns='jabber:iq:version'/>")
    assert condition(answer) == "service-unavailable", answer
    web = Web()
    for path in ("/", "/missing", "/http-bind", "/file_share/x"):
        _, headers, content = web.ask("GET", path)
        found = re.search(r"(?i)server:|prosody[/ ]\d|\b(13\.0|0\.12)\.", headers + content)
        assert not found, f"{path}: {headers}{content}"


def answer_to(port, text):
    """All that comes within a moment."""
    answer = b""
    with connect(port) as stream:
        try:
            if port in (5223, 5281):
                stream = context().wrap_socket(stream)
            stream.sendall(text)
            stream.settimeout(0.2)
            while more := stream.recv(65536):
                answer += more
        except OSError:
            pass
    return answer.decode(errors="replace")


@row
def no_stack_trace():
    http_ = (
        b"POST /http-bind HTTP/1.1\r\nHost: chat.example\r\nContent-Length: 5\r\n\r\n<a></",
        b"GET /xmpp-websocket HTTP/1.1\r\nHost: chat.example\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"PUT /file_share/a/b HTTP/1.1\r\nHost: upload.chat.example\r\nContent-Length: -1\r\n\r\n",
        b"GET /http-bind?%zz HTTP/1.1\r\nHost: \xff\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    )
    xml = (
        b"<" * 50,
        b"<a><b></a>",
        b"<stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns='x' to='&#0;'>",
        b"<stream:stream xmlns:stream='http://etherx.jabber.org/streams' to='" + b"x" * 3000 + b"'>",
    )
    noise = (b"\x00\xff\xfe" * 100, b"\x16\x03\x01\x02\x00" + os.urandom(300), b"\5\1\0\5\1\0\3\xff")
    tries = [(port, text) for port in (5000, 5222, 5223, 5269, 5280, 5281) for text in http_ + xml + noise]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda pair: answer_to(*pair), tries)
        for (port, text), answer in zip(tries, answers):
            for word in ("traceback", ".lua", "/usr/lib", "attempt to"):
                assert word not in answer, f"port {port}, {text}: {answer}"


def run_one(check):
    try:
        check()
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[-1].lineno
        return f"line {line}: {type(error).__name__}: {error}"


async def certificates(*pems):
    global valid, unsigned
    valid, unsigned = map(context, pems)


async def run(part=""):
    wanted = {name: check for name, check in rows.items() if part in name}
    with concurrent.futures.ThreadPoolExecutor(len(wanted)) as pool:
        failures = await asyncio.to_thread(lambda: list(pool.map(run_one, wanted.values())))
    return json.dumps(dict(zip(wanted, failures)))


async def open_(count):
    def both():
        for _ in range(int(count)):
            stream = Stream(5222, "jabber:client")
            stream.open(until="<")
            stream.close()

    await asyncio.to_thread(both)


if __name__ == "__main__":
    asyncio.run(serve({"certificates": certificates, "run": run, "open": open_}))

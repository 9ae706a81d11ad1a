"""Connections to ports of the PROXY protocol, as a proxy, or something that pretends to be one, makes them.

usage: proxied.py SERVER DOMAIN STEP…

A step is `SERVICE PORT HEADER`. SERVICE is `xmpp`, `xmpps`, `http` or `https`; HEADER is one of HEADERS. For each step it
prints a line of JSON: "answer", the beginning of what the service says to a stream header or a request, or "closed"; and
"certificate", the subject's name, with TLS.
"""

import json
import re
import socket
import ssl
import struct
import subprocess
import sys

V4, V6 = "192.0.2.9", "2001:db8::9"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(command, family, addresses, more=b""):
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", len(addresses + more)) + addresses + more


def of4(address):
    return socket.inet_aton(address) + socket.inet_aton("192.0.2.1") + struct.pack("!HH", 4711, 443)


def of6(address):
    packed = socket.inet_pton(socket.AF_INET6, address)
    return packed + socket.inet_pton(socket.AF_INET6, "2001:db8::1") + struct.pack("!HH", 4711, 443)


HEADERS = {
    "v1": f"PROXY TCP4 {V4} 192.0.2.1 4711 443\r\n".encode(),
    "v1-ipv6": f"PROXY TCP6 {V6} 2001:db8::1 4711 443\r\n".encode(),
    "v1-unknown": b"PROXY UNKNOWN ffff:: ffff:: 1 1\r\n",
    "v2": v2(0x21, 0x11, of4(V4)),
    "v2-ipv6": v2(0x21, 0x21, of6(V6)),
    "v2-mapped": v2(0x21, 0x21, of6("::ffff:192.0.2.10")),
    "v2-with-more": v2(0x21, 0x11, of4(V4), b"\x01\x00\x0bxmpp-client" * 20),
    "v2-local": v2(0x20, 0, b""),
    "v2-unix": v2(0x21, 0x31, b"\0" * 216),
    # Nothing of these is passed on.
    "none": b"",
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xff" * 600,
    "v1-long": b"PROXY " + b"TCP4 " * 5000,
    "v1-no-address": b"PROXY TCP4 localhost 192.0.2.1 4711 443\r\n",
    "v1-other-family": f"PROXY TCP4 {V6} 192.0.2.1 4711 443\r\n".encode(),
    "v1-no-port": f"PROXY TCP4 {V4} 192.0.2.1 99999 443\r\n".encode(),
    "v1-incomplete": b"PROXY TCP4\r\n",
    "v1-binary": b"PROXY \xff\xfe\x00%s%n\r\n",
    "v2-version": v2(0x11, 0x11, of4(V4)),
    "v2-command": v2(0x2F, 0x11, of4(V4)),
    "v2-short": v2(0x21, 0x21, of4(V4)),
    "v2-empty": v2(0x21, 0x11, b""),
}


def request(service, domain):
    if service.startswith("xmpp"):
        header = (
            f"<?xml version='1.0'?><stream:stream to='{domain}' version='1.0' xmlns='jabber:client' "
            "xmlns:stream='http://etherx.jabber.org/streams'>"
        )
        return header.encode()
    return f"GET /nothing HTTP/1.1\r\nHost: {domain}\r\nConnection: close\r\n\r\n".encode()


class Tls:
    """TLS whose first record is sent together with the header, which no socket of Python's does."""

    def __init__(self, sock, domain, header, in_pieces):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.sock, self.incoming, self.outgoing = sock, ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=domain)
        self.rest, self.in_pieces = header, in_pieces
        self.call(self.tls.do_handshake)

    def flush(self):
        header, self.rest = self.rest, b""
        send(self.sock, header, self.outgoing.read(), self.in_pieces)

    def call(self, function, *arguments):
        while True:
            try:
                result = function(*arguments)
                self.flush()
                return result
            except ssl.SSLWantReadError:
                self.flush()
                data = self.sock.recv(65536)
                if not data:
                    raise ConnectionError("closed")
                self.incoming.write(data)

    def sendall(self, data):
        self.call(self.tls.write, data)

    def recv(self, size):
        return self.call(self.tls.read, size)

    def subject(self):
        pem = ssl.DER_cert_to_PEM_cert(self.tls.getpeercert(True))
        text = subprocess.run(["openssl", "x509", "-noout", "-subject"], input=pem, capture_output=True, text=True)
        return re.search(r"CN ?= ?(\S+)", text.stdout).group(1)


def send(sock, header, data, in_pieces):
    """Sends the header, in pieces of a byte or together with the data. Expat (2.6) does not parse a tag of many pieces
    before more follows."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    pieces = [header[i : i + 1] for i in range(len(header))] + [data] if in_pieces else [header + data]
    for piece in pieces:
        sock.sendall(piece)


def run(server, domain, service, port, name):
    result = {}
    in_pieces = name.startswith("pieces-")
    header = HEADERS[name.removeprefix("pieces-")]
    address = socket.getaddrinfo(server, port, socket.AF_INET)[0][4]
    with socket.socket() as sock:
        sock.settimeout(20)
        try:
            sock.connect(address)
            if service.endswith("s"):
                stream = Tls(sock, domain, header, in_pieces)
                result["certificate"] = stream.subject()
                stream.sendall(request(service, domain))
            else:
                stream = sock
                send(sock, header, request(service, domain), in_pieces)
            answer = b""
            while b"features" not in answer and b"HTTP/1.1 404" not in answer:
                data = stream.recv(4096)
                if not data:
                    raise ConnectionError("closed")
                answer += data
            result["answer"] = answer.decode()[:300]
        except (OSError, ssl.SSLError) as error:
            result["closed"] = str(error)
    return result


def main():
    server, domain, *steps = sys.argv[1:]
    for step in steps:
        service, port, header = step.split()
        print(step, json.dumps(run(server, domain, service, int(port), header)), flush=True)


main()

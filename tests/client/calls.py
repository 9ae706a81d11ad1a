"""What a client does before a call: it asks for the TURN servers (XEP-0215), and for relays at one (RFC 8656).

Requests come on standard input (`serve` in session.py). Servers are asked at ADDRESS, whatever their names resolve to.

    services ADDRESS DOMAIN USER PASSWORD    the services that the user is told of, as JSON
    call ADDRESS USERNAME PASSWORD           two clients, one by UDP and one by TCP, send each other a text through their
                                             relays: the relays' addresses
    peers ADDRESS USERNAME PASSWORD PEER…    JSON with the error for each address as a peer, or null
"""

import asyncio
import hashlib
import hmac
import ipaddress
import json
import os
import socket
import struct
from xml.etree import ElementTree

from session import TIMEOUT, Client, serve

PORT = 3478
COOKIE = 0x2112A442
ALLOCATE, SEND, DATA_INDICATION, CREATE_PERMISSION = 0x003, 0x016, 0x017, 0x008
SUCCESS, ERROR = 0x100, 0x110
USERNAME, INTEGRITY, ERROR_CODE, REALM, NONCE = 0x0006, 0x0008, 0x0009, 0x0014, 0x0015
XOR_PEER_ADDRESS, DATA, XOR_RELAYED_ADDRESS, REQUESTED_TRANSPORT = 0x0012, 0x0013, 0x0016, 0x0019
UDP = b"\x11\0\0\0"


class Refused(RuntimeError):
    def __init__(self, attributes):
        hundreds, rest = attributes[ERROR_CODE][2:4]
        self.code = hundreds * 100 + rest
        self.attributes = attributes
        super().__init__(self.code)


def packed(address, port=0):
    """XOR-PEER-ADDRESS of an IPv4 address."""
    return struct.pack("!xBHI", 1, port ^ COOKIE >> 16, int(ipaddress.IPv4Address(address)) ^ COOKIE)


def unpacked(attribute):
    port, address = struct.unpack("!2xHI", attribute)
    return str(ipaddress.IPv4Address(address ^ COOKIE)), port ^ COOKIE >> 16


class Relay:
    """A client of a TURN server, with one relay."""

    def __init__(self, address, kind, username, password):
        self.socket = socket.socket(socket.AF_INET, kind)
        self.socket.settimeout(TIMEOUT)
        self.socket.connect((address, PORT))
        # Its buffer has room for every datagram, so that one can be read in two parts, like a stream.
        self.messages = self.socket.makefile("rb", buffering=65536)
        self.credentials = []
        try:
            self.request(ALLOCATE, (REQUESTED_TRANSPORT, UDP))
            raise AssertionError("a relay without credentials")
        except Refused as why:
            assert why.code == 401, why
            realm, nonce = why.attributes[REALM], why.attributes[NONCE]
        self.credentials = [(USERNAME, username.encode()), (REALM, realm), (NONCE, nonce)]
        self.key = hashlib.md5(b":".join([username.encode(), realm, password.encode()])).digest()
        self.address = unpacked(self.request(ALLOCATE, (REQUESTED_TRANSPORT, UDP))[XOR_RELAYED_ADDRESS])

    def send(self, kind, *attributes):
        body = b"".join(
            struct.pack("!HH", name, len(value)) + value + bytes(-len(value) % 4) for name, value in attributes
        )
        transaction = os.urandom(12)

        def head(length):
            return struct.pack("!HHI", kind, length, COOKIE) + transaction

        if self.credentials and kind != SEND:
            signed = head(len(body) + 24) + body
            body += struct.pack("!HH", INTEGRITY, 20) + hmac.digest(self.key, signed, "sha1")
        self.socket.sendall(head(len(body)) + body)
        return transaction

    def receive(self):
        """A message's kind, transaction and attributes."""
        kind, length, _, transaction = struct.unpack("!HHI12s", self.messages.read(20))
        body, attributes = self.messages.read(length), {}
        while body:
            name, length = struct.unpack("!HH", body[:4])
            attributes[name] = body[4 : 4 + length]
            body = body[4 + length + -length % 4 :]
        return kind, transaction, attributes

    def request(self, method, *attributes):
        sent = self.send(method, *attributes, *self.credentials)
        kind, transaction, answer = self.receive()
        assert transaction == sent, "the answer to another request"
        if kind == method | ERROR:
            raise Refused(answer)
        assert kind == method | SUCCESS, hex(kind)
        return answer

    def permit(self, address):
        self.request(CREATE_PERMISSION, (XOR_PEER_ADDRESS, packed(address)))

    def tell(self, other, text):
        self.send(SEND, (XOR_PEER_ADDRESS, packed(*other.address)), (DATA, text))
        kind, _, attributes = other.receive()
        seen = (kind, unpacked(attributes[XOR_PEER_ADDRESS]), attributes[DATA])
        assert seen == (DATA_INDICATION, self.address, text), seen


async def services(address, domain, user, password):
    client = await Client(f"{user}@{domain}", password).log_in(5222, address)
    iq = client.make_iq_get(ito=domain)
    iq.append(ElementTree.fromstring("<services xmlns='urn:xmpp:extdisco:2'/>"))
    answer = await iq.send(timeout=TIMEOUT)
    await client.disconnect()
    return json.dumps([service.attrib for service in answer.xml.iter("{urn:xmpp:extdisco:2}service")])


async def call(address, username, password):
    def both():
        alice, bob = (Relay(address, kind, username, password) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM))
        alice.permit(bob.address[0])
        bob.permit(alice.address[0])
        alice.tell(bob, b"Hello, Bob")
        bob.tell(alice, b"Hello, Alice")
        return " ".join(f"{host}:{port}" for host, port in (alice.address, bob.address))

    return await asyncio.to_thread(both)


async def peers(address, username, password, *tried):
    def each():
        relay = Relay(address, socket.SOCK_DGRAM, username, password)
        errors = {}
        for peer in tried:
            try:
                relay.permit(peer)
                errors[peer] = None
            except Refused as why:
                errors[peer] = why.code
        return json.dumps(errors)

    return await asyncio.to_thread(each)


if __name__ == "__main__":
    asyncio.run(serve({"services": services, "call": call, "peers": peers}))

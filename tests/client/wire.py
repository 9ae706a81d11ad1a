"""Checks the certificates that a server presents, and keeps sessions open meanwhile.

It runs in the network of the server's container. Requests come on standard input (`serve` in session.py).

    look DOMAIN                  the certificate at each port, for a client with SNI for DOMAIN:
                                 PORT=SHA-256 of the certificate, or PORT=none if there is no handshake
    look-unnamed DOMAIN          the same for a client without SNI
    wait DOMAIN SHA-256 SECONDS  waits until every port presents this certificate: PORT=the time (Unix, in seconds) of
                                 the first check that found it, or PORT=never
    open COUNT DOMAIN            opens COUNT sessions of alice
    alive                        how many of these sessions were never lost and get an answer now
"""

import asyncio
import hashlib
import socket
import ssl
import sys
import time

from slixmpp.exceptions import IqError, IqTimeout

from session import TIMEOUT, Client, serve

# Clients with STARTTLS and with direct TLS, other servers, HTTPS.
PORTS = (5222, 5223, 5269, 5281)
NAMESPACES = {5222: "jabber:client", 5269: "jabber:server"}


def handshake(port, domain, is_named):
    """Returns the certificate's fingerprint. It blocks."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as plain:
        if port in NAMESPACES:
            start_tls(plain, domain, NAMESPACES[port])
        name = domain.encode("idna").decode() if is_named else None
        with context.wrap_socket(plain, server_hostname=name) as encrypted:
            return hashlib.sha256(encrypted.getpeercert(binary_form=True)).hexdigest()


def start_tls(plain, domain, namespace):
    plain.sendall(
        f"<stream:stream to='{domain}' version='1.0' xmlns='{namespace}'"
        " xmlns:stream='http://etherx.jabber.org/streams'>"
        "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>".encode()
    )
    seen = b""
    while b"<proceed" not in seen:
        more = plain.recv(4096)
        if not more:
            raise ConnectionError(f"the server closed the stream: {seen.decode(errors='replace')}")
        seen += more


async def seen_at(port, domain, is_named=True):
    try:
        return await asyncio.to_thread(handshake, port, domain, is_named)
    except OSError as reason:
        print(f"{domain}, port {port}: {reason}", file=sys.stderr)
        return "none"


async def at_each_port(question):
    return " ".join(f"{port}={answer}" for port, answer in zip(PORTS, await asyncio.gather(*map(question, PORTS))))


async def look(domain):
    return await at_each_port(lambda port: seen_at(port, domain))


async def look_unnamed(domain):
    return await at_each_port(lambda port: seen_at(port, domain, is_named=False))


async def wait(domain, fingerprint, seconds):
    deadline = time.time() + float(seconds)

    async def first_seen(port):
        while time.time() < deadline:
            if await seen_at(port, domain) == fingerprint:
                return f"{time.time():.3f}"
            await asyncio.sleep(0.01)
        return "never"

    return await at_each_port(first_seen)


class Session(Client):
    """A client that sends nothing by itself: presence among a hundred clients would be ten thousand stanzas."""

    def __init__(self, jid, password):
        super().__init__(jid, password)
        self["feature_mechanisms"].use_mech = "PLAIN"  # SCRAM is slow for a hundred sessions
        self.is_lost = False
        self.add_event_handler("disconnected", self._lost)

    async def _started(self, _):
        if not self._ready.done():
            self._ready.set_result(None)

    def _lost(self, _):
        self.is_lost = True

    async def is_alive(self):
        if self.is_lost:
            return False
        ping = self.make_iq_get(queryxmlns="urn:xmpp:ping", ito=self.requested_jid.domain)
        try:
            await ping.send(timeout=TIMEOUT)
        except IqTimeout:
            return False
        except IqError:
            pass  # this is an answer too
        return not self.is_lost


sessions = []


async def open_sessions(count, domain):
    # A few at a time: with a hundred at once, the last would wait for all others, and time out on a busy machine.
    for opened in range(0, int(count), 10):
        new = [Session(f"alice@{domain}", "secret-a") for _ in range(min(10, int(count) - opened))]
        sessions.extend(await asyncio.gather(*(session.log_in(5222, "127.0.0.1") for session in new)))
    return str(len(sessions))


async def alive():
    return str(sum(await asyncio.gather(*(session.is_alive() for session in sessions))))


REQUESTS = {"look": look, "look-unnamed": look_unnamed, "wait": wait, "open": open_sessions, "alive": alive}

if __name__ == "__main__":
    asyncio.run(serve(REQUESTS))

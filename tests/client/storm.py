"""Users who write as fast as the server takes it, and one who asks whether it still answers.

It runs in the network of the server's container. Requests come on standard input (`serve` in session.py).

    begin DOMAIN COUNT  the users writer0, writer1, … begin to write to carol. Their texts are `storm USER NUMBER`
    pause               they pause
    resume              they go on
    acked               for each, how many messages the server has acknowledged (XEP-0198)
    longest             the longest answer to a ping since the last such request, in milliseconds
"""

import asyncio
import base64
import itertools
import re
import socket
import ssl
import threading
import time

from session import TIMEOUT, serve

# How many messages are sent before an acknowledgement is asked for.
BATCH = 5

writers = []
may_write = threading.Event()


class Stream:
    """A session over TLS, with blocking calls."""

    def __init__(self, domain, user):
        self.domain = domain
        self.socket = socket.create_connection(("127.0.0.1", 5222), timeout=TIMEOUT)
        self.open()
        self.ask("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "<proceed[^>]*>")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.socket = context.wrap_socket(self.socket, server_hostname=domain)
        self.open()
        password = base64.b64encode(f"\0{user}\0secret".encode()).decode()
        self.ask(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{password}</auth>", "<success")
        self.open()
        self.ask("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>", "</iq>")

    def ask(self, text, pattern):
        """Sends a text, and returns the match of a pattern in what comes."""
        self.socket.sendall(text.encode())
        said = ""
        while not (found := re.search(pattern, said)):
            more = self.socket.recv(65536).decode()
            assert more, f"the server closed the stream: {said}"
            said += more
        return found

    def open(self):
        self.ask(
            f"<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'"
            f" version='1.0' to='{self.domain}'>",
            "</stream:features>",
        )


class Writer(threading.Thread):
    def __init__(self, domain, user):
        super().__init__(daemon=True)
        self.user, self.stream, self.acked = user, Stream(domain, user), 0
        self.stream.ask("<enable xmlns='urn:xmpp:sm:3'/>", "<enabled")

    def run(self):
        for first in itertools.count(0, BATCH):
            may_write.wait()
            messages = (
                f"<message type='chat' to='carol@{self.stream.domain}'><body>storm {self.user} {number}</body></message>"
                for number in range(first, first + BATCH)
            )
            answer = self.stream.ask("".join(messages) + "<r xmlns='urn:xmpp:sm:3'/>", r"<a [^>]*\bh='(\d+)'")
            self.acked = int(answer[1])


class Pings(threading.Thread):
    def __init__(self, domain):
        super().__init__(daemon=True)
        self.stream, self.longest = Stream(domain, "witness"), 0

    def run(self):
        while True:
            before = time.perf_counter()
            self.stream.ask("<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>", "<iq[^>]* id='p'")
            self.longest = max(self.longest, time.perf_counter() - before)
            time.sleep(0.01)


async def begin(domain, count):
    writers[:] = [Pings(domain), *(Writer(domain, f"writer{number}") for number in range(int(count)))]
    may_write.set()
    for writer in writers:
        writer.start()


async def pause():
    may_write.clear()


async def resume():
    may_write.set()


async def acked():
    assert all(writer.is_alive() for writer in writers), "a session has ended"
    return " ".join(str(writer.acked) for writer in writers[1:])


async def longest():
    longest, writers[0].longest = writers[0].longest, 0
    return f"{longest * 1e3:.0f}"


if __name__ == "__main__":
    asyncio.run(serve({"begin": begin, "pause": pause, "resume": resume, "acked": acked, "longest": longest}))

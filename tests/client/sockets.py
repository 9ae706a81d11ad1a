"""Sessions without slixmpp: BOSH (XEP-0124, XEP-0206), WebSocket (RFC 7395), and an external component (XEP-0114)."""

import asyncio
import base64
import hashlib
import random
import re
import ssl

import aiohttp

TIMEOUT = 15
BIND = "<iq xmlns='jabber:client' type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"


def unverified():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def plain(user, password):
    text = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
    return f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{text}</auth>"


def ping(domain, number):
    return f"<iq xmlns='jabber:client' type='get' id='{number}' to='{domain}'><ping xmlns='urn:xmpp:ping'/></iq>"


def is_answered(text, number):
    """Whether there is an answer to a ping: an error is one too."""
    return re.search(rf"<iq [^>]*\bid=['\"]{number}['\"]", text)


class Bosh:
    def __init__(self, domain):
        self.domain = domain
        self.http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT))
        self.number = random.randrange(10**6, 10**8)
        self.id = ""

    async def _post(self, content="", attributes=""):
        self.number += 1
        body = f"<body xmlns='http://jabber.org/protocol/httpbind' rid='{self.number}' {self.id} {attributes}>{content}</body>"
        url = "https://127.0.0.1:5281/http-bind"
        async with self.http.post(url, data=body, headers={"Host": self.domain}, ssl=unverified()) as answer:
            assert answer.status == 200, f"BOSH: {answer.status}"
            return await answer.text()

    async def log_in(self, user, password):
        ours = f"to='{self.domain}' xmlns:xmpp='urn:xmpp:xbosh' xmpp:version='1.0'"
        answer = await self._post("", f"{ours} wait='1' hold='1' ver='1.6'")
        self.id = re.search(r"\bsid=['\"][^'\"]+['\"]", answer).group()
        answer = await self._post(plain(user, password))
        assert "<success" in answer, f"BOSH: {answer}"
        await self._post("", f"{ours} xmpp:restart='true'")
        answer = await self._post(BIND)
        assert "<jid>" in answer, f"BOSH: {answer}"
        return self

    async def check(self):
        number = random.randrange(10**9)
        answer = await self._post(ping(self.domain, number))
        for _ in range(TIMEOUT):
            if is_answered(answer, number):
                return
            answer = await self._post()
        raise AssertionError(f"BOSH: no answer, but {answer}")

    async def close(self):
        await self.http.close()


class WebSocket:
    def __init__(self, domain, address="127.0.0.1"):
        self.domain = domain
        self.address = address
        self.http = aiohttp.ClientSession()

    async def _until(self, condition):
        while True:
            received = await self.socket.receive(timeout=TIMEOUT)
            assert received.type == aiohttp.WSMsgType.TEXT, f"WebSocket: {received}"
            if condition(received.data):
                return

    async def log_in(self, user, password):
        url = f"wss://{self.address}:5281/xmpp-websocket"
        self.socket = await self.http.ws_connect(url, headers={"Host": self.domain}, protocols=["xmpp"], ssl=unverified())
        stream = f"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='{self.domain}' version='1.0'/>"
        for sent, awaited in ((stream, "features>"), (plain(user, password), "<success"), (stream, "features>"), (BIND, "<jid>")):
            await self.socket.send_str(sent)
            await self._until(lambda text: awaited in text)
        return self

    async def check(self):
        number = random.randrange(10**9)
        await self.socket.send_str(ping(self.domain, number))
        await self._until(lambda text: is_answered(text, number))

    async def close(self):
        await self.http.close()


class Component:
    def __init__(self, host):
        self.host = host

    async def log_in(self, secret):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", 5347)
        self._write(
            "<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams'"
            f" to='{self.host}'>"
        )
        header = await self._until("<stream:stream[^>]*>")
        number = re.search(r"\bid=['\"]([^'\"]+)", header).group(1)
        self._write(f"<handshake>{hashlib.sha1((number + secret).encode()).hexdigest()}</handshake>")
        await self._until("<handshake */>")
        return self

    def _write(self, text):
        self.writer.write(text.encode())

    async def _until(self, pattern):
        seen = ""
        while not re.search(pattern, seen):
            more = await asyncio.wait_for(self.reader.read(4096), TIMEOUT)
            assert more, f"the server closed the component's connection: {seen}"
            seen += more.decode(errors="replace")
        return seen

    async def gets(self, text):
        await self._until(re.escape(text))

    async def close(self):
        self.writer.close()

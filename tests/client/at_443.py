"""Everything that a server has on port 443, for an account of its own.

Answers requests on standard input. The first is `at ADDRESS DOMAIN USER:PASSWORD`, which says where the domain is, and
answers with the address of this machine. Then: `login` by direct TLS, `server` (the stream of another server, by direct
TLS), `websocket`, `bosh`, `host-meta`, `upload SIZE` in bytes after a login, and `page URL`.
"""

import asyncio
import base64
import re
import socket
import ssl

from session import TIMEOUT, Client, account, fill, serve, slot

session = None


def plain():
    return base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode()


async def at(address, domain, user):
    global DOMAIN, URL, USER, PASSWORD
    DOMAIN, URL, (USER, PASSWORD) = domain, f"https://{domain}", account(user)
    with open("/etc/hosts", "a") as hosts:
        hosts.write(f"{address} {domain}\n")
    return socket.gethostbyname(socket.gethostname())


async def login():
    global session
    session = Client(f"{USER}@{DOMAIN}/443", PASSWORD, direct_tls=True)
    session.ssl_context.set_alpn_protocols(["xmpp-client"])
    await session.log_in(443, DOMAIN)
    return session.tls_version()


async def server():
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["xmpp-server"])
    reader, writer = await asyncio.open_connection(DOMAIN, 443, ssl=context, server_hostname=DOMAIN)
    writer.write(
        f"<?xml version='1.0'?><stream:stream to='{DOMAIN}' from='other.example' version='1.0' xmlns='jabber:server' "
        "xmlns:stream='http://etherx.jabber.org/streams'>".encode()
    )
    answer = b""
    while data := await reader.read(4096):
        answer += data
    writer.close()
    # So it is served as a server, whose certificate is missing.
    assert b"'jabber:server'" in answer and b"certificate could not be validated" in answer, answer


def http():
    import aiohttp

    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False))


async def websocket():
    async with http() as web, web.ws_connect(f"wss://{DOMAIN}/xmpp-websocket", protocols=["xmpp"]) as stream:
        await stream.send_str(f"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='{DOMAIN}' version='1.0'/>")
        while "features" not in (text := await stream.receive_str(timeout=TIMEOUT)):
            pass
        assert "PLAIN" in text, text
        await stream.send_str(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain()}</auth>")
        text = await stream.receive_str(timeout=TIMEOUT)
        assert "<success" in text, text


async def bosh():
    attributes = "xmlns='http://jabber.org/protocol/httpbind'"
    begin = f"<body {attributes} to='{DOMAIN}' rid='1' wait='5' hold='1' ver='1.6' xmpp:version='1.0' xmlns:xmpp='urn:xmpp:xbosh'/>"
    async with http() as web:
        async with web.post(f"{URL}/http-bind", data=begin) as answer:
            text = await answer.text()
        assert "PLAIN" in text, text
        sid = re.search(r"sid=['\"]([^'\"]+)", text).group(1)
        auth = f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain()}</auth>"
        async with web.post(f"{URL}/http-bind", data=f"<body {attributes} rid='2' sid='{sid}'>{auth}</body>") as answer:
            text = await answer.text()
        assert "<success" in text, text


async def host_meta():
    async with http() as web:
        for name in ("host-meta", "host-meta.json"):
            async with web.get(f"{URL}/.well-known/{name}") as answer:
                text = await answer.text()
            for link in (f"wss://{DOMAIN}/xmpp-websocket", f"{URL}/http-bind"):
                assert link in text, f"{name}: {text}"


async def upload(size):
    content = bytes(range(256)) * (int(size) // 256)
    return await fill(await slot(session, content), content)


async def page(url):
    async with http() as web, web.get(url) as answer:
        return f"{answer.status} {len(await answer.text())}"


asyncio.run(
    serve(
        {
            "at": at,
            "login": login,
            "server": server,
            "websocket": websocket,
            "bosh": bosh,
            "host-meta": host_meta,
            "upload": upload,
            "page": page,
        },
        # An upload takes long on a busy machine.
        patience=14 * TIMEOUT,
    )
)

"""Connections to a router of shards, with good and bad beginnings.

Answers requests on standard input. The first is `at ADDRESS`, which says where the router is, and answers with the
address of this machine. Then:

    begin PORT NAME HOST   sends one of BEGINNINGS, with HOST in it, to a port for STARTTLS
    tls PORT NAME ALPN     sends a stream header, or a request, over TLS with this name in SNI; `-` is none of either
    silent PORT            sends nothing
    unserved HOST…         asks for all at once at 5222: what those get that are not served
    keep HOST              opens a stream and keeps it
    kept                   how many of the kept streams still get an answer; closes them

`begin`, `tls` and `silent` answer with what came back: `features` for a host that is served there, `error NAME` of a
stream, `HTTP STATUS`, or `closed`; then ` after`, and the whole seconds that it took.
"""

import asyncio
import re
import socket
import ssl
import time

from session import TIMEOUT, serve

STREAM = "xmlns='jabber:{kind}' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'"
OTHER = "other.example"  # a host of another shard

# A tuple is sent in pieces, with a pause between them. `pieces` are single bytes.
BEGINNINGS = {
    "plain": "<stream:stream to='{host}' {stream}>",
    "declaration": "<?xml version='1.0'?><stream:stream to='{host}' {stream}>",
    "declaration-encoding": "<?xml version=\"1.0\" encoding='UTF-8' ?>\n<stream:stream {stream} to='{host}'>",
    "double-quotes": '<stream:stream to="{host}" {stream}>',
    "spaces": " \r\n<stream:stream\n\t{stream}\n\tto = '{host}'\n>",
    "last": "<stream:stream {stream} xml:lang=\"it's\" to='{host}'>",
    "dot": "<stream:stream to='{host}.' {stream}>",
    "more": "<stream:stream to='{host}' {stream}><iq to='{other}' type='get' id='1'/>",
    "other-name": "<stream:stream xto='{other}' {stream} to-host='{other}' stream:to='{other}' to='{host}'>",
    "in-a-value": "<stream:stream from=\" to='{other}' \" {stream} id='> to=\"{other}\" >' to='{host}'>",
    "long": "<stream:stream id='" + "x" * 3000 + "' {stream} to='{host}'>",
    "split": ("<stream:stream {stream} t", "o='{half}", "{rest}'", ">"),
    "slow": ("<?xml version='1.0'", "?>", "<stream:stream {stream} to=", "'{host}'>"),
    "pieces": "<?xml version='1.0'?><stream:stream {stream} to='{host}'>",
    # Not served by anybody.
    "none": "<stream:stream {stream}>",
    "none-but-other-name": "<stream:stream xto='{host}' id=\" to='{host}' \" {stream}>",
    "empty": "<stream:stream to='' {stream}>",
    "user": "<stream:stream to='alice@{host}' {stream}>",
    "entry": "<stream:stream to='.' {stream}>",
    "unquoted": "<stream:stream to={host} {stream}>",
    "twice": "<stream:stream to='{host}' to='{other}' {stream}>",
    "later": "<stream:stream {stream}><iq to='{host}' type='get' id='1'/>",
    "64-kB": "<stream:stream id='" + "x" * 65536,
    "64-kB-of-names": "<stream:stream" + " a=''" * 13000,
    "64-kB-of-quotes": "<stream:stream " + "'" * 65536,
    "64-kB-of-spaces": " " * 65536,
    "64-kB-of-declaration": "<?xml " + "?" * 65536,
    "http": "GET / HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "garbage": "\x16\x03\x01\x02" + "\xff" * 600,
    "incomplete": "<stream:stream to='{host}' {stream} ",
}


async def at(address):
    global ROUTER
    ROUTER = address
    with socket.create_connection((address, 5222)) as connection:
        return connection.getsockname()[0]


def filled(text, port, host):
    kind = "server" if port in ("5269", "5270") else "client"
    half = len(host) // 2
    return text.format(
        host=host, other=OTHER, half=host[:half], rest=host[half:], stream=STREAM.format(kind=kind)
    ).encode("latin-1" if "\xff" in text else "utf-8")


def timed(request):
    """The same with the time that it took. A connection that is reset at once is closed."""

    async def answer(*arguments):
        began = time.monotonic()
        try:
            result = await request(*arguments)
        except ConnectionError:
            result = "closed"
        return f"{result} after {int(time.monotonic() - began)}"

    return answer


async def come_back(reader):
    """What the router or a shard says, until it is clear."""
    said = b""
    try:
        while not re.search(rb"<stream:features|<stream:error>.*</stream:error>|HTTP/1\.1 [0-9]+", said, re.S):
            data = await asyncio.wait_for(reader.read(4096), 2 * TIMEOUT)
            if not data:
                break
            said += data
    except ConnectionError:
        pass
    if b"<stream:features" in said:
        return "features"
    if error := re.search(rb"<stream:error><([a-z-]+)", said):
        return f"error {error.group(1).decode()}"
    if status := re.search(rb"HTTP/1\.1 ([0-9]+)", said):
        return f"HTTP {status.group(1).decode()}"
    return f"closed {said[:200]!r}" if said else "closed"


async def begin(port, name, host):
    texts = BEGINNINGS[name]
    pieces = [filled(text, port, host) for text in ([texts] if isinstance(texts, str) else texts)]
    pause = 0.8 if name == "slow" else 0.05
    if name == "pieces":
        pieces, pause = [bytes([byte]) for byte in pieces[0]], 0
    reader, writer = await asyncio.open_connection(ROUTER, int(port))
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    answer = asyncio.ensure_future(come_back(reader))
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
    except ConnectionError:
        pass
    result = await answer
    writer.close()
    return result


async def tls(port, name, alpn):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if alpn != "-":
        context.set_alpn_protocols([alpn])
    named = None if name == "-" else name
    try:
        connection = asyncio.open_connection(ROUTER, int(port), ssl=context, server_hostname=named or "")
        reader, writer = await asyncio.wait_for(connection, TIMEOUT)
    except ssl.SSLError:
        return "closed in the handshake"
    is_web = port == "5281" or (port == "443" and not alpn.startswith("xmpp-"))
    host = named or "unnamed.example"
    request = f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode() if is_web else None
    kind = "5270" if alpn == "xmpp-server" else port
    writer.write(request or filled(BEGINNINGS["plain"], kind, host))
    result = await come_back(reader)
    writer.close()
    return result


async def silent(port):
    reader, writer = await asyncio.open_connection(ROUTER, int(port))
    result = await come_back(reader)
    writer.close()
    return result


async def unserved(*hosts):
    async def ask(host):
        answer = await timed(begin)("5222", "plain", host)
        return "" if answer.startswith("features ") else f"{host}: {answer}; "

    return "".join(await asyncio.gather(*map(ask, hosts)))


streams = []


async def keep(host):
    reader, writer = await asyncio.open_connection(ROUTER, 5222)
    writer.write(filled(BEGINNINGS["plain"], "5222", host))
    result = await come_back(reader)
    assert result == "features", result
    streams.append((reader, writer))


async def kept():
    count = 0
    for reader, writer in streams:
        writer.write(b"</stream:stream>")
        try:
            count += b"</stream:stream>" in await asyncio.wait_for(reader.read(), TIMEOUT)
        except ConnectionError:
            pass
        writer.close()
    streams.clear()
    return str(count)


REQUESTS = {
    "at": at,
    "begin": timed(begin),
    "tls": timed(tls),
    "silent": timed(silent),
    "unserved": unserved,
    "keep": keep,
    "kept": kept,
}

asyncio.run(serve(REQUESTS))

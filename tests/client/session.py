"""The first steps of users on a new server, with an independent client.

usage: session.py DOMAIN USER:PASSWORD USER:PASSWORD [STEP…] [--text TEXT]

Steps, in this order: login, direct-tls, message, archive, room, upload. The default is all of them. Each
successful step prints a line, `STEP: RESULT`. The first failing step ends the script with a reason and
status 1. Certificates are not verified (they are self-signed in the tests), but nothing is ever sent
without TLS: slixmpp is configured to refuse plain text. TEXT is the text of the message. The default is
unique, so that each run finds its own message in the archive.
"""

import argparse
import asyncio
import io
import logging
import ssl
import sys
import uuid

from slixmpp import JID, ClientXMPP
from slixmpp.exceptions import IqError, IqTimeout

TIMEOUT = 20


class Client(ClientXMPP):
    def __init__(self, jid, password, direct_tls=False):
        unverified = ssl.create_default_context()
        unverified.check_hostname = False
        unverified.verify_mode = ssl.CERT_NONE
        super().__init__(jid, password, ssl_context=unverified)
        self.enable_direct_tls = direct_tls
        self.enable_starttls = not direct_tls
        self.enable_plaintext = False
        for plugin in ("xep_0030", "xep_0045", "xep_0313"):
            self.register_plugin(plugin)
        self.add_event_handler("failed_all_auth", lambda _: self._give_up("authentication failed"))
        self.add_event_handler("connection_failed", lambda why: self._give_up(f"no connection: {why}"))
        self._ready = asyncio.get_running_loop().create_future()
        self.add_event_handler("session_start", self._started)

    def _give_up(self, why):
        if not self._ready.done():
            self._ready.set_exception(RuntimeError(why))

    async def _started(self, _):
        self.send_presence()
        await self.get_roster()
        if not self._ready.done():
            self._ready.set_result(None)

    async def log_in(self, port=None, address=None):
        """Connects to a port of this address, or of the domain's. Without a port, SRV records decide both."""
        self.connect(port and (address or self.requested_jid.domain), port)
        await asyncio.wait_for(self._ready, TIMEOUT)
        return self

    def tls_version(self):
        """The version of TLS on the stream, or None on a plain one."""
        session = self.transport.get_extra_info("ssl_object")
        return session.version() if session else None


async def login(args, clients):
    alice, bob = await asyncio.gather(*(Client(jid, password).log_in(5222) for jid, password in args.accounts))
    clients += [alice, bob]
    assert alice.tls_version() and bob.tls_version(), "the stream is not encrypted"
    return f"{alice.boundjid.bare} and {bob.boundjid.bare} over {alice.tls_version()}"


async def direct_tls(args, _clients):
    jid, password = args.accounts[0]
    client = await Client(f"{jid}/direct", password, direct_tls=True).log_in(5223)
    seen = client.tls_version()
    assert seen, "the stream is not encrypted"
    await client.disconnect()
    return f"{jid} over {seen} from the first byte"


async def message(args, clients):
    alice, bob = clients
    arrival = asyncio.ensure_future(bob.wait_until("message", TIMEOUT))
    await asyncio.sleep(0)  # lets wait_until register its handler
    alice.send_message(mto=bob.boundjid.bare, mbody=args.text, mtype="chat")
    seen = await arrival
    assert seen["body"] == args.text, f"another text arrived: {seen['body']!r}"
    assert seen["from"].bare == alice.boundjid.bare, f"it came from {seen['from']}"
    return f"{seen['from'].bare} to {bob.boundjid.bare}"


async def archive(args, clients):
    alice, bob = clients
    # The archive may store the message a moment after its delivery.
    for _ in range(TIMEOUT * 10):
        bodies = []
        async for result in bob["xep_0313"].iterate(with_jid=alice.boundjid.bare, reverse=True, total=10):
            bodies.append(result["mam_result"]["forwarded"]["stanza"]["body"])
        if args.text in bodies:
            return f"{len(bodies)} messages"
        await asyncio.sleep(0.1)
    raise AssertionError(f"the message is not in the archive, which has {bodies!r}")


async def enter(client, jid, nick):
    """Joins a room and waits for our own presence in it (slixmpp's own join_muc_wait misses the subject)."""
    entered = asyncio.ensure_future(client.wait_until(f"muc::{jid}::self-presence", TIMEOUT))
    refused = asyncio.ensure_future(client.wait_until(f"muc::{jid}::presence-error", TIMEOUT))
    await asyncio.sleep(0)
    client["xep_0045"].join_muc(jid, nick)
    done, pending = await asyncio.wait({entered, refused}, return_when=asyncio.FIRST_COMPLETED)
    for future in pending:
        future.cancel()
    assert entered in done and not entered.exception(), f"{nick} could not enter {jid}: {[str(f.exception() or f.result()) for f in done]}"


async def room(args, clients):
    alice, bob = clients
    jid = JID(f"tea@conference.{args.domain}")
    await enter(alice, jid, "alice")
    # A new room is locked until its owner has accepted a configuration (XEP-0045, 10.1.2).
    form = await alice["xep_0045"].get_room_config(jid)
    form["type"] = "submit"
    await alice["xep_0045"].set_room_config(jid, form)
    await enter(bob, jid, "bob")
    arrival = asyncio.ensure_future(bob.wait_until(f"muc::{jid}::message", TIMEOUT))
    await asyncio.sleep(0)
    alice.send_message(mto=jid, mbody="to all", mtype="groupchat")
    seen = await arrival
    assert seen["body"] == "to all", f"another text arrived: {seen['body']!r}"
    return str(jid)


async def slot(alice, content):
    """Asks for a place for a file."""
    alice.register_plugin("xep_0363")
    service = await alice["xep_0363"].find_upload_service(timeout=TIMEOUT)
    assert service is not None, "service discovery shows no upload service"
    answer = await alice["xep_0363"].request_slot(
        service["from"], "bytes.bin", len(content), "application/octet-stream", timeout=TIMEOUT
    )
    return answer["http_upload_slot"]


async def fill(slot, content):
    """Puts a file into its place and gets it again. Returns its address."""
    # Imported here, because the import takes as long as everything else.
    import aiohttp

    put, get = slot["put"], slot["get"]["url"]
    headers = {header["name"]: header["value"] for header in put["headers"]}
    headers["Content-Type"] = "application/octet-stream"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as session:
        async with session.put(put["url"], data=io.BytesIO(content), headers={**headers, "Content-Length": str(len(content))}) as answer:
            assert answer.status in (200, 201), f"PUT {put['url']}: {answer.status} {await answer.text()}"
        async with session.get(get) as answer:
            assert answer.status == 200, f"GET {get}: {answer.status}"
            assert await answer.read() == content, f"GET {get}: other bytes"
    return get


async def upload(args, clients):
    content = bytes(range(256)) * 64
    get = await fill(await slot(clients[0], content), content)
    return f"{len(content)} bytes by way of {get}"


async def serve(requests, patience=6 * TIMEOUT):
    """Answers each line on standard input, the name of a request and its arguments, with a line on standard output:
    `ok …` or `error: REASON`."""
    # slixmpp leaves a task for each session, of which asyncio warns, and itself warns of each acknowledgement (XEP-0198).
    logging.disable(logging.ERROR)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        name, *arguments = line.rstrip("\n").split(" ")
        try:
            answer = await asyncio.wait_for(requests[name](*arguments), patience)
            print("ok", answer or "", flush=True)
        except (AssertionError, RuntimeError, OSError, asyncio.TimeoutError, IqError, IqTimeout) as reason:
            print(f"error: {type(reason).__name__}: {reason}".replace("\n", " "), flush=True)


STEPS = {
    "login": login,
    "direct-tls": direct_tls,
    "message": message,
    "archive": archive,
    "room": room,
    "upload": upload,
}


async def main(args):
    clients = []
    for name, step in STEPS.items():
        if args.steps and name not in args.steps:
            continue
        try:
            print(f"{name}: {await step(args, clients)}", flush=True)
        except (AssertionError, RuntimeError, OSError, asyncio.TimeoutError, IqError, IqTimeout) as reason:
            print(f"{name}: {type(reason).__name__}: {reason}", file=sys.stderr)
            return 1
    for client in clients:
        await client.disconnect()
    return 0


def account(text):
    user, _, password = text.partition(":")
    return user, password


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domain")
    parser.add_argument("accounts", nargs=2, type=account, metavar="USER:PASSWORD")
    parser.add_argument("steps", nargs="*", metavar="STEP")
    parser.add_argument("--text", default=f"Grüße, ]] \"' {{{{ }}}} {uuid.uuid4()}")
    arguments = parser.parse_args()
    arguments.accounts = [(f"{user}@{arguments.domain}", password) for user, password in arguments.accounts]
    sys.exit(asyncio.run(main(arguments)))

"""Users whose sessions stay open while the server changes. They tell what they notice.

Requests come on standard input (`serve` in session.py). Nothing is sent without TLS. It runs in the network of the
server's container.

    open DOMAIN          alice and bob log in, and join a room of conference.DOMAIN
    check DOMAIN         their sessions are the same, and messages between them and in the room arrive
    slot DOMAIN          alice asks for a place for a file
    fill DOMAIN          she uploads the file to it
    gone DOMAIN          both have been told that the host is gone
    gather DOMAIN PEER   sessions of every kind are opened: of alice and bob, with a second client for carbons, carol whose
                         connection is lost before each change and whose session is resumed after it, BOSH, WebSocket, the
                         component gateway.DOMAIN, and of dave on another server, PEER
    crowd DOMAIN COUNT   so many more sessions of alice are opened, which a survey checks as well
    survey DOMAIN [SECONDS]  the checks of these sessions, of services and of new logins that fail, by name; each may take
                         so many seconds
"""

import asyncio
import sys
import uuid
from types import SimpleNamespace
from xml.etree import ElementTree

from slixmpp.exceptions import IqError, IqTimeout

from session import TIMEOUT, Client, enter, fill, message, room, serve, slot
from sockets import Bosh, Component, WebSocket
from wire import Session

# By domain: the two clients, and what they have noticed.
open_sessions = {}
slots = {}
CONTENT = bytes(range(256))
# How long a check of a survey may take.
PATIENCE = 15


async def log_in(user, domain, noticed):
    client = await Client(f"{user}@{domain}", f"secret-{user[0]}").log_in(5222, "127.0.0.1")
    client.add_event_handler("stream_error", lambda error: noticed.append(error["condition"]))
    client.add_event_handler("disconnected", lambda _: noticed.append("disconnected"))
    return client


async def open_(domain):
    noticed = []
    clients = [await log_in(user, domain, noticed) for user in ("alice", "bob")]
    open_sessions[domain] = clients, noticed
    await room(SimpleNamespace(domain=domain), clients)


async def check(domain):
    clients, noticed = open_sessions[domain]
    assert not noticed, f"the clients noticed {noticed}"
    await message(SimpleNamespace(text=str(uuid.uuid4())), clients)
    alice, bob = clients
    jid, text = f"tea@conference.{domain}", str(uuid.uuid4())
    arrival = asyncio.ensure_future(bob.wait_until(f"muc::{jid}::message", TIMEOUT))
    await asyncio.sleep(0)
    alice.send_message(mto=jid, mbody=text, mtype="groupchat")
    seen = (await arrival)["body"]
    assert seen == text, f"another text arrived in the room: {seen!r}"


async def slot_(domain):
    slots[domain] = await slot(open_sessions[domain][0][0], CONTENT)


async def fill_(domain):
    await fill(slots[domain], CONTENT)


async def gone(domain):
    _, noticed = open_sessions[domain]
    for _ in range(TIMEOUT * 10):
        if noticed.count("disconnected") == 2:
            break
        await asyncio.sleep(0.1)
    assert sorted(noticed) == ["disconnected", "disconnected", "host-gone", "host-gone"], f"noticed {noticed}"


class Witness(Client):
    """A client that keeps what arrives, and whether its session was lost."""

    def __init__(self, jid, password, **options):
        super().__init__(jid, password, **options)
        self.auto_reconnect = False
        self.register_plugin("xep_0198")
        self.is_lost = False
        self.awaited = {}
        self.add_event_handler("disconnected", self._lost)
        self.add_event_handler("session_resumed", self._resumed)
        self.add_filter("in", self._arrived)

    def _lost(self, _):
        self.is_lost = True

    def _resumed(self, _):
        self._ready.set_result("resumed")

    def _arrived(self, stanza):
        text = str(stanza)
        for awaited, future in self.awaited.items():
            if awaited in text and not future.done():
                future.set_result(None)
        return stanza

    async def gets(self, text):
        """Waits for a stanza with this text. It is registered before the first pause."""
        self.awaited[text] = asyncio.get_running_loop().create_future()
        await asyncio.wait_for(self.awaited[text], PATIENCE)
        del self.awaited[text]

    def still_here(self):
        assert not self.is_lost, f"{self.boundjid} was lost"

    async def ask(self, kind, to, tag, content=""):
        """Sends a request. Without an error, returns its answer as text."""
        iq = self.make_iq(ito=to, itype=kind)
        namespace, name = tag[1:].split("}")
        iq.append(ElementTree.fromstring(f"<{name} xmlns='{namespace}'>{content}</{name}>"))
        return str(await iq.send(timeout=PATIENCE))

    async def lose_connection(self):
        gone = asyncio.ensure_future(self.wait_until("disconnected", PATIENCE))
        await asyncio.sleep(0)
        self.transport.abort()
        await gone

    async def resume(self):
        self._ready = asyncio.get_running_loop().create_future()
        await asyncio.wait_for(self.log_in(5222, "127.0.0.1"), PATIENCE)
        assert self._ready.result() == "resumed", f"{self.boundjid} was not resumed"
        self.is_lost = False


def unique():
    return str(uuid.uuid4())


class Gathering:
    def __init__(self, domain, peer):
        self.domain, self.peer = domain, peer
        self.room = f"tea-{unique()}@conference.{domain}"
        self.slot = None
        self.crowd = []

    async def _client(self, user, **options):
        client = Witness(f"{user}@{self.domain}", f"secret-{user[0]}", **options)
        return await client.log_in(5223 if options.get("direct_tls") else 5222, "127.0.0.1")

    async def open(self):
        domain = self.domain
        self.alice, self.bob, self.phone, self.carol = [await self._client(user) for user in ("alice", "bob", "bob", "carol")]
        self.dave = await Witness(f"dave@{self.peer}", "secret-d").log_in(5222, self.peer)
        await self.phone.ask("set", None, "{urn:xmpp:carbons:2}enable")
        self.bosh = await Bosh(domain).log_in("alice", "secret-a")
        self.websocket = await WebSocket(domain).log_in("alice", "secret-a")
        await enter(self.alice, self.room, "alice")
        await self.alice.ask(
            "set", self.room, "{http://jabber.org/protocol/muc#owner}query", "<x xmlns='jabber:x:data' type='submit'/>"
        )
        await enter(self.bob, self.room, "bob")
        await self.doze()
        # The component answers no question of a client that looks for the upload service.
        self.component = await Component(f"gateway.{domain}").log_in("secret-g")

    async def doze(self):
        """Carol's connection is lost, and she gets a message meanwhile."""
        await self.carol.lose_connection()
        self.missed = unique()
        self.alice.send_message(mto=self.carol.boundjid.full, mbody=self.missed, mtype="chat")
        self.slot = await slot(self.alice, CONTENT)

    async def survey(self):
        # They are what a reload may not touch, so they come before anything else is sent.
        before = {"resumption": self.resumption(), "old_slot": fill(self.slot, CONTENT)}
        names = [name for name in dir(self) if name.startswith("has_")]
        rest = {name.removeprefix("has_"): getattr(self, name)() for name in names}
        failed = []
        for checks in (before, rest):
            for name, result in zip(checks, await asyncio.gather(*checks.values(), return_exceptions=True)):
                if isinstance(result, BaseException):
                    failed.append(name)
                    print(f"{name}: {result!r}", file=sys.stderr)
        try:
            await asyncio.wait_for(self.doze(), PATIENCE)
        except (RuntimeError, AssertionError, AttributeError, asyncio.TimeoutError, IqError, IqTimeout):
            failed.append("doze")
        return " ".join(failed)

    async def resumption(self):
        await asyncio.gather(self.carol.gets(self.missed), self.carol.resume())

    async def _send(self, sender, receiver, to, kind="chat"):
        text = unique()
        arrival = asyncio.ensure_future(receiver.gets(text))
        await asyncio.sleep(0)
        sender.send_message(mto=to, mbody=text, mtype=kind)
        await arrival

    async def has_sessions(self):
        for client in (self.alice, self.bob, self.phone, self.dave):
            client.still_here()

    async def has_crowd(self):
        assert all(await asyncio.gather(*(session.is_alive() for session in self.crowd))), "a session is lost"

    async def has_message(self):
        await self._send(self.alice, self.bob, self.bob.boundjid.full)

    async def has_message_back(self):
        await self._send(self.bob, self.alice, self.alice.boundjid.full)

    async def has_carbon(self):
        await self._send(self.alice, self.phone, self.bob.boundjid.full)

    async def has_room(self):
        await self._send(self.alice, self.bob, self.room, "groupchat")

    async def has_other_server(self):
        await self._send(self.alice, self.dave, self.dave.boundjid.full)

    async def has_message_of_other_server(self):
        await self._send(self.dave, self.bob, self.bob.boundjid.full)

    async def has_component(self):
        text = unique()
        arrival = asyncio.ensure_future(asyncio.wait_for(self.component.gets(text), PATIENCE))
        await asyncio.sleep(0)
        self.alice.send_message(mto=f"x@gateway.{self.domain}", mbody=text, mtype="chat")
        await arrival

    async def has_archive(self):
        rsm = "<set xmlns='http://jabber.org/protocol/rsm'><max>5</max><before/></set>"
        await self.alice.ask("set", None, "{urn:xmpp:mam:2}query", rsm)

    async def has_roster(self):
        await self.alice.ask("get", None, "{jabber:iq:roster}query")

    async def has_ping(self):
        await self.alice.ask("get", self.domain, "{urn:xmpp:ping}ping")

    async def has_version(self):
        await self.alice.ask("get", self.domain, "{jabber:iq:version}query")

    async def has_time(self):
        await self.alice.ask("get", self.domain, "{urn:xmpp:time}time")

    async def has_uptime(self):
        await self.alice.ask("get", self.domain, "{jabber:iq:last}query")

    async def has_registration(self):
        await self.alice.ask("get", None, "{jabber:iq:register}query")

    async def has_blocklist(self):
        await self.alice.ask("get", None, "{urn:xmpp:blocking}blocklist")

    async def has_private_storage(self):
        await self.alice.ask("get", None, "{jabber:iq:private}query", "<x xmlns='x:y'/>")

    async def has_vcard(self):
        await self.alice.ask("set", None, "{vcard-temp}vCard", "<FN>Alice</FN>")
        assert "Alice" in await self.alice.ask("get", None, "{vcard-temp}vCard"), "another vCard"

    async def has_pep(self):
        text = unique()
        namespace = "{http://jabber.org/protocol/pubsub}pubsub"
        item = f"<publish node='x:test'><item id='current'><x xmlns='x:test'>{text}</x></item></publish>"
        await self.alice.ask("set", None, namespace, item)
        assert text in await self.alice.ask("get", None, namespace, "<items node='x:test'/>"), "another item"

    async def has_pubsub(self):
        await self.alice.ask("get", f"pubsub.{self.domain}", "{http://jabber.org/protocol/pubsub}pubsub", "<subscriptions/>")

    async def has_proxy(self):
        await self.alice.ask("get", f"proxy.{self.domain}", "{http://jabber.org/protocol/bytestreams}query")

    async def has_turn(self):
        assert "turn" in await self.alice.ask("get", self.domain, "{urn:xmpp:extdisco:2}services"), "no TURN server"

    async def has_disco(self):
        query = "http://jabber.org/protocol/disco#"
        info = await self.alice.ask("get", self.domain, f"{{{query}info}}query")
        assert "jabber:iq:roster" in info or "urn:xmpp:ping" in info, info
        items = await self.alice.ask("get", self.domain, f"{{{query}items}}query")
        assert f"conference.{self.domain}" in items, items

    async def has_commands(self):
        items = "http://jabber.org/protocol/disco#items"
        iq = self.alice.make_iq(ito=self.domain, itype="get")
        iq.append(ElementTree.Element(f"{{{items}}}query", node="http://jabber.org/protocol/commands"))
        assert "<item " in str(await iq.send(timeout=PATIENCE)), "no commands"

    async def has_acknowledgement(self):
        plugin = self.alice.plugin["xep_0198"]
        await self.has_ping()
        sent = plugin.seq
        plugin.request_ack()
        for _ in range(PATIENCE * 10):
            if plugin.last_ack >= sent:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"{plugin.last_ack} stanzas of {sent} are acknowledged")

    async def has_bosh(self):
        await self.bosh.check()

    async def has_websocket(self):
        await self.websocket.check()

    async def has_login(self):
        client = await asyncio.wait_for(self._client("alice"), PATIENCE)
        await client.disconnect()

    async def has_direct_login(self):
        client = await asyncio.wait_for(self._client("alice", direct_tls=True), PATIENCE)
        await client.disconnect()

    async def has_bosh_login(self):
        bosh = Bosh(self.domain)
        try:
            await bosh.log_in("alice", "secret-a")
        finally:
            await bosh.close()

    async def has_websocket_login(self):
        websocket = WebSocket(self.domain)
        try:
            await websocket.log_in("alice", "secret-a")
        finally:
            await websocket.close()

    async def close(self):
        for client in (self.alice, self.bob, self.phone, self.carol, self.dave):
            client.abort()
        for session in (self.bosh, self.websocket, self.component):
            await session.close()


gatherings = {}


async def gather(domain, peer):
    if domain in gatherings:
        await gatherings.pop(domain).close()
    gathering = Gathering(domain, peer)
    await gathering.open()
    gatherings[domain] = gathering


async def crowd(domain, count):
    # A few at a time: with all at once, the last would wait for all others.
    sessions = gatherings[domain].crowd
    while len(sessions) < int(count):
        new = [Session(f"alice@{domain}", "secret-a") for _ in range(10)]
        sessions += await asyncio.gather(*(session.log_in(5222, "127.0.0.1") for session in new))


async def survey(domain, patience=None):
    global PATIENCE
    if patience:
        PATIENCE = int(patience)
    return await gatherings[domain].survey()


REQUESTS = {
    "open": open_, "check": check, "slot": slot_, "fill": fill_, "gone": gone, "gather": gather, "crowd": crowd,
    "survey": survey,
}

if __name__ == "__main__":
    asyncio.run(serve(REQUESTS))

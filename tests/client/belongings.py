"""What users keep on a server: something of every kind is left there, or looked for.

usage: belongings.py write|read DOMAIN TEXT [LINK]

`write` prints `link: LINK`, the address of an upload. `read` fails with a reason if something is missing. The users are
alice and bob, as in `session.py`. TEXT is in all that can have text.
"""

import asyncio
import sys
from types import SimpleNamespace
from xml.etree import ElementTree

import aiohttp
from session import TIMEOUT, Client, archive, enter, fill, message, slot
from slixmpp import JID
from slixmpp.exceptions import IqError, IqTimeout

PASSWORDS = {"alice": "secret-a", "bob": "secret-b"}
CONTENT = bytes(range(256)) * 64
NODE = "urn:example:belongings"
NODES = [NODE, "urn:xmpp:avatar:data", "urn:xmpp:avatar:metadata", "urn:xmpp:bookmarks:1"]
SPAMMER = "spammer@elsewhere.example"
PREFS = "{urn:xmpp:mam:2}"


async def ask(client, element, to=None, kind="get"):
    iq = client.make_iq(itype=kind, ito=to)
    iq.append(element)
    return (await iq.send(timeout=TIMEOUT)).xml


def pubsub(action, inner, node=NODE):
    element = ElementTree.Element("{http://jabber.org/protocol/pubsub}pubsub")
    child = ElementTree.SubElement(element, f"{{http://jabber.org/protocol/pubsub}}{action}", node=node)
    if inner is not None:
        item = ElementTree.SubElement(child, "{http://jabber.org/protocol/pubsub}item", id="one")
        ElementTree.SubElement(item, f"{{{NODE}}}text").text = inner
    return element


def push():
    """XEP-0357. Nobody can ask for it again: it is compared in the backups."""
    return ElementTree.Element("{urn:xmpp:push:0}enable", jid="push.elsewhere.example", node="one")


def private(text):
    query = ElementTree.Element("{jabber:iq:private}query")
    ElementTree.SubElement(query, f"{{{NODE}}}note").text = text
    return query


def block(action):
    element = ElementTree.Element(f"{{urn:xmpp:blocking}}{action}")
    if action == "block":
        ElementTree.SubElement(element, "{urn:xmpp:blocking}item", jid=SPAMMER)
    return element


def prefs():
    element = ElementTree.Element(f"{PREFS}prefs", default="roster")
    ElementTree.SubElement(ElementTree.SubElement(element, f"{PREFS}always"), f"{PREFS}jid").text = "always@elsewhere.example"
    ElementTree.SubElement(element, f"{PREFS}never")
    return element


def room_of(args):
    return JID(f"salon@conference.{args.domain}")


async def pubsub_service(args, client):
    """The service for everybody, if the server has one. Only an administrator makes nodes there."""
    items = (await client["xep_0030"].get_items(jid=args.domain, timeout=TIMEOUT))["disco_items"]["items"]
    return next((jid for jid, _, _ in items if str(jid) == f"pubsub.{args.domain}"), None)


async def leave_a_message(args, clients):
    """alice writes to bob, who is offline."""
    alice, bob = clients
    await bob.disconnect()
    alice.send_message(mto=bob.boundjid.bare, mbody=f"offline {args.text}", mtype="chat")
    # The server handles stanzas in their order.
    await alice["xep_0030"].get_info(jid=args.domain, timeout=TIMEOUT)
    clients.remove(bob)


async def write(args, clients):
    alice, bob = clients
    await alice.update_roster(bob.boundjid.bare, name=args.text, groups=["Friends"])
    await message(args, clients)
    # As for avatars and bookmarks, which are nodes of an account.
    for node in NODES:
        await ask(alice, pubsub("publish", args.text, node), kind="set")
    if service := await pubsub_service(args, alice):
        await ask(alice, pubsub("create", None), to=service, kind="set")
        await ask(alice, pubsub("publish", args.text), to=service, kind="set")
    if "urn:xmpp:push:0" in (await bob["xep_0030"].get_info(jid=bob.boundjid.bare, timeout=TIMEOUT))["disco_info"]["features"]:
        await ask(bob, push(), kind="set")
    await ask(alice, private(args.text), kind="set")
    await ask(alice, block("block"), kind="set")
    await ask(alice, prefs(), kind="set")
    room = room_of(args)
    await enter(alice, room, "alice")
    form = await alice["xep_0045"].get_room_config(room)
    form["type"] = "submit"
    form["values"] = {"muc#roomconfig_roomname": args.text, "muc#roomconfig_persistentroom": True}
    await alice["xep_0045"].set_room_config(room, form)
    await alice["xep_0045"].set_affiliation(room, "admin", jid=bob.boundjid.bare)
    arrival = asyncio.ensure_future(alice.wait_until(f"muc::{room}::message", TIMEOUT))
    await asyncio.sleep(0)
    alice.send_message(mto=room, mbody=args.text, mtype="groupchat")
    await arrival
    place = await slot(alice, CONTENT)
    link = await fill(place, CONTENT)
    await leave_a_message(args, clients)
    return f"link: {link}"


async def read(args, clients):
    alice, bob = clients
    await alice.get_roster()
    roster = alice.client_roster
    assert bob.boundjid.bare in roster, f"the roster has {list(roster)}"
    found = (roster[bob.boundjid.bare]["name"], list(roster[bob.boundjid.bare]["groups"]))
    assert found == (args.text, ["Friends"]), f"the contact is {found}"
    await archive(args, clients)
    places = [(node, None) for node in NODES]
    if service := await pubsub_service(args, alice):
        places.append((NODE, service))
    for node, service in places:
        answer = await ask(alice, pubsub("items", None, node), to=service)
        found = [e.text for e in answer.iter(f"{{{NODE}}}text")]
        assert found == [args.text], f"{node} of {service}: {ElementTree.tostring(answer)}"
    answer = await ask(alice, private(None))
    assert [e.text for e in answer.iter(f"{{{NODE}}}note")] == [args.text], f"private: {ElementTree.tostring(answer)}"
    answer = await ask(alice, block("blocklist"))
    assert [e.get("jid") for e in answer.iter("{urn:xmpp:blocking}item")] == [SPAMMER], "the blocklist is another"
    answer = await ask(alice, ElementTree.Element(f"{PREFS}prefs"))
    assert answer.find(f"{PREFS}prefs").get("default") == "roster", "the preferences of the archive are others"
    assert [e.text for e in answer.iter(f"{PREFS}jid")] == ["always@elsewhere.example"], "they have another list"
    room = room_of(args)
    await enter(bob, room, "bob")
    admins = await bob["xep_0045"].get_affiliation_list(room, "admin")
    assert [str(jid) for jid in admins] == [bob.boundjid.bare], f"the room's administrators are {admins}"
    said = [result["mam_result"]["forwarded"]["stanza"]["body"] async for result in bob["xep_0313"].iterate(jid=room)]
    assert args.text in said, f"the room's archive has {said}"
    disco = await bob["xep_0030"].get_info(jid=room, timeout=TIMEOUT)
    names = [identity[3] for identity in disco["disco_info"]["identities"]]
    assert names == [args.text], f"the room's name is {names}"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as http:
        async with http.get(args.link) as answer:
            assert answer.status == 200, f"GET {args.link}: {answer.status}"
            assert await answer.read() == CONTENT, f"GET {args.link}: other bytes"
    for _ in range(TIMEOUT * 10):
        if f"offline {args.text}" in bob.bodies:
            break
        await asyncio.sleep(0.1)
    else:
        raise AssertionError(f"bob has only these messages: {bob.bodies}")
    await leave_a_message(args, clients)
    return "all is there"


async def main(step, domain, text, link=None):
    args = SimpleNamespace(domain=domain, text=text, link=link)
    clients = []
    try:
        for user, password in PASSWORDS.items():
            client = Client(f"{user}@{domain}", password)
            # What the server has kept arrives at once.
            client.bodies = []
            client.add_event_handler("message", lambda stanza, bodies=client.bodies: bodies.append(stanza["body"]))
            clients.append(await client.log_in(5222))
        print(await {"write": write, "read": read}[step](args, clients), flush=True)
    except (AssertionError, RuntimeError, asyncio.TimeoutError, IqError, IqTimeout, aiohttp.ClientError) as reason:
        print(f"{step}: {type(reason).__name__}: {reason}", file=sys.stderr)
        return 1
    for client in clients:
        await client.disconnect()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))

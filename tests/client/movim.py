"""What Movim does with its server, as two accounts: alice, who writes, and bob, who reads.

Requests come on standard input (`serve` in session.py).

    log-in ADDRESS DOMAIN       says where the domain is, and logs both in
    features                    what is announced: JSON, a list by who announces it
    create                      alice creates a community, which bob subscribes to
    refused ACCESS-MODEL        the error that alice gets for a node with this access model
    post TEXT                   alice posts on her own page and in the community, and bob comments on it
    read TEXT                   what bob reads of it: JSON
    websocket                   logs in by WebSocket, at the address that the domain names for it (XEP-0156)
"""

import asyncio
import json
import re
from xml.etree import ElementTree

from slixmpp.exceptions import IqError

from features import Stream
from session import TIMEOUT, Client, enter, serve
from sockets import WebSocket

PASSWORDS = {"alice": "secret-a", "bob": "secret-b"}
DISCO = "http://jabber.org/protocol/disco"
PUBSUB = "http://jabber.org/protocol/pubsub"
MICROBLOG = "urn:xmpp:microblog:0"
COMMUNITY = "tea"
# What Movim sends with a post, and with a new community.
OPTIONS = {"persist_items": "true", "max_items": "max", "itemreply": "publisher"}
CONFIGURATION = {
    "persist_items": "true",
    "deliver_payloads": "false",
    "send_last_published_item": "on_sub",
    "access_model": "open",
    "max_items": "max",
    "title": "All about tea",
}
COMMENTS = {**CONFIGURATION, "publish_model": "open", "itemreply": "publisher", "notify_retract": "true"}
clients = {}


async def log_in(address, domain):
    global DOMAIN
    DOMAIN = domain
    with open("/etc/hosts", "a") as hosts:
        hosts.write(f"{address} {domain}\n")
    for user, password in PASSWORDS.items():
        clients[user] = Client(f"{user}@{domain}", password)
        clients[user].register_plugin("xep_0060")
        await clients[user].log_in(5222)


async def ask(user, kind, to, content):
    iq = clients[user].make_iq(itype=kind, ito=to)
    iq.append(ElementTree.fromstring(content))
    return (await iq.send(timeout=TIMEOUT)).xml


def form(kind, fields):
    values = "".join(f"<field var='pubsub#{name}'><value>{value}</value></field>" for name, value in fields.items())
    kind = f"<field var='FORM_TYPE' type='hidden'><value>{PUBSUB}#{kind}</value></field>"
    return f"<x xmlns='jabber:x:data' type='submit'>{kind}{values}</x>"


async def create_node(to, node, fields):
    configuration = f"<configure>{form('node_config', fields)}</configure>"
    await ask("alice", "set", to, f"<pubsub xmlns='{PUBSUB}'><create node='{node}'/>{configuration}</pubsub>")


async def configure(to, node, fields):
    configuration = f"<configure node='{node}'>{form('node_config', fields)}</configure>"
    await ask("alice", "set", to, f"<pubsub xmlns='{PUBSUB}#owner'>{configuration}</pubsub>")


async def publish(user, to, node, text):
    entry = f"<entry xmlns='http://www.w3.org/2005/Atom'><title>{text}</title><id>{text}</id></entry>"
    item = f"<publish node='{node}'><item id='{text}'>{entry}</item></publish>"
    options = f"<publish-options>{form('publish-options', OPTIONS)}</publish-options>"
    request = f"<pubsub xmlns='{PUBSUB}'>{item}{options}</pubsub>"
    try:
        await ask(user, "set", to, request)
    except IqError as error:
        # A node with other options gets these, as Movim does it.
        assert error.condition == "conflict", error
        await configure(to, node, OPTIONS)
        await ask(user, "set", to, request)


def services():
    return f"pubsub.{DOMAIN}", f"comments.{DOMAIN}", f"alice@{DOMAIN}"


async def features():
    room = f"tea@conference.{DOMAIN}"
    await enter(clients["alice"], room, "alice")
    entities = {"account": f"alice@{DOMAIN}", "domain": DOMAIN, "room": room}
    listed = await ask("bob", "get", DOMAIN, f"<query xmlns='{DISCO}#items'/>")
    for item in listed.iter(f"{{{DISCO}#items}}item"):
        entities[item.get("jid").removesuffix(DOMAIN)] = item.get("jid")
    announced = {}
    for name, jid in entities.items():
        answer = await ask("alice", "get", jid, f"<query xmlns='{DISCO}#info'/>")
        announced[name] = [feature.get("var") for feature in answer.iter(f"{{{DISCO}#info}}feature")]
        for identity in answer.iter(f"{{{DISCO}#info}}identity"):
            announced[name].append(f"{identity.get('category')}/{identity.get('type')}")
    stream = Stream(DOMAIN)
    answer = await asyncio.to_thread(stream.ask, stream.head, "</stream:features>")
    announced["stream"] = re.findall(r"xmlns=['\"]([^'\"]+)", answer)
    return json.dumps(announced)


async def create():
    communities, _, _ = services()
    await create_node(communities, COMMUNITY, CONFIGURATION)
    await configure(communities, COMMUNITY, {"type": "urn:xmpp:pubsub-social-feed:1"})
    subscription = f"<subscribe node='{COMMUNITY}' jid='bob@{DOMAIN}'/>"
    await ask("bob", "set", communities, f"<pubsub xmlns='{PUBSUB}'>{subscription}</pubsub>")


async def refused(access_model):
    communities, _, _ = services()
    try:
        await create_node(communities, f"a-{access_model}", {**CONFIGURATION, "access_model": access_model})
    except IqError as error:
        return error.condition
    raise AssertionError("the node was created")


async def post(text):
    communities, comments, own = services()
    await publish("alice", own, MICROBLOG, text)
    await configure(own, MICROBLOG, {"access_model": "open"})
    arrival = asyncio.ensure_future(clients["bob"].wait_until("pubsub_publish", TIMEOUT))
    await asyncio.sleep(0)  # lets wait_until register its handler
    await publish("alice", communities, COMMUNITY, text)
    items = (await arrival)["pubsub_event"]["items"]
    assert (items["node"], items["item"]["id"]) == (COMMUNITY, text), items
    await create_node(comments, f"{MICROBLOG}:comments/{text}", COMMENTS)
    await publish("bob", comments, f"{MICROBLOG}:comments/{text}", text)


async def read(text):
    communities, comments, own = services()
    authors = {}
    for to, node in ((own, MICROBLOG), (communities, COMMUNITY), (comments, f"{MICROBLOG}:comments/{text}")):
        request = f"<items node='{node}' max_items='10'/>"
        answer = await ask("bob", "get", to, f"<pubsub xmlns='{PUBSUB}'>{request}</pubsub>")
        for item in answer.iter(f"{{{PUBSUB}}}item"):
            if item.findtext(".//{http://www.w3.org/2005/Atom}title") == text:
                authors[to] = item.get("publisher")
    node = await ask("bob", "get", communities, f"<query xmlns='{DISCO}#info' node='{COMMUNITY}'/>")
    described = {field.get("var"): field.findtext("{*}value") for field in node.iter("{jabber:x:data}field")}
    limits = [await limit(own, MICROBLOG), await limit(communities, COMMUNITY)]
    return json.dumps({"authors": authors, "community": described, "limits": limits})


async def limit(to, node):
    """How many posts the node may have."""
    answer = await ask("alice", "get", to, f"<pubsub xmlns='{PUBSUB}#owner'><configure node='{node}'/></pubsub>")
    return answer.find(".//{*}field[@var='pubsub#max_items']/{*}validate/{*}range").get("max")


async def websocket():
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as web:
        async with web.get(f"https://{DOMAIN}:5281/.well-known/host-meta") as answer:
            text = await answer.text()
    assert f"wss://{DOMAIN}:5281/xmpp-websocket" in text, text
    stream = WebSocket(DOMAIN, DOMAIN)
    await stream.log_in("bob", PASSWORDS["bob"])
    await stream.check()
    await stream.close()


if __name__ == "__main__":
    asyncio.run(
        serve(
            {
                "log-in": log_in,
                "features": features,
                "create": create,
                "refused": refused,
                "post": post,
                "read": read,
                "websocket": websocket,
            }
        )
    )

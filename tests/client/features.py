"""What users get by the features of a server, at the level of HTTP and of XMPP streams.

Requests come on standard input (`serve` in session.py).

    reset-link DOMAIN ADMIN PASSWORD USER    asks for a link by which the user can set a new password, as the administrator
    invite DOMAIN USER PASSWORD        invites somebody as the user: the link
    accept DOMAIN TOKEN USER PASSWORD  registers with an invitation in band, as a client does (XEP-0445)
    meet DOMAIN USER PASSWORD USER PASSWORD    whether both are contacts, see each other and get each other's messages
    login DOMAIN USER PASSWORD
    round-trips DOMAIN USER PASSWORD   logs in with a password and then with a token: the round trips after TLS until the
                                       first stanza can be sent, and until the second session can
    submit URL NAME=VALUE…             submits a form: the text of the page
    sign-up DOMAIN USER PASSWORD       makes an account in band: `ok`, or what the server says
    hear DOMAIN ADMIN PASSWORD USER PASSWORD    makes an account in band: the message that the administrator gets
    accounts DOMAIN COUNT              makes so many accounts in band, one after the other: how many the server allows
    report DOMAIN USER PASSWORD ADMIN PASSWORD SPAMMER    reports spam as the user: the text that the administrator gets
"""

import asyncio
import base64
import hashlib
import hmac
import re
import socket
import ssl
import urllib.request
from xml.etree import ElementTree

from session import TIMEOUT, Client, serve

UNVERIFIED = ssl.create_default_context()
UNVERIFIED.check_hostname = False
UNVERIFIED.verify_mode = ssl.CERT_NONE


def text(html):
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


COMMANDS = "{http://jabber.org/protocol/commands}"
DATA = "{jabber:x:data}"


async def execute(client, node, form=None):
    """Runs the command of the server with this name, and submits its form. Returns the last answer."""

    async def step(command):
        iq = client.make_iq_set(ito=client.boundjid.domain)
        iq.append(command)
        return (await iq.send(timeout=TIMEOUT)).xml.find(f"{COMMANDS}command")

    first = await step(ElementTree.Element(f"{COMMANDS}command", node=node, action="execute"))
    if form is None:
        return first
    command = ElementTree.Element(f"{COMMANDS}command", node=node, sessionid=first.get("sessionid"))
    submitted = ElementTree.SubElement(command, f"{DATA}x", type="submit")
    for name, value in form.items():
        field = ElementTree.SubElement(submitted, f"{DATA}field", var=name)
        ElementTree.SubElement(field, f"{DATA}value").text = value
    return await step(command)


async def reset_link(domain, admin, password, user):
    client = await Client(f"{admin}@{domain}", password).log_in(5222)
    kind = "http://prosody.im/protocol/adhoc/mod_password_reset"
    answer = await execute(client, "password_reset", {"FORM_TYPE": kind, "accountjid": f"{user}@{domain}"})
    await client.disconnect()
    return answer.findtext(f"{COMMANDS}note")


async def invite(domain, user, password):
    client = await Client(f"{user}@{domain}", password).log_in(5222)
    answer = await execute(client, "urn:xmpp:invite#invite")
    await client.disconnect()
    return answer.findtext(f".//{DATA}field[@var='landing-url']/{DATA}value")


async def accept(domain, token, user, password):
    def both():
        stream = Stream(domain)
        stream.ask(stream.head, "</stream:features>")
        request = f"<iq type='set' id='token' to='{domain}'><preauth xmlns='urn:xmpp:pars:0' token='{token}'/></iq>"
        for answer in (stream.ask(request, "<iq[^>]*id='token'[^>]*?(/>|>.*</iq>)"), sign_up(stream, user, password)):
            assert "type='result'" in answer, answer

    await asyncio.to_thread(both)


async def meet(domain, user, password, other, other_password):
    pair = [Client(f"{user}@{domain}", password), Client(f"{other}@{domain}", other_password)]
    jids = [client.requested_jid.bare for client in pair]
    seen = []
    for client, other in zip(pair, reversed(jids)):
        waiting = asyncio.get_running_loop().create_future()
        seen.append(waiting)
        client.add_event_handler(
            "presence_available",
            lambda presence, waiting=waiting, other=other: presence["from"].bare == other
            and not waiting.done()
            and waiting.set_result(None),
        )
    await asyncio.gather(*(client.log_in(5222) for client in pair))
    await asyncio.wait_for(asyncio.gather(*seen), TIMEOUT)
    for client, other in zip(pair, reversed(jids)):
        subscription = client.client_roster[other]["subscription"]
        assert subscription == "both", f"{other} of {client.boundjid.bare}: {subscription}"
    for sender, receiver in (pair, reversed(pair)):
        arrival = asyncio.ensure_future(receiver.wait_until("message", TIMEOUT))
        await asyncio.sleep(0)
        sender.send_message(mto=receiver.boundjid.bare, mbody=f"from {sender.boundjid.bare}", mtype="chat")
        message = await arrival
        assert message["body"] == f"from {sender.boundjid.bare}", message
    await asyncio.gather(*(client.disconnect() for client in pair))


async def submit(url, *fields):
    def fetch():
        request = urllib.request.Request(url, "&".join(fields).encode())
        with urllib.request.urlopen(request, timeout=TIMEOUT, context=UNVERIFIED) as answer:
            return text(answer.read().decode())

    return await asyncio.to_thread(fetch)


async def login(domain, user, password):
    await (await Client(f"{user}@{domain}", password).log_in(5222)).disconnect()


class Stream:
    """A stream by direct TLS that counts how often it waits for the server."""

    def __init__(self, domain, user=None):
        plain = socket.create_connection((domain, 5223), timeout=TIMEOUT)
        self.socket = UNVERIFIED.wrap_socket(plain, server_hostname=domain)
        self.round_trips = 0
        sender = f" from='{user}@{domain}'" if user else ""
        self.head = (
            f"<stream:stream{sender} to='{domain}' version='1.0' xmlns='jabber:client'"
            " xmlns:stream='http://etherx.jabber.org/streams'>"
        )

    def ask(self, request, end):
        self.round_trips += 1
        self.socket.sendall(request.encode())
        answer = ""
        while not re.search(end, answer, re.DOTALL):
            more = self.socket.recv(65536).decode()
            if not more or "<failure" in answer:
                raise ConnectionError(answer)
            answer += more
        return answer


# The features come after the success of SASL2 (XEP-0388). Then the client may send stanzas.
LOGGED_IN = "</success>.*</stream:features>"
USER_AGENT = "<user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'><software>Test</software></user-agent>"
BIND = "<bind xmlns='urn:xmpp:bind:0'><tag>Test</tag><enable xmlns='urn:xmpp:sm:3' resume='true'/></bind>"


def authenticate(mechanism, initial, rest):
    return (
        f"<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'><initial-response>"
        f"{base64.b64encode(initial).decode()}</initial-response>{USER_AGENT}{BIND}{rest}</authenticate>"
    )


async def round_trips(domain, user, password):
    def both():
        first = Stream(domain, user)
        first.ask(first.head, "</stream:features>")
        token = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>"
        answer = first.ask(authenticate("PLAIN", f"\0{user}\0{password}".encode(), token), LOGGED_IN)
        token = re.search("<token[^>]* token='([^']*)'", answer)[1]

        second = Stream(domain, user)
        proof = hmac.new(token.encode(), b"Initiator", hashlib.sha256).digest()
        initial = user.encode() + b"\0" + proof
        second.ask(second.head + authenticate("HT-SHA-256-NONE", initial, "<fast xmlns='urn:xmpp:fast:0'/>"), LOGGED_IN)
        needed = second.round_trips
        # The session works.
        answer = second.ask("<iq type='get' id='ping'><ping xmlns='urn:xmpp:ping'/></iq>", "<iq[^>]*id='ping'[^>]*>")
        assert "type='result'" in answer, answer
        return f"first={first.round_trips} second={needed}"

    return await asyncio.to_thread(both)


def sign_up(stream, user, password):
    return stream.ask(
        f"<iq type='set' id='{user}'><query xmlns='jabber:iq:register'><username>{user}</username>"
        f"<password>{password}</password></query></iq>",
        f"<iq[^>]*id='{user}'[^>]*?(/>|>.*</iq>)",
    )


def sign_up_stream(domain):
    stream = Stream(domain)
    stream.ask(stream.head, "</stream:features>")
    stream.ask("<iq type='get' id='form'><query xmlns='jabber:iq:register'/></iq>", "</iq>")
    return stream


async def sign_up_once(domain, user, password):
    def once():
        answer = sign_up(sign_up_stream(domain), user, password)
        return "ok" if "type='result'" in answer else text(answer)

    return await asyncio.to_thread(once)


async def hear(domain, admin, admin_password, user, password):
    administrator = await Client(f"{admin}@{domain}", admin_password).log_in(5222)
    arrival = asyncio.ensure_future(administrator.wait_until("message", TIMEOUT))
    answer = await sign_up_once(domain, user, password)
    assert answer == "ok", answer
    message = await arrival
    await administrator.disconnect()
    return message["body"]


async def accounts(domain, count):
    def allowed():
        stream = sign_up_stream(domain)
        answers = [sign_up(stream, f"new{number}", "secret-n") for number in range(int(count))]
        return str(sum("type='result'" in answer for answer in answers))

    return await asyncio.to_thread(allowed)


async def report(domain, user, password, admin, admin_password, spammer):
    administrator = await Client(f"{admin}@{domain}", admin_password).log_in(5222)
    client = await Client(f"{user}@{domain}", password).log_in(5222)
    arrival = asyncio.ensure_future(administrator.wait_until("message", TIMEOUT))
    await asyncio.sleep(0)
    block = ElementTree.fromstring(
        f"<block xmlns='urn:xmpp:blocking'><item jid='{spammer}'>"
        "<report xmlns='urn:xmpp:reporting:1' reason='urn:xmpp:reporting:spam'><text>Buy my watches</text></report>"
        "</item></block>"
    )
    iq = client.make_iq_set()
    iq.append(block)
    await iq.send(timeout=TIMEOUT)
    seen = await arrival
    await asyncio.gather(client.disconnect(), administrator.disconnect())
    return seen["body"]


if __name__ == "__main__":
    asyncio.run(
        serve(
            {
                "reset-link": reset_link,
                "invite": invite,
                "accept": accept,
                "meet": meet,
                "login": login,
                "round-trips": round_trips,
                "submit": submit,
                "sign-up": sign_up_once,
                "hear": hear,
                "accounts": accounts,
                "report": report,
            }
        )
    )

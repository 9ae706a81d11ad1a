"""What users get by the features of a server, at the level of HTTP and of XMPP streams.

Requests come on standard input (`serve` in session.py).

    pages URL                          opens a page, and the pages of the same server that it links to, and loads what
                                       they load: JSON with `pages`, `loaded`, `missing` and `elsewhere`
    register URL USER PASSWORD         registers with the invitation of this URL, as a user of Gajim: JSON as above, for
                                       the page after that, with its text
    reset DOMAIN ADMIN PASSWORD USER NEW    asks for a link as the administrator, and sets the user's password with it:
                                       JSON as above
    login DOMAIN USER PASSWORD
    round-trips DOMAIN USER PASSWORD   logs in with a password and then with a token: the round trips after TLS until the
                                       first stanza can be sent, and until the second session can
    accounts DOMAIN COUNT              makes so many accounts in band, one after the other: how many the server allows
    report DOMAIN USER PASSWORD ADMIN PASSWORD SPAMMER    reports spam as the user: the text that the administrator gets
"""

import asyncio
import base64
import hashlib
import hmac
import json
import re
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from xml.etree import ElementTree

from session import TIMEOUT, Client, serve

UNVERIFIED = ssl.create_default_context()
UNVERIFIED.check_hostname = False
UNVERIFIED.verify_mode = ssl.CERT_NONE


def fetch(url, form=None):
    """Returns the status and the content."""
    data = form and urllib.parse.urlencode(form).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=TIMEOUT, context=UNVERIFIED) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, ""


def links(url, html, elements, exclude=()):
    """The addresses in a page's elements of these names."""
    found = re.findall(rf"<((?:{elements})\b[^>]*)>", html)
    found = [element for element in found if not any(word in element for word in exclude)]
    found = [link for element in found for link in re.findall(r'\b(?:href|src)="([^"]*)"', element)]
    return [urllib.parse.urljoin(url, link.replace("&amp;", "&")) for link in found]


class Visit:
    """Pages of one server, with all that they load."""

    def __init__(self, url):
        self.origin = urllib.parse.urlsplit(url)[:2]
        self.pages, self.loaded, self.missing, self.elsewhere = [], set(), set(), set()

    def is_here(self, url):
        return urllib.parse.urlsplit(url)[:2] == self.origin

    def load(self, url, html):
        # `alternate` is not loaded. Style sheets and scripts have no links to others in Debian's packages.
        for link in links(url, html, "link|script|img|iframe", ['rel="alternate"']):
            if not self.is_here(link):
                self.elsewhere.add(link)
            elif link not in self.loaded | self.missing:
                (self.loaded if fetch(link)[0] == 200 else self.missing).add(link)

    def open(self, url, form=None):
        status, html = fetch(url, form)
        assert status == 200, f"{url}: {status}"
        self.pages.append(url)
        self.load(url, html)
        return html

    def report(self, **more):
        seen = {name: sorted(getattr(self, name)) for name in ("pages", "loaded", "missing", "elsewhere")}
        return json.dumps({**seen, **more})


async def pages(url):
    def visit():
        seen = Visit(url)
        html = seen.open(url)
        for link in links(url, html, "a"):
            # Registration is another module, which 0.12's collection lacks.
            if seen.is_here(link) and "/setup/" in link and link not in seen.pages:
                seen.open(link)
        return seen.report(links=len(links(url, html, "a")))

    return await asyncio.to_thread(visit)


async def register(url, user, password):
    def visit():
        seen = Visit(url)
        invitation = seen.open(url)
        (form,) = [link for link in links(url, invitation, "a") if "c=gajim" in link]
        html = seen.open(form)
        fields = dict(re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', html))
        return seen.report(answer=text(seen.open(form, {**fields, "user": user, "password": password})))

    return await asyncio.to_thread(visit)


def text(html):
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


COMMANDS = "{http://jabber.org/protocol/commands}"
DATA = "{jabber:x:data}"


async def reset(domain, admin, password, user, new):
    client = await Client(f"{admin}@{domain}", password).log_in(5222)

    async def execute(command):
        iq = client.make_iq_set(ito=domain)
        iq.append(command)
        return (await iq.send(timeout=TIMEOUT)).xml.find(f"{COMMANDS}command")

    first = await execute(ElementTree.Element(f"{COMMANDS}command", node="password_reset", action="execute"))
    command = ElementTree.Element(f"{COMMANDS}command", node="password_reset", sessionid=first.get("sessionid"))
    form = ElementTree.SubElement(command, f"{DATA}x", type="submit")
    kind = "http://prosody.im/protocol/adhoc/mod_password_reset"
    for name, value in {"FORM_TYPE": kind, "accountjid": f"{user}@{domain}"}.items():
        field = ElementTree.SubElement(form, f"{DATA}field", var=name)
        ElementTree.SubElement(field, f"{DATA}value").text = value
    note = (await execute(command)).findtext(f"{COMMANDS}note")
    await client.disconnect()

    def visit():
        seen = Visit(note)
        html = seen.open(note)
        fields = dict(re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', html))
        return seen.report(answer=text(seen.open(note, {**fields, "password": new})))

    return await asyncio.to_thread(visit)


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


async def accounts(domain, count):
    def allowed():
        stream = Stream(domain)
        stream.ask(stream.head, "</stream:features>")
        stream.ask("<iq type='get' id='form'><query xmlns='jabber:iq:register'/></iq>", "</iq>")
        answers = [
            stream.ask(
                f"<iq type='set' id='new{number}'><query xmlns='jabber:iq:register'><username>new{number}</username>"
                "<password>secret-n</password></query></iq>",
                f"<iq[^>]*id='new{number}'[^>]*?(/>|>.*</iq>)",
            )
            for number in range(int(count))
        ]
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
                "pages": pages,
                "register": register,
                "reset": reset,
                "login": login,
                "round-trips": round_trips,
                "accounts": accounts,
                "report": report,
            }
        )
    )

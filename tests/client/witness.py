"""Users whose sessions stay open while the server changes. They tell what they notice.

Requests come on standard input (`serve` in session.py). Nothing is sent without TLS.

    open DOMAIN    alice and bob log in, and join a room of conference.DOMAIN if there is one
    check DOMAIN   their sessions are the same, and messages between them and in the room arrive
    slot DOMAIN    alice asks for a place for a file
    fill DOMAIN    she uploads the file to it
    gone DOMAIN    both have been told that the host is gone
"""

import asyncio
import uuid
from types import SimpleNamespace

from session import TIMEOUT, Client, fill, message, room, serve, slot

# By domain: the two clients, and what they have noticed.
open_sessions = {}
slots = {}
CONTENT = bytes(range(256))


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


REQUESTS = {"open": open_, "check": check, "slot": slot_, "fill": fill_, "gone": gone}

if __name__ == "__main__":
    asyncio.run(serve(REQUESTS))

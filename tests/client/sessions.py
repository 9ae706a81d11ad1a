"""A long-running client, for tests with many servers in sequence: Python's start takes longer than a session.

Requests come on standard input (`serve` in session.py). Nothing is sent without TLS.

    ready ADDRESS               the server at ADDRESS accepts connections
    talk ADDRESS DOMAIN TEXT    alice and bob log in, alice sends TEXT to bob, and it is in bob's archive
    recall ADDRESS DOMAIN TEXT  bob logs in, and TEXT is in his archive

Each request waits until the server listens. Addresses are numeric: a resolver caches the address from before a restart,
and is slow for a stopped server.
"""

import asyncio
from types import SimpleNamespace

from session import TIMEOUT, Client, archive, message, serve

PASSWORDS = {"alice": "secret-a", "bob": "secret-b"}


async def ready(address):
    loop = asyncio.get_running_loop()
    deadline = loop.time() + TIMEOUT
    while True:
        try:
            # If no server has the address any more, there is no answer at all.
            _, writer = await asyncio.wait_for(asyncio.open_connection(address, 5222), 5)
        except ConnectionRefusedError:
            if loop.time() > deadline:
                raise
            await asyncio.sleep(0.02)
            continue
        writer.close()
        return


async def log_in(user, address, domain):
    client = await Client(f"{user}@{domain}", PASSWORDS[user]).log_in(5222, address)
    assert client.tls_version(), "the stream is not encrypted"
    return client


async def talk(address, domain, text):
    await ready(address)
    clients = await asyncio.gather(*(log_in(user, address, domain) for user in PASSWORDS))
    args = SimpleNamespace(text=text)
    await message(args, clients)
    await archive(args, clients)
    await leave(*clients)


async def recall(address, domain, text):
    await ready(address)
    bob = await log_in("bob", address, domain)
    bodies = []
    async for result in bob["xep_0313"].iterate():
        bodies.append(result["mam_result"]["forwarded"]["stanza"]["body"])
    assert text in bodies, f"the archive has {bodies!r}, and not {text!r}"
    await leave(bob)


async def leave(*clients):
    await asyncio.gather(*(client.disconnect() for client in clients))


REQUESTS = {"ready": ready, "talk": talk, "recall": recall}

if __name__ == "__main__":
    asyncio.run(serve(REQUESTS))

"""A long-running client, for tests with many servers in sequence: Python's start takes longer than a session.

Each line on standard input is a request. The answer is one line on standard output, `ok` or `error: REASON`.
Nothing is sent without TLS (session.py).

    ready ADDRESS               the server at ADDRESS accepts connections
    talk ADDRESS DOMAIN TEXT    alice and bob log in, alice sends TEXT to bob, and it is in bob's archive
    recall ADDRESS DOMAIN TEXT  bob logs in, and TEXT is in his archive

Each request waits until the server listens. Addresses are numeric: a resolver caches the address from before a restart,
and is slow for a stopped server.
"""

import asyncio
import logging
import sys
from types import SimpleNamespace

from slixmpp.exceptions import IqError, IqTimeout

from session import TIMEOUT, Client, archive, message

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


async def main():
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        name, *arguments = line.rstrip("\n").split(" ")
        try:
            await asyncio.wait_for(REQUESTS[name](*arguments), 3 * TIMEOUT)
            print("ok", flush=True)
        except (AssertionError, RuntimeError, OSError, asyncio.TimeoutError, IqError, IqTimeout) as reason:
            print(f"error: {type(reason).__name__}: {reason}".replace("\n", " "), flush=True)


if __name__ == "__main__":
    # slixmpp leaves a task for each session, and asyncio warns about them.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    asyncio.run(main())

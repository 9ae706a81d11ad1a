"""An account's data, written on one server and checked on the next.

usage: inventory.py write DOMAIN TEXT
       inventory.py read DOMAIN TEXT LINK

`write`: alice adds bob to her roster, sends him TEXT and shares a file. It prints `link: LINK` with the file's address.
`read`: both log in with their old passwords. It finds the roster, TEXT in bob's archive, and the file at LINK.
The first missing item ends the script with a reason and status 1.
"""

import asyncio
import sys
from types import SimpleNamespace

import aiohttp
from slixmpp.exceptions import IqError, IqTimeout

from session import Client, archive, message, upload

PASSWORDS = {"alice": "secret-a", "bob": "secret-b"}
NAME, GROUP = 'Bob "the builder" Bär', "friends & foes"


async def write(args, clients):
    alice, bob = clients
    await alice.update_roster(bob.boundjid.bare, name=NAME, groups=[GROUP])
    await message(args, clients)
    await archive(args, clients)
    link = (await upload(args, clients)).split(" by way of ")[1]
    return f"link: {link}"


async def read(args, clients):
    alice, bob = clients
    await alice.get_roster()
    roster = alice.client_roster
    assert bob.boundjid.bare in roster, f"bob is not on the roster, which has {list(roster)}"
    item = roster[bob.boundjid.bare]
    assert (item["name"], list(item["groups"])) == (NAME, [GROUP]), f"on the roster bob is {item['name']!r} in {item['groups']}"
    await archive(args, clients)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as http:
        async with http.get(args.link) as answer:
            assert answer.status == 200, f"GET {args.link}: {answer.status}"
            assert await answer.read() == bytes(range(256)) * 64, f"GET {args.link}: other bytes"
    return "all is there"


async def main(step, domain, text, link=None):
    args = SimpleNamespace(domain=domain, text=text, link=link)
    clients = []
    try:
        for user, password in PASSWORDS.items():
            clients.append(await Client(f"{user}@{domain}", password).log_in(5222))
        print(await {"write": write, "read": read}[step](args, clients), flush=True)
    except (AssertionError, RuntimeError, asyncio.TimeoutError, IqError, IqTimeout, aiohttp.ClientError) as reason:
        print(f"{step}: {type(reason).__name__}: {reason}", file=sys.stderr)
        return 1
    for client in clients:
        await client.disconnect()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))

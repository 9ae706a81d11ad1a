"""Logs in knowing the account alone: SRV records say where the server is (RFC 6120, section 3.2.1; XEP-0368).

usage: by_domain.py JID PASSWORD starttls|direct-tls

Prints the port and the version of TLS.
"""

import asyncio
import sys

from session import Client


async def main(jid, password, kind):
    client = await Client(jid, password, direct_tls=kind == "direct-tls").log_in()
    print(client.transport.get_extra_info("peername")[1], client.tls_version())
    await client.disconnect()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

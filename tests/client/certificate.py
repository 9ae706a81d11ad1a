"""Prints the certificate that a server shows after STARTTLS, as PEM.

usage: certificate.py DOMAIN       (connects to DOMAIN at port 5222 and asks for it)
"""

import socket
import ssl
import sys

domain = sys.argv[1]
with socket.create_connection((domain, 5222), timeout=20) as plain:
    plain.sendall(
        f"<stream:stream to='{domain}' version='1.0' xmlns='jabber:client'"
        " xmlns:stream='http://etherx.jabber.org/streams'>"
        "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>".encode()
    )
    seen = b""
    while b"<proceed" not in seen:
        more = plain.recv(4096)
        if not more:
            sys.exit(f"the server closed the stream: {seen.decode(errors='replace')}")
        seen += more
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with context.wrap_socket(plain, server_hostname=domain) as encrypted:
        print(ssl.DER_cert_to_PEM_cert(encrypted.getpeercert(binary_form=True)))

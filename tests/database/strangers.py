"""Servers that may be found instead of a database, one on each port."""

import http.server
import socket
import threading

LISTENERS = []


def serve(port, talk):
    listener = socket.create_server(("", port))
    LISTENERS.append(listener)

    def accept():
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def says(words, after=0):
    """Says this once it has got so many bytes, and then nothing until the other side closes."""

    def talk(connection):
        try:
            heard = 0
            while heard < after:
                heard += len(connection.recv(1024)) or after
            connection.sendall(words)
            while connection.recv(1024):
                pass
        except OSError:
            pass
        connection.close()

    return talk


def talks_about_a_password(connection):
    """PostgreSQL, without TLS, up to the question for a password, to which no answer is heard."""
    try:
        while connection.recv(1024)[4:] in (b"\x04\xd2\x16\x2f", b"\x04\xd2\x16\x30"):
            connection.sendall(b"N")
        connection.sendall(postgresql(b"R", b"\0\0\0\x0aSCRAM-SHA-256\0\0"))
        while connection.recv(1024):
            pass
    except OSError:
        pass
    connection.close()


def echoes(connection):
    try:
        while words := connection.recv(1024):
            connection.sendall(words)
    except OSError:
        pass
    connection.close()


def floods(connection):
    try:
        while True:
            connection.sendall(b"\xde\xad\xbe\xef" * 1024)
    except OSError:
        connection.close()


def mysql(sequence, payload):
    return len(payload).to_bytes(3, "little") + bytes([sequence]) + payload


def postgresql(kind, content):
    return kind + (len(content) + 4).to_bytes(4, "big") + content


GREETING = (
    b"\x0a8.0.1\0\x01\0\0\0saltsalt\0\xff\xf7\x08\x02\0\xff\x81\x15" + bytes(10) + b"saltsaltsalt\0mysql_native_password\0"
)

serve(25, says(b"220 mail.example ESMTP\r\n"))
serve(1001, says(b"\xde\xad\xbe\xef" * 64))
serve(1002, echoes)
serve(1003, floods)
serve(1004, lambda connection: connection.close())
serve(1005, says(b""))
# Starts to negotiate a password, and then stops.
serve(1006, talks_about_a_password)
serve(1007, says(mysql(0, GREETING)))
# Temporary refusals.
serve(1008, says(postgresql(b"E", b"SFATAL\0C57P03\0Mthe database system is starting up\0\0"), after=8))
serve(1009, says(mysql(0, b"\xff\x10\x04#08004Too many connections")))
# A permanent refusal.
serve(1010, says(mysql(0, b"\xff\x69\x04Host '172.17.0.9' is not allowed to connect to this MariaDB server")))

# A full queue: a connection attempt gets no answer at all, like behind a firewall.
full = socket.create_server(("", 1011), backlog=0)
waiting = socket.create_connection(("127.0.0.1", 1011))

web = http.server.ThreadingHTTPServer(("", 80), http.server.SimpleHTTPRequestHandler)
print("ready", flush=True)
web.serve_forever()

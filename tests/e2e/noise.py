"""noise.py - strangers that speak ZMTP, nearly: what a DEALER says until its messages are heard, and random mixtures of sound and broken greetings, commands and frames."""
import contextlib
import os
import socket
import struct
import time

SIZES = [0, 1, 8, 16, 100, 255, 256, 1000, 5000]
COMMANDS = [b"PING", b"PONG", b"READY", b"ERROR", b"SUBSCRIBE", b"CANCEL", b"JOIN", b"HELLO", b"WELCOME", b"INITIATE", b"MESSAGE", b""]
AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: a close is a reset
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
READY = b"\x04" + bytes([len(READY)]) + READY


def shake_hands(s, ready=READY):
    """Makes the connected socket a DEALER's, mechanism NULL. ZeroMQ takes a message that comes before its own READY is sent for a breach of the
    protocol and closes, so the trainer's checks see nothing that is sent with the greeting."""
    s.sendall(GREETING + ready)
    answer = b""
    while b"READY" not in answer:
        data = s.recv(4096)
        if not data:
            raise ConnectionResetError("closed in the handshake")
        answer += data


def message(*frames):
    """The frames as one message's bytes."""
    return b"".join(bytes([2 | (i + 1 < len(frames))]) + len(frame).to_bytes(8, "big") + frame for i, frame in enumerate(frames))


class Noise:
    def __init__(self, port, rng):
        self.port, self.rng = port, rng

    def mostly(self, usual, *others):
        return usual if self.rng.random() < 0.95 else self.rng.choice(others)

    def greeting(self):
        mechanism = self.rng.choice([b"NULL", b"NULL", b"CURVE", b"CURVE", b"PLAIN", b"GSSAPI", b"XX"])
        data = bytearray(b"\xff" + bytes(8) + b"\x7f" + bytes([self.mostly(3, 0, 1, 2, 4), self.rng.choice([0, 1])]) +
                         mechanism.ljust(20, b"\0") + bytes([self.rng.choice([0, 1])]) + bytes(31))
        if self.rng.random() < 0.1:
            data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
        return bytes(data)

    def frame(self, flags, data):
        size = self.mostly(len(data), 0, 1, 1 << 20, 1 << 40, 1 << 63, (1 << 64) - 1)
        if len(data) > 255 or self.rng.random() < 0.1:
            return bytes([flags | 2]) + struct.pack(">Q", size) + data
        return bytes([flags, size & 255]) + data

    def command(self, name, body):
        return self.frame(4, bytes([self.mostly(len(name), 0, 3, 200)]) + name + body)

    def ready(self):
        properties = [(b"Socket-Type", self.mostly(b"DEALER", b"REQ", b"ROUTER", b"PUB", b"", b"X" * 300))]
        while self.rng.random() < 0.3:
            properties.append((self.rng.choice([b"Identity", b"Resource", b"X-Other", b""]), os.urandom(self.rng.choice(SIZES))))
        return self.command(b"READY", b"".join(bytes([len(name)]) + name + struct.pack(">I", self.mostly(len(value), 0, 300, 1 << 31)) + value
                                               for name, value in properties))

    def piece(self):
        size, other = self.rng.choice(SIZES), self.rng.choice(COMMANDS)
        return self.rng.choice([lambda: self.frame(self.rng.choice([0, 0, 1]), os.urandom(size)),
                                lambda: self.command(b"PING", os.urandom(2) + os.urandom(size)),
                                lambda: self.command(other, os.urandom(size)),
                                lambda: self.frame(self.rng.randrange(256), os.urandom(size)),
                                lambda: b"\x00\x01x" * self.rng.choice([1, 20, 300]),
                                lambda: os.urandom(size),
                                self.ready])()

    def talk(self):
        """One connection, which it returns, closed or not."""
        s = socket.create_connection(("127.0.0.1", self.port), 5)
        s.setblocking(False)
        with contextlib.suppress(OSError):
            s.send(self.greeting())
            if self.rng.random() < 0.5:
                time.sleep(0.001)
            if self.rng.random() < 0.9:
                s.send(self.ready())
            for _ in range(self.rng.choice([0, 1, 3, 10, 40])):
                s.send(self.piece())
        if self.rng.random() < 0.5:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        if self.rng.random() < 0.8:
            s.close()
        return s

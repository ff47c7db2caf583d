"""proxy.py - a TCP proxy that spoils what it passes on: slow, stalled, cut, reset, truncated, or with bits flipped.

One Proxy is one producer's way to the trainer. All of them run in one asyncio thread; the calls are made from another one.
A fault that needs bytes to spoil is armed and takes the next ones that pass.
"""
import asyncio
import socket
import struct
import threading
import time

PIECE = 1 << 16
TO_TRAINER, TO_PRODUCER = 0, 1


def start_loop():
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


class Proxy:
    def __init__(self, loop, host, port):
        """Passes connections to endpoint on to host:port, which need not listen yet."""
        self.loop, self.target = loop, (host, port)
        self.writers = set()  # of both sides of every connection
        self.armed = ([], [])  # by direction: (pieces to let pass before, function from bytes to (bytes, whether this is the end))
        self.slow, self.slow_until, self.stalled_until = 0, 0, 0
        self.connections = self.bytes = 0
        self.server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self.accept, "127.0.0.1", 0), loop).result(10)
        self.endpoint = "tcp://127.0.0.1:%d" % self.server.sockets[0].getsockname()[1]

    async def accept(self, reader, writer):
        self.connections += 1
        self.writers.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection(*self.target)
        except OSError:
            self.drop(writer)
            return
        self.writers.add(far_writer)
        pumps = [asyncio.ensure_future(self.pump(reader, far_writer, TO_TRAINER)),
                 asyncio.ensure_future(self.pump(far_reader, writer, TO_PRODUCER))]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        self.drop(writer, far_writer)
        await asyncio.gather(*pumps, return_exceptions=True)

    async def pump(self, reader, writer, way):
        try:
            while data := await reader.read(PIECE):
                while (wait := self.stalled_until - time.monotonic()) > 0:
                    await asyncio.sleep(wait)
                if time.monotonic() < self.slow_until:
                    await asyncio.sleep(self.slow)
                data, end = self.spoil(way, data)
                writer.write(data)
                self.bytes += len(data)
                await writer.drain()
                if end:
                    return
        except OSError:
            pass

    def spoil(self, way, data):
        armed, end = self.armed[way], False
        while armed and not end:
            pass_before, function = armed[0]
            if pass_before > 0:
                armed[0] = pass_before - 1, function
                break
            armed.pop(0)
            data, end = function(data)
        return data, end

    def drop(self, *writers):
        for writer in writers:
            self.writers.discard(writer)
            writer.close()

    def call(self, function, *args):
        self.loop.call_soon_threadsafe(function, *args)

    # The faults.

    def delay(self, seconds, duration):
        """Every piece is held up for so long, for a while."""
        self.slow, self.slow_until = seconds, time.monotonic() + duration

    def stall(self, duration):
        """Nothing passes and nothing is closed, as when a cable is pulled."""
        self.stalled_until = time.monotonic() + duration

    def cut(self):
        """Every connection is closed, in order (FIN)."""
        self.call(lambda: self.drop(*self.writers))

    def reset(self):
        """Every connection is reset (RST); what was under way is lost."""
        def now():
            for writer in list(self.writers):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                self.writers.discard(writer)
        self.call(now)

    def truncate(self, way, share):
        """Of the next bytes only a share passes, then the connection is closed."""
        self.call(self.armed[way].append, (0, lambda data: (data[:int(len(data) * share)], True)))

    def flip(self, way, shares, pass_before=0):
        """One bit of the next bytes, after some pieces, is flipped for each of shares, at that share of their length."""
        def spoil(data):
            data = bytearray(data)
            for share in shares:
                bit = int(share * 8 * len(data))
                data[bit // 8] ^= 1 << bit % 8
            return bytes(data), False
        self.call(self.armed[way].append, (pass_before, spoil))

    def calm(self):
        """What lasts is over."""
        self.slow_until = self.stalled_until = 0

    def close(self):
        def now():
            self.server.close()
            self.drop(*self.writers)
        self.call(now)

"""network.py - two machines on one: network namespaces with a cable between them, quick (veth) or long and bad (TUN and a relay).

The relay does what `tc qdisc ... netem delay 50ms loss 1% rate 100mbit` does at both ends, but is a program, because not every
kernel has netem: it moves IP packets between a TUN device in each namespace, drops some, lets them out no faster than the rate
and delivers them after the delay. Its queue is bounded as a router's is. Standard library only; needs root and iproute2.
"""
import collections
import ctypes
import fcntl
import os
import random
import select
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI, CLONE_NEWNET = 0x400454CA, 0x0001, 0x1000, 0x40000000
MTU = 1500
libc = ctypes.CDLL(None, use_errno=True)


def ip(*args):
    subprocess.run(["ip", *args], check=True, capture_output=True, text=True)


class TwoMachines:
    """Namespaces NAME-a and NAME-b; 10.77.0.1 and 10.77.0.2 over the cable."""

    ADDRESS = {"a": "10.77.0.1", "b": "10.77.0.2"}

    def __init__(self, name):
        self.names = {end: f"{name}-{end}" for end in "ab"}
        for n in self.names.values():
            ip("netns", "add", n)
            ip("-n", n, "link", "set", "lo", "up")

    def remove(self):
        for n in self.names.values():
            subprocess.run(["ip", "netns", "del", n], capture_output=True)

    def command(self, end, *command):
        """The command to run there: ip execs it, so the process is the command's own."""
        return ["ip", "netns", "exec", self.names[end], *command]

    def cable(self):
        a, b = self.names["a"], self.names["b"]
        ip("-n", a, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", b)
        for end, n in self.names.items():
            ip("-n", n, "addr", "add", self.ADDRESS[end] + "/24", "dev", "cable")
            ip("-n", n, "link", "set", "cable", "up")

    def pull(self, out):
        """The cable out of, or back into, machine b."""
        ip("-n", self.names["b"], "link", "set", "cable", "down" if out else "up")

    def tun(self, end):
        """A TUN device in that namespace, as a file descriptor: this process goes there for it."""
        home, there = os.open("/proc/self/ns/net", os.O_RDONLY), os.open(f"/run/netns/{self.names[end]}", os.O_RDONLY)
        try:
            if libc.setns(there, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"cable", IFF_TUN | IFF_NO_PI))
        finally:
            libc.setns(home, CLONE_NEWNET)
            os.close(home)
            os.close(there)
        ip("-n", self.names[end], "addr", "add", self.ADDRESS[end] + "/24", "dev", "cable")
        ip("-n", self.names[end], "link", "set", "cable", "up", "mtu", str(MTU))
        return fd


class Direction:
    """Packets on their way: (when they arrive, packet)."""

    def __init__(self, source, sink, delay, loss, rate, queue):
        self.source, self.sink, self.delay, self.loss, self.rate, self.queue = source, sink, delay, loss, rate, queue
        self.way = collections.deque()
        self.free = 0.0  # when the last packet has left the sender's end
        self.random = random.Random(source)
        self.lost = self.overrun = self.bytes = 0

    def take(self, now):
        for _ in range(64):
            try:
                packet = os.read(self.source, 2048)
            except BlockingIOError:
                return
            if self.random.random() < self.loss:
                self.lost += 1
            elif self.free - now > self.queue / self.rate:
                self.overrun += 1
            else:
                self.free = max(self.free, now) + len(packet) / self.rate
                self.way.append((self.free + self.delay, packet))

    def deliver(self, now):
        while self.way and self.way[0][0] <= now:
            packet = self.way.popleft()[1]
            self.bytes += len(packet)
            try:
                os.write(self.sink, packet)
            except OSError:
                pass  # as a full queue would


def relay(fds, delay, loss, rate, queue):
    """Moves packets between two TUN devices for ever. delay: s each way; rate: bytes a second; queue: bytes before the link."""
    ways = [Direction(fds[0], fds[1], delay, loss, rate, queue), Direction(fds[1], fds[0], delay, loss, rate, queue)]
    while True:
        now = time.monotonic()
        due = min((w.way[0][0] for w in ways if w.way), default=now + 1)
        ready = select.select(fds, [], [], max(0.0, due - now))[0]
        now = time.monotonic()
        for w in ways:
            if w.source in ready:
                w.take(now)
            w.deliver(now)


def possible():
    """Whether namespaces can be made here; else why not."""
    name = f"crossfeed-{os.getpid()}-try"
    try:
        ip("netns", "add", name)
        ip("netns", "exec", name, "true")
        return None
    except (OSError, subprocess.CalledProcessError) as e:
        return f"no network namespaces here: {getattr(e, 'stderr', None) or e}"
    finally:
        if sys.exc_info()[0] is not FileNotFoundError:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

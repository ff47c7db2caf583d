#!/usr/bin/python3
"""producer.py - a whole Crossfeed producer, written from proto/PROTOCOL.md alone; copy it to serve activations of your own.

Replace Source: a producer is nothing but a description of its stream (Source.hello) and a pure function from a sequence to
its rows (Source.rows). All the rest is the protocol. Two threads: the main one owns the socket, so that heartbeats flow
during a long computation; the other computes leases and hands the chunks over. Needs numpy, pyzmq, msgpack and xxhash
(Debian: python3-numpy python3-zmq python3-msgpack python3-xxhash). Exits 0 when the run ended well, else 1.
"""
import argparse
import os
import queue
import signal
import sys
import threading
import time

import msgpack
import numpy as np
import xxhash
import zmq

CHUNK_BYTES = 262144  # of a BATCH's payload frame, unless one row is larger
PATIENCE = 5.0  # seconds to wait for WELCOME, and for BYE_ACK


class Source:
    """Rows that are sparse combinations of a planted dictionary, plus noise; each sequence has a generator of its own."""

    def __init__(self, n_seq=256, seq_len=64, n_sites=2, d_model=64, n_latents=64, n_active=4, seed=1):
        rng = np.random.default_rng(seed)
        self.seed, self.n_active = seed, n_active
        self.tokens = rng.integers(1, 1000, size=(n_seq, seq_len), dtype="<u4")
        self.tokens[:, 0] = 0  # BOS: gives no row
        self.dictionary = rng.standard_normal((n_latents, n_sites, d_model), dtype=np.float32)

    def hello(self):
        """The HELLO: all that the trainer must know, and that producers of one run must agree on."""
        n_seq, seq_len = self.tokens.shape
        _, n_sites, d_model = self.dictionary.shape
        return {"type": "HELLO", "version": 1, "software": "producer.py", "producer": f"python-{os.getpid()}",
                "sites": [f"blocks.{i}.hook_resid_post" for i in range(n_sites)],
                "d_model": d_model, "seq_len": seq_len, "rows_per_seq": seq_len - 1, "n_seq": n_seq, "vocab_size": 1000,
                "tokens": xxhash.xxh3_128_hexdigest(self.tokens.tobytes()),
                "models": [xxhash.xxh3_128_hexdigest(self.dictionary.tobytes())],
                "dtypes": ["bf16", "fp32"], "scale": None}

    def rows(self, sequence):
        """(activations [rows_per_seq, n_sites, d_model] float32, origins [rows_per_seq, 3] uint32) of one sequence."""
        rng = np.random.default_rng([self.seed, sequence])
        n_latents, n_sites, d_model = self.dictionary.shape
        n_rows = self.tokens.shape[1] - 1
        x = 0.05 * rng.standard_normal((n_rows, n_sites, d_model), dtype=np.float32)
        latents = rng.integers(n_latents, size=(n_rows, self.n_active))
        values = rng.exponential(size=(n_rows, self.n_active)).astype(np.float32)
        for i in range(self.n_active):  # one by one, not as a matrix product, whose rounding differs between machines
            x += values[:, i, None, None] * self.dictionary[latents[:, i]]
        positions = np.arange(1, n_rows + 1)
        return x, np.stack([np.full(n_rows, sequence), positions, self.tokens[sequence, 1:]], axis=1).astype("<u4")


def bf16(x):
    """The upper halves of float32 values, rounded to nearest, ties to even, as uint16; x is finite."""
    bits = x.view(np.uint32)
    return ((bits + 0x7fff + (bits >> 16 & 1)) >> 16).astype("<u2")


def checksum(header):
    return xxhash.xxh3_64_intdigest(header).to_bytes(8, "little")


def seal(message):
    """A header frame: the map and its checksum."""
    header = msgpack.packb(message)
    return header + checksum(header)


def unseal(frame):
    """The map of a header frame, or None if it was damaged on the way."""
    header = frame[:-8]
    return msgpack.unpackb(header) if checksum(header) == frame[-8:] else None


def chunks(source, lease, dtype, scale):
    """Computes a LEASE; yields the (header, activations, origins) of each BATCH. scale is an array of n_sites, or None."""
    parts = [source.rows(s) for s in range(lease["first"], lease["first"] + lease["count"])]
    x, origins = (np.concatenate(p) for p in zip(*parts))
    if lease["scaled"]:
        x = x * scale[:, None]
    x = bf16(x) if lease["scaled"] and dtype == "bf16" else x.astype("<f4")
    row_bytes = x[0].nbytes
    chunk_rows = min(max(CHUNK_BYTES // row_bytes, 1), 4096)
    n = -(-len(x) // chunk_rows)
    for i in range(n):
        part = slice(i * chunk_rows, (i + 1) * chunk_rows)
        header = {"type": "BATCH", "lease": lease["lease"], "block": lease["block"], "chunk": i, "chunks": n,
                  "rows": len(x[part])}
        yield header, x[part], origins[part]


def curve_keys(secret_path, server_path):
    """(own secret key, own public key, the trainer's public key), from a producer's NAME.secret and a trainer's NAME.public."""
    def read(path):
        with open(path) as f:
            lines = [line.split() for line in f if not line.startswith("#")]
        return {words[0]: words[1].encode() for words in lines if words}
    own = read(secret_path)
    return own["secret"], own["public"], read(server_path)["public"]


class Producer:
    """Serves one trainer, across its restarts. A session is the life of one socket; leases of an older one are void."""

    def __init__(self, source, endpoint, keys=None):
        """keys: curve_keys, or None for a trainer without."""
        self.source, self.endpoint, self.keys = source, endpoint, keys
        self.context = zmq.Context()
        self.socket, self.session, self.welcome, self.scale = None, 0, None, None
        self.leases = queue.SimpleQueue()  # (session, LEASE, dtype, scale) for the computing thread
        self.answers = self.context.socket(zmq.PAIR)  # its answers: session, then the frames of a message
        self.answers.set_hwm(2)  # it waits when it is so many chunks ahead
        self.answers.bind("inproc://answers")

    def compute(self):
        """The computing thread."""
        answers = self.context.socket(zmq.PAIR)
        answers.set_hwm(2)
        answers.connect("inproc://answers")
        while True:
            session, lease, dtype, scale = self.leases.get()
            try:
                for batch in chunks(self.source, lease, dtype, scale):
                    if session != self.session:
                        break
                    answers.send_multipart([b"%d" % session, *self.frames(*batch)])
            except Exception as e:  # whatever a source may raise, the run's user shall read it
                error = {"type": "ERROR", "lease": lease["lease"], "code": "source", "text": repr(e)[:500]}
                answers.send_multipart([b"%d" % session, seal(error)])

    def frames(self, header, x, origins):
        """The two frames of a BATCH."""
        payload, origins = x.tobytes(), origins.tobytes()
        checksum = xxhash.xxh3_64_intdigest(payload + origins)
        return [seal({**header, "checksum": checksum, "origins": origins}), payload]

    def run(self):
        """Serves until the run is over; returns the exit status."""
        threading.Thread(target=self.compute, daemon=True).start()
        status = None
        while status is None:
            self.session, self.welcome, self.scale = self.session + 1, None, None
            self.socket = self.context.socket(zmq.DEALER)
            self.socket.linger = 0
            if self.keys:
                self.socket.curve_secretkey, self.socket.curve_publickey, self.socket.curve_serverkey = self.keys
            self.socket.connect(self.endpoint)
            try:
                status = self.serve()
            except KeyboardInterrupt:
                self.leave("stopped by a signal")
                status = 0
            self.socket.close()
        return status

    def send(self, type, **fields):
        self.socket.send(seal({"type": type, **fields}))

    def serve(self):
        """One session; returns the exit status, or None to connect anew."""
        poller = zmq.Poller()
        poller.register(self.socket, zmq.POLLIN)
        poller.register(self.answers, zmq.POLLIN)
        self.socket.send(seal(self.source.hello()))
        heard = pinged = time.monotonic()
        while True:
            heartbeat = self.welcome["heartbeat_ms"] / 1000 if self.welcome else PATIENCE
            patience = self.welcome["timeout_ms"] / 1000 if self.welcome else PATIENCE
            wait = max(0, min(pinged + heartbeat, heard + patience) - time.monotonic())
            ready = dict(poller.poll(wait * 1000 + 1))
            now = time.monotonic()
            if self.answers in ready:
                session, *frames = self.answers.recv_multipart()
                if int(session) == self.session:
                    self.socket.send_multipart(frames)
            if self.socket in ready:
                heard = now
                message = unseal(self.socket.recv_multipart()[0])
                if message is None:
                    log("a damaged message")
                    return None
                if message["type"] == "ERROR" and message["code"] == "not-now":
                    log(f"not now: {message['text']}")
                    time.sleep(PATIENCE)
                    return None
                if message["type"] == "ERROR" and message["code"] == "unknown-peer":
                    log(f"the trainer does not know us: {message['text']}")
                    return None
                status = self.receive(message)
                if status is not None:
                    return status
            if self.welcome and now - pinged >= heartbeat:
                self.send("PING", token=int(now * 1000), computing=0.0, sending=0.0)
                pinged = now
            if now - heard >= patience:
                log(f"nothing heard for {patience} s")
                return None

    def receive(self, message):
        """Acts on a message; returns the exit status if it is the last one."""
        kind = message["type"]
        if kind == "WELCOME":
            if self.welcome is None:
                log(f"run {message['run']}: {message['dtype']}, {message['block_seqs']} sequences a block")
            self.welcome = message
            if message["scale"] is not None:
                self.scale = np.array(message["scale"], dtype=np.float32)
        elif kind == "LEASE":
            log(f"lease {message['lease']}: block {message['block']} {'scaled' if message['scaled'] else 'raw'}")
            self.leases.put((self.session, message, self.welcome["dtype"], self.scale))
        elif kind == "PING":
            self.send("PONG", token=message["token"])
        elif kind == "ERROR":
            log(f"the trainer says: {message['code']}: {message['text']}")
        elif kind == "REJECT":
            log(f"rejected: {message['reason']}")
            return 1
        elif kind == "END":
            log(f"the run is over: {message['reason']}")
            self.leave("the run is over")
            return 0 if message["ok"] else 1
        return None

    def leave(self, reason):
        """Says BYE and waits for the answer: closing at once could lose what was sent last."""
        if not self.welcome:
            return
        self.send("BYE", reason=reason)
        end = time.monotonic() + PATIENCE
        while self.socket.poll(max(0, end - time.monotonic()) * 1000):
            if (message := unseal(self.socket.recv_multipart()[0])) and message["type"] == "BYE_ACK":
                return


class FaultyProducer(Producer):
    """Is wrong: once, in its third lease, or (liar, rounds) in every second one from there on: for tests of the trainer. Of no use
    in a producer of your own."""

    FAULTS = ("checksum", "origin", "nan", "field", "error", "vanish", "always", "liar", "rounds")

    def __init__(self, source, endpoint, keys, fault):
        super().__init__(source, endpoint, keys)
        self.fault, self.held = fault, []

    def frames(self, header, x, origins):
        if header["lease"] not in self.held:
            self.held.append(header["lease"])
        if self.fault in ("liar", "rounds") and len(self.held) >= 3 and len(self.held) % 2:  # all in order but what was computed
            x = x.copy()
            if self.fault == "liar":
                x[0, 1] = x[0, 0]
            else:
                x[0, 1, 0] ^= 1  # the last bit of a bf16
            return super().frames(header, x, origins)
        spoilt = header["chunk"] == header["chunks"] - 1 and (self.fault == "always" or len(self.held) == 3)
        if not spoilt:
            return super().frames(header, x, origins)
        log(f"fault {self.fault}: block {header['block']}")
        if self.fault == "error":
            raise RuntimeError("fault asked for")
        if self.fault == "vanish":
            time.sleep(0.2)  # so that the chunks before this one are under way
            os._exit(9)
        if self.fault == "origin":
            origins = origins[::-1]
        if self.fault == "nan":
            x = x.copy()
            x[-1, -1, -1] = 0x7fc0 if x.dtype == np.uint16 else np.nan
        header, payload = super().frames(header, x, origins)
        if self.fault in ("checksum", "always"):
            payload = payload[:-1] + bytes([payload[-1] ^ 1])
        if self.fault == "field":
            header = seal({key: value for key, value in unseal(header).items() if key != "rows"})
        return [header, payload]


def log(text):
    print("producer.py:", text, file=sys.stderr, flush=True)


def stop(number, frame):
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser(description="Serves activations of a planted dictionary to an xctrain trainer.")
    parser.add_argument("--connect", default="tcp://127.0.0.1:5555", help="endpoint of the trainer")
    parser.add_argument("--n-seq", type=int, default=256)
    parser.add_argument("--seq-len", type=int, default=64)
    parser.add_argument("--sites", type=int, default=2, help="number of sites")
    parser.add_argument("--d-model", type=int, default=64)
    parser.add_argument("--name", help="in the trainer's messages (default python-PID)")
    parser.add_argument("--curve-secret", metavar="FILE", help="this producer's key pair, if the trainer wants keys")
    parser.add_argument("--curve-server", metavar="FILE", help="the trainer's public key")
    parser.add_argument("--fault", choices=FaultyProducer.FAULTS, help="be wrong: for tests")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, stop)
    source = Source(args.n_seq, args.seq_len, args.sites, args.d_model)
    if args.name:
        hello = source.hello
        source.hello = lambda: {**hello(), "producer": args.name}
    keys = curve_keys(args.curve_secret, args.curve_server) if args.curve_secret else None
    producer = FaultyProducer(source, args.connect, keys, args.fault) if args.fault else Producer(source, args.connect, keys)
    return producer.run()


if __name__ == "__main__":
    sys.exit(main())

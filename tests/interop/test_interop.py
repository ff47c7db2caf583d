"""test_interop.py - xctrain is served by producers that share no code with it: producer.py, written from PROTOCOL.md alone.

Whole runs with the Python producer: provenance against the tokens, the measured scale against numpy, scaled and rounded rows
against the trainer's own (bit for bit), each fault that a producer can have, a trainer killed and resumed. And what
PROTOCOL.md says of single messages, by hand-made frames. Needs Debian's python3-numpy, -zmq, -msgpack, -xxhash.
"""
import collections
import os
import signal
import sys
import time
import unittest

import msgpack
import numpy as np
import zmq

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "../e2e")]
import harness  # noqa: E402
import producer as python_producer  # noqa: E402
from producer import seal  # noqa: E402

PATIENT = 20000  # timeout_ms where nobody is meant to fall silent


def trainer_options(**changes):
    options = dict(batch_size=64, buffer_mult=32, dict_size=64, num_tokens=300 * 64, lr=1e-3, model_batch_size=4,
                   scale_rows=700, eval_blocks=2, eval_every=100, log_every=5, save_every=10000, heartbeat_ms=100,
                   timeout_ms=PATIENT)
    return [f"--{key.replace('_', '-')}={value}" for key, value in (options | changes).items()]


class InteropTest(harness.ProgramTest):
    def trainer(self, *more, out="out", **changes):
        return super().trainer([*trainer_options(**changes), "--provenance", self.path(out + ".prov"), *more], out)

    def producer(self, *args, name="python"):
        script = os.path.join(HERE, "producer.py")
        return self.start(sys.executable, [script, "--connect", self.endpoint(), *args], name)

    def finish(self, trainer, producer):
        """Both end well; does not wait for one if the other has failed."""
        programs = trainer, producer
        self.until(lambda: not any([p.running() for p in programs]) or any(p.status for p in programs), "the end", limit=60)
        self.succeed(*sorted(programs, key=lambda p: p.running()))

    def weights(self, out="out"):
        return harness.sha256(self.path(out, "crosscoder.safetensors"))

    def scale(self, out="out"):
        header, data = harness.read_safetensors(self.path(out, "crosscoder.safetensors"))
        self.assertEqual(header["scale"]["dtype"], "F32")
        return np.frombuffer(data[slice(*header["scale"]["data_offsets"])], dtype="<f4")


class Runs(InteropTest):
    def test_provenance(self):
        """300 steps: more than an epoch; in the first, each row that is not held out comes once."""
        trainer, producer = self.trainer(lr=5e-3), self.producer()
        self.finish(trainer, producer)
        fvu = [line["eval_fvu"] for line in harness.metrics(self.path("out")) if "eval_fvu" in line]
        self.assertLess(fvu[-1], fvu[0] / 2, "it did not learn")
        rows = harness.provenance(self.path("out.prov"))
        tokens = python_producer.Source().tokens
        self.assertEqual(len(rows), 300 * 64)
        for sequence, position, token in rows:
            self.assertEqual(token, tokens[sequence, position])
        trained = {sequence for sequence, _, _ in rows}
        self.assertEqual(len(trained), 256 - 2 * 4)
        epoch = len(trained) * 63
        self.assertEqual(collections.Counter(row[:2] for row in rows[:epoch]),
                         collections.Counter((s, p) for s in trained for p in range(1, 64)))

    def test_scale(self):
        """What is measured is numpy's figure; rows scaled and rounded in Python have the bits of those done in C."""
        for dtype in ("fp32", "bf16"):
            with self.subTest(dtype):
                options = dict(dtype=dtype, num_tokens=100 * 64)
                measured, source = f"measured-{dtype}", python_producer.Source()
                trainer, producer = self.trainer(out=measured, **options), self.producer()
                self.finish(trainer, producer)
                blocks = [int(line.split()[4]) for line in producer.stderr.splitlines() if line.endswith(" raw")]
                self.assertEqual(len(set(blocks)), 3)  # the least that have 700 rows
                raw = np.concatenate([source.rows(s)[0] for b in blocks for s in range(4 * b, 4 * b + 4)]).astype(np.float64)
                expected = np.sqrt(64) / np.linalg.norm(raw, axis=2).mean(axis=0)
                np.testing.assert_allclose(self.scale(measured), expected, rtol=1e-6)

                scale = ",".join(f"{x:.9g}" for x in self.scale(measured))
                trainer, producer = self.trainer(f"--scale={scale}", out=f"given-{dtype}", **options), self.producer()
                self.finish(trainer, producer)
                self.assertNotIn("raw", producer.stderr)
                self.assertEqual(self.weights(f"given-{dtype}"), self.weights(measured))

    def test_keys(self):
        """Key files as PROTOCOL.md describes them; without one, nobody answers."""
        xckeys = os.environ.get("XCKEYS", "xckeys")
        for name in "trainer", "python":
            self.succeed(self.start(xckeys, ["make", self.path(name)], "xckeys"))
        trainer = self.trainer("--curve-secret", self.path("trainer.secret"), "--curve-allow", self.path("python.public"), num_tokens=100 * 64)
        stranger = self.producer(name="stranger")
        producer = self.producer("--curve-secret", self.path("python.secret"), "--curve-server", self.path("trainer.public"))
        self.finish(trainer, producer)
        self.assertEqual(harness.summary(self.path("out"))["ledger"]["producers_seen"], 1)
        self.assertTrue(stranger.running())

    def test_heartbeats_while_computing(self):
        slow = f"""if True:
            import sys, time
            sys.path[:0] = [{HERE!r}]
            import producer
            class Slow(producer.Source):
                def rows(self, sequence):
                    if sequence == 50:
                        time.sleep(2)  # the trainer's patience ends after 1.5
                    return super().rows(sequence)
            sys.exit(producer.Producer(Slow(), {self.endpoint()!r}).run())"""
        trainer = self.trainer(timeout_ms=1500, num_tokens=252 * 64)
        self.finish(trainer, self.start(sys.executable, ["-c", slow], "slow"))
        self.assertNotIn("fell silent", trainer.stderr)
        self.assertEqual(harness.summary(self.path("out"))["ledger"]["producers_lost"], 0)

    def test_trainer_killed_and_resumed(self):
        """The producer stays, finds the new trainer and goes on; the weights are those of a quiet run."""
        options = dict(save_every=20, timeout_ms=2000)
        trainer, producer = self.trainer(out="quiet", **options), self.producer()
        self.finish(trainer, producer)
        trainer, producer = self.trainer(**options), self.producer()
        self.until_step(60, trainer, producer)
        trainer.kill()
        self.assertLess(harness.last_step(self.path("out")), 300)
        again = self.trainer("--resume", **options)
        self.finish(again, producer)
        self.assertIn("resuming from", again.stderr)
        self.assertIn("producer.py: the trainer does not know us", producer.stderr)
        self.assertEqual(self.weights(), self.weights("quiet"))

    def test_producer_leaves_politely(self):
        trainer, first = self.trainer(), self.producer(name="first")
        self.until_step(60, trainer, first)
        first.kill(signal.SIGTERM)
        self.succeed(first)
        self.finish(trainer, self.producer(name="second"))
        self.assertRegex(trainer.stderr, r"producer python-\d+ leaves")
        self.assertEqual(harness.summary(self.path("out"))["ledger"]["producers_lost"], 0)


class BesideActgen(InteropTest):
    """gpt2_producer.py has its fingerprints from PROTOCOL.md's words and its rows from numpy, and serves one run together with actgen.
    Each block is computed twice and compared: that some differ, by less than 1e-4, shows that both computed the same, each its own."""

    def run_beside(self, models, sites, *more):
        tokens = self.path("tokens.npy")
        np.save(tokens, np.load(f"{harness.DEMO}/tokens.npy")[:200])
        source = [arg for model in models for arg in ("--model", f"{harness.DEMO}/{model}")] + ["--tokens", tokens, "--sites", sites, *more]
        python = self.start(sys.executable, [os.path.join(HERE, "gpt2_producer.py"), "--connect", self.endpoint(), *source], "python")
        actgen = self.start(harness.ACTGEN, ["--connect", self.endpoint(), "--threads", "1", "--name", "actgen", *source], "actgen")
        trainer = self.trainer("--audit=1", "--audit-tolerance=1e-4", dtype="fp32", buffer_mult=16, num_tokens=1e9)

        def ledger():
            try:
                return harness.read_json(self.path("out", "status.json"))["ledger"]
            except (FileNotFoundError, KeyError):
                return {"audits_different": 0}

        self.until(lambda: ledger()["audits_different"] > 8, "comparisons", trainer, python, actgen)
        trainer.kill(signal.SIGTERM)
        self.succeed(trainer, python, actgen)
        self.assertIn("producer actgen joins", trainer.stderr)
        self.assertRegex(trainer.stderr, r"producer python-\d+ joins")
        self.assertNotIn("rejected", trainer.stderr)
        return harness.provenance(self.path("out.prov"))

    def test_model(self):
        self.run_beside(["base"], "blocks.1.hook_attn_out,blocks.3.hook_resid_post,blocks.5.hook_mlp_out")

    def test_pair_with_padding(self):
        """Two models, a difference, and masked positions, on which neither is trained."""
        lengths = [5 + 2 * (i % 60) for i in range(200)]
        harness.write_npy_vector(self.path("lengths.npy"), lengths)
        rows = self.run_beside(["base", "chat"], "0:blocks.2.hook_resid_post,1:blocks.2.hook_resid_post,1-0:blocks.4.hook_resid_mid",
                               "--lengths", self.path("lengths.npy"))
        self.assertGreater(len(rows), 100)
        self.assertEqual([row for row in rows if row[1] >= lengths[row[0]]], [])


class Faults(InteropTest):
    """Rows of 8 KB in bf16, so that a block is 32 chunks; each run has the undisturbed one's bits."""
    undisturbed = None
    SOURCE = ["--sites=4", "--d-model=1024", "--n-seq=96"]
    SAYS = {  # what the trainer's log says; whether the producer can go on
        "checksum": (r"block {block} chunk 31: checksum [0-9a-f]{{16}}, payload has [0-9a-f]{{16}}; block leased again", True),
        "origin": (r"block {block} row \d+: is sequence \d+ position \d+, expected \d+ and \d+; block leased again", True),
        "nan": (r"block {block} chunk 31: sequence \d+, position \d+, site .*: value \d+ is -?nan, must be finite; block leased again", True),
        "error": (r"block {block}: source: RuntimeError\('fault asked for'\); block leased again", True),
        "field": (r"BATCH with 6 fields(.|\n)* broke the protocol, dropped; \d blocks? leased again", False),
        "vanish": (r"is gone; \d blocks? leased again", False),
    }

    def trainer(self, *more, **changes):
        return super().trainer(*more, model_batch_size=16, num_tokens=64 * 64, dict_size=32, scale_rows=500, eval_blocks=1,
                               **changes)

    def producer(self, *args, **kw):
        return super().producer(*self.SOURCE, *args, **kw)

    def expected(self):
        if Faults.undisturbed is None:
            trainer = self.trainer(out="undisturbed")
            self.finish(trainer, self.producer())
            Faults.undisturbed = self.weights("undisturbed"), harness.sha256(self.path("undisturbed.prov"))
        return Faults.undisturbed

    def check(self, fault):
        says, goes_on = self.SAYS[fault]
        expected = self.expected()
        trainer = self.trainer(timeout_ms=1000 if fault == "vanish" else PATIENT)
        faulty = self.producer(f"--fault={fault}", name="faulty")
        if goes_on:
            self.finish(trainer, faulty)
        else:
            self.assertEqual(faulty.wait(), 9 if fault == "vanish" else 1, faulty.stderr)
            self.finish(trainer, self.producer(name="healthy"))
        block = faulty.stderr.split(f"fault {fault}: block ")[1].split()[0]
        self.assertRegex(trainer.stderr, r"producer python-\d+:? " + says.format(block=block))
        self.assertEqual((self.weights(), harness.sha256(self.path("out.prov"))), expected)
        self.assertGreater(harness.summary(self.path("out"))["ledger"]["blocks_leased_again"], 0)
        return faulty

    def test_checksum(self):
        self.check("checksum")

    def test_origin(self):
        self.check("origin")

    def test_nan(self):
        self.check("nan")

    def test_error(self):
        self.check("error")

    def test_missing_field(self):
        self.assertIn("rejected: BATCH with 6 fields", self.check("field").stderr)

    def test_vanish(self):
        self.check("vanish")

    def test_always(self):
        """Three wrong chunks in a row: dropped, while another one does the run."""
        expected = self.expected()
        trainer, faulty = self.trainer(), self.producer("--fault=always", "--name=bent", name="faulty")
        self.assertEqual(faulty.wait(), 1, faulty.stderr)
        self.assertIn("rejected: block", faulty.stderr)
        self.assertRegex(trainer.stderr, "producer bent sent too many bad chunks, dropped")
        self.finish(trainer, self.producer("--name=bent", name="healthy"))  # a name is nobody's own
        self.assertEqual((self.weights(), harness.sha256(self.path("out.prov"))), expected)
        self.assertEqual(harness.summary(self.path("out"))["ledger"]["bad_chunks"], 3)

    def audited(self, fault):
        """Its odd leases are wrong: alone, it disagrees with itself, as it may have to if the other one is slow to start."""
        trainer = self.trainer("--audit=1", scale="1,1,1,1")
        other = self.producer(f"--fault={fault}", "--name=other", name=fault)
        self.until(lambda: "producer other joins" in trainer.stderr, "joining", trainer, other)
        return trainer, other, self.producer("--name=honest", name="honest")

    def test_audit_of_a_liar(self):
        """Its rows pass every check but the comparison with somebody else's; the run ends, its state saved."""
        trainer, liar, honest = self.audited("liar")
        self.assertEqual(trainer.wait(60), 1, trainer.stderr)
        self.assertRegex(trainer.stderr, r"error: audit: producers (honest|other) \(process \d+\) and (honest|other) \(process \d+\) disagree on block \d+ by "
                                         r"[0-9.]+ % at site blocks\.1\.hook_resid_post, --audit-tolerance is 2 %")
        self.assertTrue(harness.checkpoints(self.path("out")))
        self.assertEqual(liar.wait(), 1)
        self.assertIn("the run is over: audit:", liar.stderr)
        honest.kill()

    def test_audit_of_one_that_rounds(self):
        """Another processor's rounding is counted, and no reason to end a run."""
        trainer, other, honest = self.audited("rounds")
        self.finish(trainer, other)
        honest.kill()
        self.assertIn("that is rounding (--audit-tolerance)", trainer.stderr)
        ledger = harness.summary(self.path("out"))["ledger"]
        self.assertGreater(ledger["audits_different"], 0)
        self.assertGreater(ledger["audits"], ledger["audits_different"])


class Messages(InteropTest):
    """Hand-made messages to a trainer."""

    def setUp(self):
        super().setUp()
        self.context = zmq.Context()
        self.context.linger = 0
        self.sockets = []
        self.addCleanup(self.context.destroy)  # and the sockets
        self.good = python_producer.Source().hello()

    def connect(self, *frames):
        socket = self.context.socket(zmq.DEALER)
        self.sockets.append(socket)
        socket.connect(self.endpoint())
        socket.send_multipart(frames)
        return socket

    def next(self, socket, kind):
        """The next message of that type."""
        end = time.monotonic() + 5
        while socket.poll(max(0, end - time.monotonic()) * 1000):
            frames = socket.recv_multipart()
            self.assertEqual(len(frames), 1)
            message = python_producer.unseal(frames[0])
            self.assertEqual(next(iter(message)), "type")
            if message["type"] == kind:
                return message
        self.fail(f"no {kind} came")

    def refused(self, *frames):
        """The reason of the REJECT with which a new connection's frames are answered."""
        return self.next(self.connect(*frames), "REJECT")["reason"]

    def refused_for_now(self, *frames):
        """The reason, if it is one that a trainer started anew may not have."""
        error = self.next(self.connect(*frames), "ERROR")
        self.assertEqual((error["code"], error["lease"]), ("not-now", 0))
        return error["text"]

    def test_hello_that_differs(self):
        trainer = self.trainer()
        first = self.connect(seal(self.good))
        welcome = self.next(first, "WELCOME")
        self.assertIsNone(welcome["scale"])
        self.assertEqual((welcome["dtype"], welcome["block_seqs"], welcome["heartbeat_ms"]), ("bf16", 4, 100))
        other = "0123456789abcdef" * 2
        for change, ours, theirs in (
                ({"d_model": 128}, "d_model 128", "64"),
                ({"version": 2}, "version 2", "1"),
                ({"sites": ["blocks.0.hook_resid_post", "blocks.7.hook_resid_post"]}, "blocks.7", "blocks.1"),
                ({"sites": ["blocks.0.hook_resid_post"]}, "sites 1", "2"),
                ({"tokens": other}, other, self.good["tokens"]),
                ({"models": [other]}, other, self.good["models"][0]),
                ({"models": []}, "models 0", "1"),
                ({"seq_len": 65}, "seq_len 65", "64"),
                ({"rows_per_seq": 64}, "64", "63"),
                ({"n_seq": 257}, "257", "256"),
                ({"vocab_size": 50257}, "50257", "1000"),
                ({"dtypes": ["bf16"]}, "offered: bf16,", "needs bf16 fp32"),
                ({"dtypes": ["fp32"]}, "offered: fp32,", "needs bf16 fp32"),
                ({"scale": [1.5, 2.0]}, "1.5", "measures")):
            with self.subTest(str(change)):
                final = {"version", "dtypes"} & set(change)  # all else is only not what the first producer said
                reason = (self.refused if final else self.refused_for_now)(seal(self.good | change))
                self.assertIn(ours, reason)
                self.assertIn(theirs, reason.replace(ours, ""))
        self.next(self.connect(seal(self.good)), "WELCOME")  # and a good one is still welcome
        self.assertEqual(trainer.stderr.count("rejected"), 14)

    def test_sites_and_models(self):
        """What section 3 says of sites' names, before the first producer and after."""
        self.trainer()
        one, two = self.good["models"], self.good["models"] * 2
        for when in ("before", "after"):
            for sites, models, why in ((["a", "a"], one, "sites 0 and 1 are both a"), (["a", "b"], two, "site 0 (a) names no model, but there are 2"),
                                       (["0:a", "b"], two, "site 1 (b) names no model"), (["0:a", "0:b"], one, "site 0 (0:a) names a model, but there is one"),
                                       (["0:a", "2-0:a"], two, "site 1 (2-0:a) names model 2, but there are 2"),
                                       (["0:a", "1:a"], [], "site 0 (0:a) names a model, but there is none")):
                with self.subTest(when + ": " + why):
                    self.assertIn(why, self.refused(seal(self.good | {"sites": sites, "models": models})))
            self.next(self.connect(seal(self.good)), "WELCOME")

    def test_own_scale_needs_the_runs_dtype(self):
        """A scale of its own spares a producer the raw leases, but not the dtype of the run."""
        self.trainer(dtype="fp32")
        hello = self.good | {"scale": [1.5, 2.0]}
        self.assertIn("offered: bf16, run needs fp32", self.refused(seal(hello | {"dtypes": ["bf16"]})))
        first = self.connect(seal(hello | {"dtypes": ["fp32"]}))
        self.assertEqual(self.next(first, "WELCOME")["scale"], [1.5, 2.0])
        self.assertTrue(self.next(first, "LEASE")["scaled"])

    def broken(self):
        good, pack = self.good, msgpack.packb
        return {
            "a missing field": [pack({key: good[key] for key in good if key != "n_seq"})],
            "an unknown field": [pack(good | {"colour": "red"})],
            "type not first": [pack({"version": 1} | good)],
            "a field twice": [pack(good).replace(b"\xa7d_model", b"\xa7seq_len")],
            "a signed number": [pack(good | {"d_model": -64})],
            "a number as a string": [pack(good | {"d_model": "64"})],
            "a control character": [pack(good | {"producer": "a\x1b[2Jb"})],
            "a string too long": [pack(good | {"producer": "x" * 64})],
            "a scale of integers": [pack(good | {"scale": [1, 1]})],
            "bytes after the map": [pack(good) + b"\xc0"],
            "a map cut short": [pack(good)[:-1]],
            "no map": [b"\x90"],
            "nothing": [b""],
            "an unknown type": [pack({"type": "HALLO"})],
            "a header too large": [pack(good | {"sites": ["x" * 60] * 1100})],
            "two frames": [pack(good), b""],
            "a row larger than a chunk": [pack(good | {"d_model": 1 << 20})],
        }

    def test_broken_messages(self):
        """The same before the first producer has come and after."""
        trainer = self.trainer()
        for when in ("before", "after"):
            for what, (header, *more) in self.broken().items():
                with self.subTest(when + ": " + what):
                    reason = self.refused(header + python_producer.checksum(header), *more)
                    self.assertGreater(len(reason), 8)
                    self.assertIn(reason, trainer.stderr)
            self.next(self.connect(seal(self.good)), "WELCOME")

    def test_damaged_messages(self):
        """A header that was changed on the way is nobody's fault: its sender is told to begin anew, and may."""
        trainer = self.trainer()
        known = self.connect(seal(self.good))
        self.next(known, "WELCOME")
        ping = seal({"type": "PING", "token": 1, "computing": 0.5, "sending": 0.5})
        for damaged in (ping[:-1], ping[:-9] + bytes([ping[-9] ^ 1]) + ping[-8:], b"", seal(self.good)[:-1] + b"x"):
            with self.subTest(damaged):
                known.send(damaged)
                self.assertEqual(self.next(known, "ERROR")["code"], "unknown-peer")
                self.assertIn("damaged message", trainer.stderr)
                known.send(seal(self.good))
                self.next(known, "WELCOME")

    def test_unknown_peers(self):
        self.trainer()
        for when in ("before", "after"):
            stranger = self.connect(seal({"type": "PING", "token": 1, "computing": 0.5, "sending": 0.5}))
            error = self.next(stranger, "ERROR")
            self.assertEqual((error["lease"], error["code"]), (0, "unknown-peer"))
            stranger.send(seal({"type": "BYE", "reason": "never mind"}))
            self.next(stranger, "BYE_ACK")
            known = self.connect(seal(self.good))
            self.next(known, "WELCOME")
        known.send(seal({"type": "PING", "token": 2**64 - 1, "computing": 1.0, "sending": 0.0}))
        self.assertEqual(self.next(known, "PONG"), {"type": "PONG", "token": 2**64 - 1})

    def test_end(self):
        """END goes to the producers of the run and to one that comes while the trainer closes; BYE gets its answer."""
        trainer = self.trainer()
        first = self.connect(seal(self.good))
        self.next(first, "LEASE")
        trainer.kill(signal.SIGTERM)
        self.assertTrue(self.next(first, "END")["ok"])
        late = self.connect(seal(self.good))
        self.assertTrue(self.next(late, "END")["ok"])
        for socket in (late, first):
            socket.send(seal({"type": "BYE", "reason": "the run is over"}))
            self.next(socket, "BYE_ACK")
        start = time.monotonic()
        self.succeed(trainer)
        self.assertLess(time.monotonic() - start, 2)

    def test_third_bad_chunk(self):
        trainer = self.trainer()
        bad = self.connect(seal(self.good))
        for fault in range(3):
            lease = self.next(bad, "LEASE")
            chunk = {key: lease[key] for key in ("lease", "block")}
            chunk |= {"type": "BATCH", "chunk": 0, "chunks": 1, "rows": 252, "checksum": 0, "origins": bytes(252 * 12)}
            bad.send_multipart([seal({"type": "BATCH"} | chunk), bytes(252 * 512)])
        self.assertIn("checksum", self.next(bad, "REJECT")["reason"])
        self.until(lambda: "sent too many bad chunks, dropped" in trainer.stderr, "a line about it", trainer)


if __name__ == "__main__":
    harness.main()

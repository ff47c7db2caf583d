"""test_bad_input.py - what is wrong is refused in one clear line, and costs nothing but itself.

For each bad input: the exit status (1 at run time, 2 for usage), one line on stderr that names the object and both values
where there are two, no crash, no hang, and nothing left behind that a later run would read. A bad producer or a peer that talks
rubbish never costs the run what it had; nor does a full disk: test_checkpoints.py.
"""
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import time

import harness
import noise

BASE, CHAT, TOKENS = f"{harness.DEMO}/base", f"{harness.DEMO}/chat", f"{harness.DEMO}/tokens.npy"
SITES = "blocks.[024].hook_resid_post"
WEIGHT = "transformer.h.2.mlp.c_fc.weight"
TRAINER = ["--batch-size", "64", "--num-tokens", "6400", "--buffer-mult", "16", "--dict-size", "128", "--model-batch-size", "2",
           "--eval-blocks", "1", "--scale-rows", "300", "--log-every", "1", "--save-every", "20", "--timeout-ms", "60000",
           "--heartbeat-ms", "200"]
SYNTHETIC = ["--source", "synthetic", "--d-model", "16", "--n-sites", "2", "--latents", "32", "--n-seq", "256"]


class BadInput(harness.ProgramTest):
    def refused(self, program, *patterns, status=1):
        """The program ended with this status and one line that has all patterns (regular expressions)."""
        self.assertEqual(program.wait(30), status, program.stderr)
        lines = program.stderr.splitlines()
        errors = [line for line in lines if "error: " in line] if status == 1 else lines[:1]
        self.assertEqual(len(errors), 1, program.stderr)
        for pattern in patterns:
            self.assertRegex(errors[0], pattern)
        if os.environ.get("SHOW"):
            print(f"\n    {errors[0]}", end="", flush=True)

    def edited_model(self, edit, folder="model"):
        """A copy of the base model after edit(header, data)."""
        shutil.copytree(BASE, self.path(folder))
        header, data = harness.read_safetensors(f"{BASE}/model.safetensors")
        edit(header, data)
        harness.write_safetensors(self.path(folder, "model.safetensors"), header, data)
        return self.path(folder)

    def set_weight(self, value):
        def edit(header, data):
            begin = header[WEIGHT]["data_offsets"][0]
            data[begin + 200:begin + 202] = value
        return edit

    def cut_model(self, size):
        shutil.copytree(BASE, self.path("model"))
        os.truncate(self.path("model", "model.safetensors"), size)
        return self.path("model")

    def out_is_empty(self):
        self.assertTrue(not os.path.exists(self.path("out")) or set(os.listdir(self.path("out"))) <= {"status.json"})


class Actgen(BadInput):
    """Refused before a trainer is looked for."""

    def refuse(self, args, *patterns, status=1):
        self.refused(self.producer(args), *patterns, status=status)

    def refuse_model(self, model, *patterns):
        self.refuse(["--model", model, "--tokens", TOKENS], *patterns)

    def test_weights_missing(self):
        shutil.copytree(BASE, self.path("model"))
        os.remove(self.path("model", "model.safetensors"))
        self.refuse_model(self.path("model"), self.path("model"), "model.safetensors")
        self.refuse_model(self.path("nowhere"), "nowhere/config.json", "No such file")

    def test_weights_cut_in_data(self):
        size = os.path.getsize(f"{BASE}/model.safetensors") // 2
        self.refuse_model(self.cut_model(size), "model.safetensors", "tensor transformer", r"\d+ bytes of data")

    def test_weights_cut_in_header(self):
        self.refuse_model(self.cut_model(100), "model.safetensors", "header of", "only 92 follow")

    def test_weights_empty(self):
        self.refuse_model(self.cut_model(0), "model.safetensors")

    def test_weights_rubbish(self):
        shutil.copytree(BASE, self.path("model"))
        with open(self.path("model", "model.safetensors"), "wb") as f:
            f.write(b"<!DOCTYPE html> this is what a failed download looks like" * 100)
        self.refuse_model(self.path("model"), "model.safetensors", "header")

    def test_weight_of_wrong_shape(self):
        def edit(header, data):
            header[WEIGHT]["shape"].reverse()
        self.refuse_model(self.edited_model(edit), WEIGHT, r"\[512, 128\]", r"\[128, 512\]")

    def test_weight_missing(self):
        def edit(header, data):
            header["other"] = header.pop(WEIGHT)
        self.refuse_model(self.edited_model(edit), "h.2.mlp.c_fc.weight")

    def test_weight_nan(self):
        self.refuse_model(self.edited_model(self.set_weight(b"\xc0\x7f")), "model.safetensors", WEIGHT, "element 100", "nan")

    def test_endpoints(self):
        for endpoint, *patterns in (("nonsense", "tcp://HOST:PORT"), ("tcp://127.0.0.1:99999", "port '99999'", "65535"), ("tcp://127.0.0.1:*", "port"),
                                    ("tcp://::1:5555", "brackets"), ("ipc:///" + "x" * 200, "path of 201 bytes", "107")):
            self.refused(self.producer(SYNTHETIC, endpoint=endpoint), "--connect: endpoint", *patterns, status=2)
        unknown = self.producer([*SYNTHETIC, "--give-up-after", "1"], endpoint="tcp://nowhere.invalid:5555")
        self.refused(unknown, "nowhere.invalid", "does not resolve")

    def test_models_differ(self):
        other = os.path.join(os.path.dirname(__file__), "../data/gpt2/odd_heads")
        self.refuse(["--model", BASE, "--model", other, "--tokens", TOKENS], "d_model 128", "96", "base", "odd_heads")

    def test_site_unknown(self):
        self.refuse(["--model", BASE, "--tokens", TOKENS, "--sites", "blocks.9.hook_resid_post"],
                    r"blocks\.9\.hook_resid_post", "6 layers")
        self.refuse(["--model", BASE, "--tokens", TOKENS, "--sites", "blocks.*.hook_resid_pots"],
                    r"blocks\.\*\.hook_resid_pots", "hook_resid_post")
        self.refuse([*SYNTHETIC, "--sites", "blocks.7.*"], r"'blocks\.7\.\*' matches no site", "blocks.0.hook_resid_post to blocks.1.hook")

    def test_tokens(self):
        tokens = self.path("tokens.npy")
        for rows, patterns in (
                ([[1] * 8] * 7 + [[1, 2, 3, 2048, 4, 5, 6, 7]], ["sequence 7, position 3", "id 2048", "vocabulary has 2048"]),
                ([[1] * 200] * 4, ["seq_len 200", "128 positions", "base"]),
                ([[1]] * 4, ["seq_len 1", "--keep-bos"])):
            harness.write_npy(tokens, rows)
            self.refuse(["--model", BASE, "--tokens", tokens], "tokens.npy", *patterns)
        harness.write_npy(tokens, [[1] * 8, [1, -2] * 4], "<i4")
        self.refuse(["--model", BASE, "--tokens", tokens], "sequence 1, position 1", "id -2", "2048")
        harness.write_npy(tokens, [[1] * 8] * 4)
        os.truncate(tokens, os.path.getsize(tokens) - 8)
        self.refuse(["--model", BASE, "--tokens", tokens], "tokens.npy")
        self.refuse(["--model", BASE, "--tokens", self.path("nowhere.npy")], "nowhere.npy", "No such file")
        self.refuse(["--model", BASE, "--tokens", TOKENS, "--seq-len", "500"], "500", "128")

    def test_no_trainer(self):
        begin = time.monotonic()
        self.refuse(SYNTHETIC + ["--give-up-after", "2"], re.escape(self.endpoint()), "no trainer", "2 s")
        self.assertLess(time.monotonic() - begin, 10)

    def test_usage(self):
        self.refuse([], "--model", "--tokens", status=2)
        self.refuse(SYNTHETIC + ["--nonsense"], "--nonsense", status=2)
        self.refuse(SYNTHETIC + ["--threads", "0"], "--threads '0'", "1 to", status=2)
        self.refuse(SYNTHETIC + ["--scale", "1,0"], "--scale '1,0'", "value 1", status=2)

    def test_flags_of_another_source(self):
        """A flag that the chosen source does not use would do nothing, in silence."""
        model, recording = ["--model", BASE, "--tokens", TOKENS], ["--source", "recording", "--input", self.folder]
        npy, safetensors = (["--source", kind, "--input", self.path("acts")] for kind in ("npy", "safetensors"))
        of_model = [["--model", BASE], ["--tokens", TOKENS], ["--no-lengths"], ["--keep-bos"], ["--center-writing-weights"],
                    ["--compute", "bf16"]]
        lengths = ["--lengths", "/nonexistent"]
        of_synthetic = [["--truth", "t"], *([f"--{name}", "1"] for name in ("d-model", "n-sites", "n-models", "latents", "active",
                                                                            "noise", "n-seq", "seed", "local", "exclusive", "rate-spread",
                                                                            "correlated", "weak-ratio", "alone")), ["--aligned"]]
        for args, name, *others in ((SYNTHETIC, "synthetic", *of_model, lengths, ["--input", "x"], ["--verify"], ["--npy-dtype", "bf16"]),
                                    (model, "model", *of_synthetic, ["--input", "x"], ["--verify"], ["--npy-dtype", "bf16"]),
                                    (recording, "recording", *of_model, lengths, *of_synthetic, ["--seq-len", "4"], ["--record", "r"],
                                     ["--npy-dtype", "bf16"]),
                                    (npy, "npy", *of_model, *of_synthetic, ["--verify"]),
                                    (safetensors, "safetensors", *of_model, *of_synthetic, ["--verify"], ["--npy-dtype", "bf16"])):
            for flag in others:
                self.refuse([*args, *flag], f"{flag[0]} belongs to --source .*, not to --source {name}$", status=2)
        self.refuse([*SYNTHETIC, "--keep-bos"], "--keep-bos belongs to --source model, not to --source synthetic", status=2)
        self.refuse([*model, "--input", "x"], "--input belongs to --source recording, npy or safetensors, not", status=2)
        self.refuse([*model, "--source", "gpt2", "--seed", "1"], "not to --source model", status=2)  # its older name

    def test_flags_that_do_nothing(self):
        """Of recording without a trainer, or of serving one, where the other is done."""
        measured = [[f"--{name}", "100"] for name in ("scale-rows", "run-seed", "model-batch-size", "eval-blocks", "window-rows")]
        for flag in ["--dtype", "fp32"], ["--shard-seqs", "4"], *measured:
            for more in [], ["--record", self.path("r")]:  # --connect is there
                self.refuse([*SYNTHETIC, *more, *flag], f"{flag[0]} belongs to --record without --connect", status=2)
        for flag in ["--name", "x"], ["--give-up-after", "9"], ["--curve-secret", "x"], ["--curve-server", "x"]:
            self.refused(self.start(harness.ACTGEN, [*SYNTHETIC, "--record", self.path("r"), *flag], "record"),
                         f"{flag[0]} belongs to a trainer", status=2)
        for flag in measured:
            self.refused(self.start(harness.ACTGEN, [*SYNTHETIC, "--record", self.path("r"), "--scale", "1,1", *flag], "record"),
                         f"{flag[0]} and --scale", status=2)
        self.refused(self.start(harness.ACTGEN, [*SYNTHETIC, "--record", self.path("r"), "--n-seq", "8"], "record"),
                     "4 blocks held out", "of 2 in all", "--scale gives one")
        self.refuse([*SYNTHETIC, "--truth", "t", "--sites", "blocks.1.*"], "--truth and --sites exclude each other", status=2)
        self.refuse([*SYNTHETIC, "--resume"], "--resume goes with --record", status=2)
        self.assertFalse(os.path.exists(self.path("r")))

    def test_given_twice(self):
        """Numbers may be said again, the last one holds; of files the first one would be dropped."""
        self.refuse(["--model", BASE, "--tokens", TOKENS, "--tokens", "other.npy"], "--tokens is given twice",
                    re.escape(TOKENS), "other.npy", status=2)
        self.refuse([*SYNTHETIC, "--record", "a", "--record", "b"], "--record is given twice: 'a' and 'b'", status=2)
        self.refused(self.trainer(["--out", "b"]), "--out is given twice", "'b'", status=2)
        self.refuse([*SYNTHETIC, "--d-model", "8", "--noise", "1e7"], "--noise '1e7'", status=2)
        self.refuse(["--source", "npy"], "--source npy needs --input", status=2)
        self.refuse(["--source", "recording", "--input", "a", "--input", "b"], "takes one --input", status=2)

    def test_truth_unwritable(self):
        self.refuse(SYNTHETIC + ["--truth", self.path("nowhere", "truth")], "nowhere/truth", "No such file")


class Xctrain(BadInput):
    """Refused before or at the first producer."""

    def refuse(self, args, *patterns, status=1):
        self.refused(self.trainer(args), *patterns, status=status)

    def test_usage(self):
        for flag, value, *patterns in (("--batch-size", "0", "--batch-size '0'", "from 1"), ("--lr", "fast", "lr 'fast'"),
                                       ("--dtype", "int8", "'int8'", "bf16 or fp32"), ("--scale", "1,-2", "'1,-2'", "value 1"),
                                       ("--seed", "1.5", "'1.5'", "whole"), ("--nonsense", "1", "--nonsense")):
            self.refuse([flag, value], *patterns, status=2)
        self.refused(self.start(harness.XCTRAIN, [], "trainer"), "--out", status=2)
        self.out_is_empty()

    def test_expect(self):
        self.refuse(["--resume", "--expect", "cfg.json"], "--resume and --expect exclude each other", status=2)
        self.refuse(["--expect", self.path("nowhere.json")], "nowhere.json", "No such file")
        for text, why in ("{}", "its stream description is incomplete"), ('{"stream": [1]}', "its stream description is incomplete"), ("{", "not JSON"):
            with open(self.path("cfg.json"), "w") as f:
                f.write(text)
            self.refuse(["--expect", self.path("cfg.json")], "cfg.json", why)

    def test_too_few_tokens(self):
        self.refuse(["--num-tokens", "100", "--batch-size", "128"], "num_tokens 100", "128")
        self.out_is_empty()

    def test_out_unwritable(self):
        with open(self.path("file"), "w"):
            pass
        for out, *patterns in (("file/out", "file/out", "Not a directory"), ("file", "/file", "not a folder")):
            self.refused(self.trainer(TRAINER, out=out), *patterns)
        for out in "/proc/out", "/proc":
            self.refused(self.start(harness.XCTRAIN, ["--out", out, "--listen", self.endpoint()], "trainer"), "/proc")

    def test_endpoints(self):
        for flag, endpoint, *patterns in (("--listen", "nonsense", "tcp://HOST:PORT"), ("--listen", "tcp://127.0.0.1:99999", "port '99999'", "65535"),
                                          ("--listen", "tcp://127.0.0.1:-1", "port '-1'"), ("--listen", "tcp://127.0.0.1:5571x", "port '5571x'"),
                                          ("--metrics-listen", "127.0.0.1:99999", "port '99999'"), ("--metrics-listen", "nonsense", "ADDRESS:PORT")):
            self.refuse([flag, endpoint], f"{flag}: endpoint '{endpoint}'", *patterns, status=2)
        self.refuse(["--listen", "tcp://eth99:5599", "--insecure"], "eth99", "interface", "does not resolve")
        self.refuse(["--listen", "tcp://192.0.2.1:5599", "--insecure"], "192.0.2.1", "not one of this machine")
        self.refuse(["--listen", "tcp://0.0.0.0:5599"], "tcp://0.0.0.0:5599", "loopback", "--insecure")
        self.refuse(["--listen", "tcp://*:5599"], r"tcp://\*:5599", "loopback", "--insecure")
        self.refuse(["--listen", "ipc://" + self.path("nowhere", "s")], "nowhere/s", "No such file")
        self.out_is_empty()

    def test_endpoint_in_use(self):
        for endpoint in self.endpoint(), "tcp://127.0.0.1:*":
            first = self.trainer(TRAINER, out="first", endpoint=endpoint)
            self.until(lambda: "listening at" in first.stderr, "listening", first)
            bound = re.search("listening at (.*)", first.stderr).group(1)
            if endpoint.startswith("tcp"):
                self.assertRegex(bound, r"^tcp://127\.0\.0\.1:\d+$")
            self.refused(self.trainer(TRAINER, endpoint=bound), re.escape(bound), "in use")
            self.out_is_empty()
            producer = self.producer(SYNTHETIC, endpoint=bound)  # the first one is unharmed
            self.succeed(first, producer)
            shutil.rmtree(self.path("first"))

    def test_set_up_fails(self):
        """Each is found when the first producer has said what it has; the producer is told why and ends too."""
        truth, weights = self.path("truth"), self.path("weights.safetensors")
        harness.write_safetensors(truth, {"kind": {"dtype": "I32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4))
        harness.write_safetensors(weights, {"W_enc": {"dtype": "F32", "shape": [2, 8, 128], "data_offsets": [0, 8192]}}, bytes(8192))
        for args, *patterns in (
                (["--buffer-mult", "1"], "window of 64 rows", "block of 256", "--buffer-mult", "--model-batch-size"),
                (["--eval-blocks", "128"], "128 blocks held out", "of 128 in all"),
                (["--dict-size", "1e9"], "MB of memory", "this machine has"),
                (["--truth", self.path("nowhere")], "nowhere", "No such file"),
                (["--truth", truth], "directions"),
                (["--init", self.path("nowhere")], "nowhere", "No such file"),
                (["--init", weights], "weights.safetensors", "W_enc", r"\[2, 8, 128\]", r"\[2, 16, 128\]"),
                (["--provenance", self.path("nowhere", "p")], "nowhere/p", "No such file")):
            begin = time.monotonic()
            trainer, producer = self.trainer([*TRAINER, *args]), self.producer(SYNTHETIC)
            self.refused(trainer, *patterns)
            self.refused(producer, "the run failed", *patterns)
            self.assertLess(time.monotonic() - begin, 10)
            self.out_is_empty()

    def test_scale_of_other_length(self):
        trainer = self.trainer([*TRAINER, "--scale", "1,2,3"])
        self.refused(self.producer(SYNTHETIC), "2 sites", "3 values")
        trainer.kill(signal.SIGTERM)
        self.succeed(trainer)


class Resume(BadInput):
    def stopped_run(self):
        trainer, producer = self.trainer(TRAINER), self.producer(SYNTHETIC)
        self.until_step(25, trainer, producer)
        producer.kill(signal.SIGSTOP)  # no more rows: it cannot end before it is stopped
        trainer.kill(signal.SIGTERM)
        producer.kill(signal.SIGCONT)
        self.succeed(trainer, producer)
        self.assertLess(harness.checkpoints(self.path("out"))[-1], 100)

    def test_run_is_there(self):
        self.stopped_run()
        before = sorted(os.listdir(self.path("out")))
        self.refused(self.trainer(TRAINER), re.escape(self.path("out")), "holds a run", "--resume")
        self.assertEqual(sorted(os.listdir(self.path("out"))), before)

    def test_other_config(self):
        self.stopped_run()
        before = {name: harness.sha256(self.path("out", name)) for name in ("metrics.jsonl",)}
        for flag, value, *patterns in (("--lr", "5e-4", "lr is 0.0005,", "has 2e-0?5$"), ("--seed", "1", "seed", "1", "49"),
                                       ("--dict-size", "256", "dict_size", "256", "128"), ("--dtype", "fp32", '"fp32"', '"bf16"'),
                                       ("--num-tokens", "1e4", "num_tokens", "10000", "6400")):
            self.refused(self.trainer([*TRAINER, "--resume", flag, value]), "cannot resume", *patterns)
        for name, was in before.items():
            self.assertEqual(harness.sha256(self.path("out", name)), was)
        # Another stream is refused by the producer's name, and the run goes on with the right one.
        trainer = self.trainer(["--resume", "--save-every", "50"])
        self.refused(self.producer(SYNTHETIC + ["--seed", "5"]), "model 0 has fingerprint", "run has")
        self.succeed(trainer, self.producer(SYNTHETIC))

    def test_provenance_of_another_run(self):
        self.stopped_run()
        with open(self.path("provenance"), "wb") as f:
            f.write(bytes(120))
        trainer, producer = self.trainer(["--resume", "--provenance", self.path("provenance")]), self.producer(SYNTHETIC)
        self.refused(trainer, "provenance", "120 bytes")
        self.assertNotEqual(producer.wait(), 0)


class Reject(BadInput):
    """A producer that does not fit the run is refused with both values; the run goes on with the good one. What only the first producer has
    settled may be otherwise when the trainer starts anew: until --give-up-after it tries again."""

    def test_producers_that_differ(self):
        trainer = self.trainer(TRAINER)
        good = [*harness.DEMO_SOURCE, "--sites", SITES]
        first = self.producer(good, name="good")
        self.until_step(3, trainer, first)
        first.kill(signal.SIGSTOP)  # the run waits for it meanwhile
        tokens = self.path("tokens.npy")
        with open(TOKENS, "rb") as f:
            data = bytearray(f.read())
        data[-1000] ^= 1
        with open(tokens, "wb") as f:
            f.write(data)
        other = self.edited_model(self.set_weight(b"\x80\x3e"))
        pair = ["--model", BASE, "--model", CHAT]
        cases = [
            (good[:-1] + ["blocks.[023].hook_resid_post"], "site 2", "0:blocks.3.hook_resid_post", "run has 0:blocks.4.hook_resid_post"),
            (good[:-1] + ["blocks.[02].hook_resid_post"], "sites 4, run has 6"),
            (good + ["--scale", "1,1,1,1,1,1"], "scale of site 0", "is 1, run has"),
            ([*pair, "--tokens", tokens, "--sites", SITES], "tokens have fingerprint [0-9a-f]+, run has [0-9a-f]+"),
            (["--model", other, *good[2:]], "model 0 has fingerprint [0-9a-f]+, run has [0-9a-f]+"),
            (["--model", CHAT, "--model", BASE, *good[4:]], "model 0 has fingerprint"),
            (["--model", BASE, *good[4:]], "sites 3, run has 6"),
            (good + ["--center-writing-weights"], "model 0 has fingerprint"),
            (good + ["--seq-len", "64"], "seq_len 64, run has 128"),
            (good + ["--keep-bos"], "rows per sequence", "128, run has 127"),
            (SYNTHETIC, "number of sites 2, run has 6"),
        ]
        for args, *patterns in cases:
            self.refused(self.producer([*args, "--give-up-after", "1"], name="bad"), "refused this producer for 1 s", *patterns)
        first.kill(signal.SIGCONT)
        self.succeed(trainer, first)
        self.assertEqual(harness.summary(self.path("out"))["ledger"]["producers_rejected"], len(cases))
        self.assertEqual(trainer.stderr.count("producer bad rejected: "), len(cases))

    def test_scale_given(self):
        trainer = self.trainer([*TRAINER, "--scale", "1,2"])
        self.refused(self.producer(SYNTHETIC + ["--scale", "1,3"]), "scale of site 1", "is 3, run has 2")
        self.succeed(trainer, self.producer(SYNTHETIC + ["--scale", "1,2"]))
        self.assertEqual(harness.read_json(self.path("out", "cfg.json"))["run_scale"], [1, 2])


class Rubbish(BadInput):
    def send(self, port, data, shaken):
        """The data, after ZeroMQ's handshake or in its place; until the trainer closes, or for 0.2 s."""
        with socket.create_connection(("127.0.0.1", port), 5) as s, contextlib.suppress(TimeoutError, ConnectionError):
            s.settimeout(0.2)
            if shaken:
                noise.shake_hands(s)
            s.sendall(data)
            while s.recv(4096):
                pass

    def test_rubbish_on_the_port(self):
        rows = 640000  # a second or two of training
        trainer = self.trainer([*TRAINER, "--num-tokens", str(rows), "--save-every", "10000"], endpoint="tcp://127.0.0.1:*")
        self.until(lambda: "listening at" in trainer.stderr, "listening", trainer)
        endpoint = re.search("listening at (.*)", trainer.stderr).group(1)
        port = int(endpoint.rsplit(":", 1)[1])
        junk, sound = os.urandom(100000), noise.message
        n_heard = 5  # of those below reach the trainer's own checks
        bad = [(data, False) for data in (junk, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"")]
        bad += [(data, True) for data in (sound(b""), sound(junk[:50]), sound(b"\xdd\x04\0\0\0"), sound(b"\x81", junk[:1000]),
                                          sound(*[b"x"] * 2000), sound(junk)[:-10], b"\x02" + (1 << 40).to_bytes(8, "big"))]
        for data, shaken in bad:  # before a producer is there
            self.send(port, data, shaken)
        producer = self.producer(SYNTHETIC, endpoint=endpoint)
        self.until_step(2, trainer, producer)
        while trainer.running():  # and while it works
            with contextlib.suppress(ConnectionRefusedError):
                self.send(port, *random.choice(bad))
        self.succeed(trainer, producer)
        ledger = harness.summary(self.path("out"))["ledger"]
        self.assertEqual(ledger["rows_trained"], rows)
        self.assertGreater(ledger["bad_chunks"], n_heard, "none of the later ones reached the trainer's own checks")
        self.assertEqual(ledger["producers_lost"], 0)


if __name__ == "__main__":
    harness.main()

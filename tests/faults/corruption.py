"""corruption.py - N seeded corruptions of what a run has on disk: none is used, and the run comes out as the undisturbed one, bit for bit.

A run of planted rows with checkpoints at several steps is copied again and again. In each copy a file of one to three of its newest checkpoints is
damaged: bits flipped, a page zeroed, the end cut off or something put behind it, another step's file in its place, a value of a key changed, the
file removed. xcverify must name every damaged checkpoint. xctrain --resume must go on from the newest sound one, set the newer ones aside, say so,
and end with the weights and the state of the run that nothing happened to.

  tests/faults/corruption.py                        # 1,000 corruptions: ten minutes or so
  tests/faults/corruption.py --corruptions 12       # as the ordinary tests do
"""
import argparse
import collections
import json
import os
import random
import shutil
import struct
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e"))
import harness

XCVERIFY = os.environ.get("XCVERIFY", "xcverify")
STEPS, SAVE_EVERY = 100, 20
TRAINER = ["--batch-size", "64", "--num-tokens", str(64 * STEPS), "--buffer-mult", "16", "--dict-size", "128", "--model-batch-size", "2",
           "--eval-blocks", "1", "--scale-rows", "300", "--log-every", "10", "--save-every", str(SAVE_EVERY), "--keep", "9", "--lr", "1e-3"]
PRODUCER = ["--source", "synthetic", "--d-model", "16", "--n-sites", "2", "--latents", "32", "--n-seq", "256"]
FILES = ["crosscoder.safetensors", "state.safetensors", "cfg.json", "manifest.json"]


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)


# ---- kinds: (rng, path of the file, the same file at another step) -> its new bytes, or None if it is removed ----

def flip(rng, path, other):
    data = bytearray(read(path))
    for _ in range(rng.choice([1, 1, 1, 2, 9])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def zero_page(rng, path, other):
    data = bytearray(read(path))
    begin = rng.randrange((len(data) + 4095) // 4096) * 4096
    end = min(begin + 4096, len(data))
    data[begin:end] = bytes(end - begin)
    return bytes(data)


def truncate(rng, path, other):
    data = read(path)
    return data[:rng.choice([0, len(data) - 1, rng.randrange(len(data))])]


def extend(rng, path, other):
    return read(path) + rng.choice([b"\0", b"\n", bytes(4096)])


def swap(rng, path, other):
    return read(other)


def remove(rng, path, other):
    return None


def changed(rng, value):
    """Another value of the same kind, or of another."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return rng.choice([value + 1, -value - 1, value * 2 + 0.5, str(value), None])
    if isinstance(value, str):
        return rng.choice([value + "x", value[1:] if value else "x", 0])
    return rng.choice([None, {}, []])


def edit_object(rng, value):
    """Changes one value somewhere in a JSON object, or drops or renames its key."""
    key = rng.choice(list(value))
    inner = value[key]
    if isinstance(inner, dict) and inner and rng.random() < 0.7:
        edit_object(rng, inner)
    elif isinstance(inner, list) and inner and rng.random() < 0.5:
        i = rng.randrange(len(inner))
        inner[i] = changed(rng, inner[i])
    elif rng.random() < 0.7:
        value[key] = changed(rng, inner)
    else:
        del value[key]
        if rng.random() < 0.5:
            value[key + "_"] = inner


def edit_key(rng, path, other):
    data = read(path)
    if path.endswith(".json"):
        value = json.loads(data)
        edit_object(rng, value)
        return json.dumps(value, indent=2).encode() + b"\n"
    n, = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + n])
    edit_object(rng, header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + n:]


KINDS = [flip, flip, zero_page, truncate, extend, swap, edit_key, remove]


def step_folder(out, step):
    return os.path.join(out, "checkpoints", f"step_{step:010d}")


def damage(rng, out, step):
    """Damages a file of a step's checkpoint; returns how and which."""
    others = [s for s in harness.checkpoints(out) if s != step]
    while True:
        name, kind = rng.choice(FILES), rng.choice(KINDS)
        path, other = (os.path.join(step_folder(out, s), name) for s in (step, rng.choice(others)))
        if not os.path.exists(path) or not os.path.exists(other):
            continue
        try:
            new = kind(rng, path, other)
        except (ValueError, struct.error, IndexError, KeyError, AttributeError):
            continue  # it is damaged already, so that it cannot be edited
        if new == read(path):
            continue
        os.remove(path)
        if new is not None:
            write(path, new)
        return f"{kind.__name__} {name}"


def corrupt(rng, out, done):
    """Damages a file of one to three checkpoints; returns the steps whose checkpoints are hit. The oldest one is spared, so that there is one to go on from."""
    steps, hit = harness.checkpoints(out), set()
    while not hit or rng.random() < 0.3 and len(hit) < 3:
        step = rng.choice(steps[-2:] if not hit else [s for s in steps[1:] if s not in hit])  # a second damage could undo the first
        done[damage(rng, out, step)] += 1
        hit.add(step)
    return hit


class Corruption(harness.ProgramTest):
    corruptions, seed = 1000, 1

    def results(self, out):
        return [harness.sha256(os.path.join(self.path(out), *names)) for names in
                [("crosscoder.safetensors",), ("checkpoints", f"step_{STEPS:010d}", "state.safetensors")]]

    def verify(self, out):
        p = self.start(XCVERIFY, [self.path(out)], "xcverify")
        return p.wait(), p.stdout

    def one(self, rng, done):
        shutil.copytree(self.path("stopped"), self.path("out"))
        hit = corrupt(rng, self.path("out"), done)
        status, said = self.verify("out")
        named = {s for s in harness.checkpoints(self.path("out")) if any(
            line.startswith("DAMAGED") and f"step_{s:010d}" in line for line in said.splitlines())}
        self.assertEqual((status, named), (1, hit), said)
        good = max(s for s in harness.checkpoints(self.path("out")) if s not in hit)
        newer = {s for s in hit if s > good}
        trainer, producer = self.trainer([*TRAINER, "--resume"]), self.producer(PRODUCER)
        self.succeed(trainer, producer)
        self.assertEqual(self.results("out"), self.results("undisturbed"))
        self.assertIn(f"step {good} of {STEPS}", trainer.stderr)
        told = harness.summary(self.path("out"))["checkpoints"]
        self.assertEqual((told["resumed_from"], told["damaged"]), (good, len(newer)), trainer.stderr)
        for step in newer:
            self.assertIn(f"step_{step:010d} is set aside as damaged_step_{step:010d}", trainer.stderr)
            self.assertTrue(os.path.isdir(self.path("out", "checkpoints", f"damaged_step_{step:010d}")))
        shutil.rmtree(self.path("out"))

    def test_corruptions(self):
        self.train(TRAINER, PRODUCER, out="undisturbed")
        shutil.copytree(self.path("undisturbed"), self.path("stopped"))
        for name in "crosscoder.safetensors", "cfg.json", "summary.json", "manifest.json":
            os.remove(self.path("stopped", name))
        shutil.rmtree(step_folder(self.path("stopped"), STEPS))
        self.assertEqual(self.verify("stopped")[0], 0)
        rng, done = random.Random(self.seed), collections.Counter()
        for i in range(self.corruptions):
            try:
                self.one(rng, done)
            except AssertionError as e:
                raise AssertionError(f"corruption {i} of seed {self.seed} ({list(done)[-3:]}): {e}") from e
            for p in os.listdir(self.folder):
                if p.endswith((".out", ".err")):
                    os.remove(self.path(p))
        print(f"seed {self.seed}: {self.corruptions} runs with {sum(done.values())} damaged files, none used; bits as undisturbed")
        for what, n in sorted(done.items()):
            print(f"  {n:5}  {what}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0],
                                     epilog="The programs: XCTRAIN, ACTGEN and XCVERIFY.")
    parser.add_argument("--corruptions", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    Corruption.corruptions, Corruption.seed = args.corruptions, args.seed
    unittest.main(argv=sys.argv[:1], verbosity=2)

"""test_recording.py - activations on disk are the activations: recorded, replayed and imported runs, and what goes wrong on the way.

One run, live, from a recording, from .npy and .safetensors caches exported of it, and from the copy that a live producer kept:
bit-identical crosscoder.safetensors. A recording killed with -9 at 20 random moments and resumed is, file by file, the
undisturbed one. A recording with holes serves what it has; what nobody has ends the run with the rows named. A full disk
costs what was under way, no more.
"""
import glob
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time

import harness

N_SEQ, SEQ_LEN, ROWS = 200, 128, 127
SITES = "blocks.[24].hook_resid_post"
N_SITES = 4  # two of each model
TRAINER = ["--batch-size", "128", "--num-tokens", 128 * 120, "--buffer-mult", "32", "--dict-size", "128", "--lr", "1e-3",
           "--model-batch-size", "4", "--eval-blocks", "2", "--eval-every", "60", "--log-every", "20", "--save-every", "10000",
           "--heartbeat-ms", "200", "--timeout-ms", "10000"]
THREADS = ["--threads", "1"]


def first_sequences(path):
    """The first N_SEQ rows of the demo's token tensor, as a tensor of its own."""
    with open(f"{harness.DEMO}/tokens.npy", "rb") as f:
        data = f.read()
    start = 10 + int.from_bytes(data[8:10], "little")
    assert b"'<u2'" in data[:start] and f", {SEQ_LEN})".encode() in data[:start]
    tokens = memoryview(data)[start:].cast("H")
    harness.write_npy(path, [list(tokens[i * SEQ_LEN:(i + 1) * SEQ_LEN]) for i in range(N_SEQ)])


def write_array(path, descr, shape, pieces):
    """A .npy of bytes that exist already."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {tuple(shape)}, }}"
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    with open(path, "wb") as f:
        f.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
        for piece in pieces:
            f.write(piece)


def manifest(folder):
    return harness.read_json(os.path.join(folder, "manifest.json"))


def shard_path(folder, i):
    return os.path.join(folder, f"shard_{i:08d}.safetensors")


def acts(folder):
    """The activations of a whole recording, shard after shard."""
    for i in range(manifest(folder)["n_shards"]):
        header, data = harness.read_safetensors(shard_path(folder, i))
        begin, end = header["acts"]["data_offsets"]
        yield data[begin:end]


def scale_of(folder):
    return ",".join(map(repr, manifest(folder)["scale"]))


def hashes(folder):
    return {name: harness.sha256(os.path.join(folder, name)) for name in sorted(os.listdir(folder))}


class Recorded(harness.ProgramTest):
    """Its class has a folder with the tokens, a recording of them and the result of the live run of the same scale."""

    @classmethod
    def setUpClass(cls):
        cls.shared = tempfile.mkdtemp(prefix="crossfeed-e2e-")
        cls.addClassCleanup(shutil.rmtree, cls.shared, ignore_errors=True)
        cls.tokens, cls.recording = f"{cls.shared}/tokens.npy", f"{cls.shared}/recording"
        first_sequences(cls.tokens)
        cls.source = ["--model", f"{harness.DEMO}/base", "--model", f"{harness.DEMO}/chat", "--tokens", cls.tokens, "--sites", SITES]
        cls.record_now(cls.recording)
        cls.scale = scale_of(cls.recording)

    @staticmethod
    def measured(flags):
        """Over how many rows the scale is measured, unless the flags give it."""
        return [] if "--scale" in flags else ["--scale-rows", "2000"]

    @classmethod
    def record_now(cls, folder, *more):
        subprocess.run([harness.ACTGEN, *THREADS, *cls.source, *cls.measured(more), "--record", folder, *more], check=True, capture_output=True,
                       timeout=harness.LIMIT)

    def trainer(self, *more, out="out"):
        return super().trainer([*map(str, TRAINER), *more], out, self.endpoint(out))

    def producer(self, args, out="out", name="producer"):
        return super().producer(args, self.endpoint(out), name)

    def replay(self, folder, out="out", name="replay"):
        return self.producer(["--source", "recording", "--input", folder], out, name)

    def record(self, folder, *more):
        return self.start(harness.ACTGEN, [*THREADS, *self.source, *self.measured(more), "--record", folder, *more], "record")

    def weights(self, out="out"):
        return harness.sha256(self.path(out, "crosscoder.safetensors"))

    def without(self, folder, lacks):
        """A copy of the recording without those shards."""
        shutil.copytree(self.recording, folder)
        m = manifest(folder)
        for i in lacks:
            del m["shards"][str(i)]
            os.remove(shard_path(folder, i))
        harness.write_old_manifest(folder, m)
        return folder

    def error_line(self, program):
        lines = [line for line in program.stderr.splitlines() if "error: " in line]
        self.assertEqual(len(lines), 1, program.stderr)
        return lines[0]


class OneRun(Recorded):
    """The same crosscoder.safetensors, wherever the activations come from."""

    expected = None

    def check(self, *producers_args, scale=None):
        if OneRun.expected is None:
            trainer, live = self.trainer(out="live"), self.producer([*self.source, "--scale", self.scale], "live")
            self.succeed(trainer, live)
            OneRun.expected = self.weights("live")
        # The trainer comes last, so that all of them have work to do.
        producers = [self.producer(args, name=f"producer{i}") for i, args in enumerate(producers_args)]
        for p in producers:
            self.until(lambda: "connecting to" in p.stderr, "connecting", p)
        trainer = self.trainer(*(["--scale", scale] if scale else []))
        self.succeed(trainer, *producers)
        self.assertEqual(self.weights(), OneRun.expected)
        for p in producers: # how the blocks fall to them is a matter of time; that they took part is not
            self.assertIn(f"producer {p.name.split('-')[-1]} joins", trainer.stderr)

    def test_replay(self):
        self.check(["--source", "recording", "--input", self.recording, "--verify"])

    def test_replay_of_blocks_across_shards(self):
        folder = self.path("odd")
        self.record_now(folder, "--shard-seqs", "7", "--scale", self.scale)
        self.check(["--source", "recording", "--input", folder])

    def test_several_replay_at_once(self):
        self.check(*[["--source", "recording", "--input", self.recording]] * 3)

    def test_live_and_replay_together(self):
        self.check(self.source, ["--source", "recording", "--input", self.recording], scale=self.scale)

    def raw(self):
        folder = self.path("raw")
        self.record_now(folder, "--dtype", "fp32", "--scale", "1,1,1,1")
        return folder

    def columns(self, folder):
        """Each site's vectors of a recording in fp32."""
        header, _ = harness.read_safetensors(shard_path(folder, 0))
        width = 4 * header["acts"]["shape"][2]
        whole = b"".join(acts(folder))
        return [b"".join(whole[i:i + width] for i in range(site * width, len(whole), N_SITES * width)) for site in range(N_SITES)]

    LAYERS = 2, 9, 10, 11  # of the sites of an import: in the order of text they would be 10, 11, 2, 9

    def test_npy(self):
        """One array of all sites, and one a site, as a shell's glob orders the files."""
        raw = self.raw()
        d_model = manifest(raw)["stream"]["d_model"]
        write_array(self.path("acts.npy"), "<f4", [N_SEQ * ROWS, N_SITES, d_model], acts(raw))
        self.check(["--source", "npy", "--input", self.path("acts.npy"), "--seq-len", str(ROWS), "--scale", self.scale])
        inputs = []
        for layer, data in zip(self.LAYERS, self.columns(raw)):
            write_array(self.path(f"layer_{layer}.npy"), "<f4", [N_SEQ * ROWS, d_model], [data])
        for path in sorted(glob.glob(self.path("layer_*.npy"))):
            inputs += ["--input", path]
        shutil.rmtree(self.path("out"))
        self.check(["--source", "npy", *inputs, "--seq-len", str(ROWS), "--scale", self.scale])

    def test_safetensors(self):
        raw = self.raw()
        d_model = manifest(raw)["stream"]["d_model"]
        columns = self.columns(raw)
        for name, sites in (("b", (1, 3)), ("a", (0, 2))):  # order is that of the layers, not of files or text
            header, data = {}, b""
            for site in sites:
                header[f"layer.{self.LAYERS[site]}"] = {"dtype": "F32", "shape": [N_SEQ, ROWS, d_model],
                                           "data_offsets": [len(data), len(data) + len(columns[site])]}
                data += columns[site]
            harness.write_safetensors(self.path(f"{name}.safetensors"), header, data)
        self.check(["--source", "safetensors", "--input", self.path("b.safetensors"), "--input", self.path("a.safetensors"),
                    "--scale", self.scale])
        named = [f"layer.{layer}={scale}" for layer, scale in zip(self.LAYERS, self.scale.split(","))]
        shutil.rmtree(self.path("out"))
        self.check(["--source", "safetensors", "--input", self.path("b.safetensors"), "--input", self.path("a.safetensors")],
                   scale=",".join(reversed(named)))

    def test_copy_while_serving(self):
        """The trainer measures the scale: of the raw blocks too the copy has the scaled rows."""
        copy = self.path("copy")
        trainer, live = self.trainer("--scale-rows", "1000", out="live"), self.producer([*self.source, "--record", copy], "live")
        self.succeed(trainer, live)
        recorded = len(manifest(copy)["shards"])
        self.assertEqual(recorded, harness.summary(self.path("live"))["ledger"]["blocks_leased"])
        self.assertLess(recorded, manifest(copy)["n_shards"])  # less than an epoch: a recording with holes
        self.assertIn(f"{recorded} of {manifest(copy)['n_shards']} shards recorded", live.stderr)
        self.assertIn("disk budget", live.stderr)
        trainer, replay = self.trainer(out="replay"), self.replay(copy, "replay")
        self.succeed(trainer, replay)
        self.assertEqual(self.weights("live"), self.weights("replay"))
        self.assertEqual(set(os.listdir(copy)), {"manifest.json", *(f"shard_{int(i):08d}.safetensors" for i in manifest(copy)["shards"])})
        trainer, again = self.trainer(out="again"), self.producer([*self.source, "--record", copy], "again")
        self.assertEqual(again.wait(), 1)
        self.assertIn("holds a recording already", self.error_line(again))


class DefaultForm(harness.ProgramTest):
    """The README's commands, without a flag for the scale: the run of a recording is the live one."""

    RUN = ["--batch-size", "64", "--num-tokens", str(64 * 10), "--dict-size", "64"]

    def compare(self, run=(), record=()):
        first_sequences(self.path("tokens.npy"))
        model = ["--model", f"{harness.DEMO}/base", "--tokens", self.path("tokens.npy")]
        self.succeed(self.start(harness.ACTGEN, [*THREADS, *model, "--record", self.path("acts"), *record], "record"))
        for out, args in ("live", model), ("replay", ["--source", "recording", "--input", self.path("acts")]):
            self.train([*self.RUN, *run], args, out)
        self.assertEqual(*[harness.read_json(self.path(out, "cfg.json"))["run_scale"] for out in ("live", "replay")])
        self.assertEqual(*[harness.sha256(self.path(out, "crosscoder.safetensors")) for out in ("live", "replay")])

    def test_as_written(self):
        self.compare()

    def test_other_run(self):
        """Of another seed, other blocks and a window smaller than the rows to be measured."""
        run = ["--model-batch-size", "6", "--eval-blocks", "3", "--scale-rows", "9000"]
        self.compare(["--seed", "7", "--buffer-mult", "64", *run], ["--run-seed", "7", "--window-rows", str(64 * 64), *run])


class Killed(harness.ProgramTest):
    """The synthetic source: as quick as it is, a kill can come at any part of the work."""

    KILLS = 20
    SOURCE = ["--source", "synthetic", "--n-seq", "600", "--seq-len", "64", "--shard-seqs", "10", "--scale-rows", "4000"]

    def record(self, folder):
        return self.start(harness.ACTGEN, [*THREADS, *self.SOURCE, "--record", folder, "--resume"], "record")

    def setUp(self):
        super().setUp()
        self.random = random.Random(20260101)
        begin = time.monotonic()
        self.succeed(self.record(self.path("undisturbed")))
        self.seconds = time.monotonic() - begin
        self.expected = hashes(self.path("undisturbed"))
        self.assertEqual(len(self.expected), 61)

    def record_killed(self, folder, seconds):
        p = self.record(folder)
        time.sleep(seconds)
        p.kill()

    def read(self, folder):
        """What is there after a kill can be read, all of it."""
        if os.path.exists(f"{folder}/manifest.json"):
            m = manifest(folder)
            for i in m["shards"]:
                self.assertEqual(harness.sha256(shard_path(folder, int(i))), self.expected[f"shard_{int(i):08d}.safetensors"])
            return len(m["shards"])
        return 0

    def resume(self, folder):
        self.succeed(self.record(folder))
        self.assertEqual(hashes(folder), self.expected)

    def test_each_moment(self):
        found = set()
        for i in range(self.KILLS):
            folder = self.path(f"killed{i}")
            self.record_killed(folder, self.random.uniform(0.05, 1) * self.seconds)
            found.add(self.read(folder))
            self.resume(folder)
            shutil.rmtree(folder)
        self.assertGreater(len(found), 3, f"all were killed at the same place: {found}")

    def test_again_and_again(self):
        folder, before, grown = self.path("killed"), 0, 0
        for _ in range(self.KILLS):
            self.record_killed(folder, self.random.uniform(0.05, 0.4) * self.seconds)
            now = self.read(folder)
            self.assertGreaterEqual(now, before, "a finished shard was lost")
            grown += now > before
            before = now
        self.assertGreater(grown, 1)
        self.resume(folder)


class Refused(Recorded):
    """Recording is refused, or goes on, in one clear line."""

    def refuse(self, program, *words):
        self.assertEqual(program.wait(), 1, program.stderr)
        for word in words:
            self.assertIn(word, self.error_line(program))

    def test_there_already(self):
        self.refuse(self.record(self.recording), "holds a recording already", "--resume")

    def test_resumed_as_something_else(self):
        shutil.copytree(self.recording, self.path("copy"))
        for more, words in (
                (["--dtype", "fp32"], ["bf16", "fp32"]),
                (["--shard-seqs", "8"], ["shards of 16", "shards of 8"]),
                (["--scale", "1,1,1,1"], ["scale of site 0", "asked for 1"]),
                (["--keep-bos"], ["128", "127"])):
            with self.subTest(more=more):
                self.refuse(self.record(self.path("copy"), "--resume", *more), self.path("copy"), *words)
        self.source = [*self.source[:-1], "blocks.[25].hook_resid_post"]
        self.refuse(self.record(self.path("copy"), "--resume"), "blocks.4.hook_resid_post", "blocks.5.hook_resid_post")

    def test_resumed_when_complete(self):
        before = hashes(self.recording)
        p = self.record(self.recording, "--resume")
        self.succeed(p)
        self.assertRegex(p.stderr, r"recording: the recording is complete, all its 13 shards are there: nothing to do\n\Z")
        self.assertEqual(hashes(self.recording), before)

    def test_two_at_once(self):
        folder = self.path("one")
        first = self.record(folder, "--shard-seqs", "1")
        self.until(lambda: os.path.exists(f"{folder}/manifest.json"), "a manifest", first)
        self.refuse(self.record(folder, "--shard-seqs", "1", "--resume"), folder, "another process")
        self.succeed(first)

    def test_stopped_by_signal(self):
        folder = self.path("one")
        first = self.record(folder, "--shard-seqs", "1")
        self.until(lambda: os.path.exists(shard_path(folder, 3)), "some shards", first)
        first.kill(15)
        self.succeed(first)
        self.assertIn("--resume goes on", first.stderr)
        self.assertLess(len(manifest(folder)["shards"]), N_SEQ)
        self.succeed(self.record(folder, "--shard-seqs", "1", "--resume"))
        self.assertEqual(len(manifest(folder)["shards"]), N_SEQ)

    def test_checksum(self):
        folder = self.without(self.path("copy"), [1])
        with open(shard_path(folder, 2), "r+b") as f:
            f.seek(5000)
            byte = f.read(1)
            f.seek(5000)
            f.write(bytes([byte[0] ^ 1]))
        self.refuse(self.producer(["--source", "recording", "--input", folder, "--verify"]), shard_path(folder, 2), "checksum")

    def test_shard_truncated(self):
        """Costs the lease of whoever has it so; the trainer says why it fails."""
        folder = self.without(self.path("copy"), [])
        for i in range(13):
            os.truncate(shard_path(folder, i), 100000)
        trainer, replay = self.trainer("--source-retries", "1"), self.replay(folder)
        self.refuse(trainer, "failed 2 times by all 1 producers here", "shard_000000")
        self.refuse(replay, "the run failed")


class Holes(Recorded):
    def test_what_is_there_is_served(self):
        """Half of the shards: the run fails and says which sequences nobody has."""
        folder = self.without(self.path("half"), range(1, 13, 2))
        trainer, replay = self.trainer("--timeout-ms", "700"), self.replay(folder)
        self.assertEqual(trainer.wait(), 1, trainer.stderr)
        line = self.error_line(trainer)
        self.assertRegex(line, r"none of the 1 producers has sequences \d+ to \d+ \(block \d+\)")
        first = int(line.split("sequences ")[1].split()[0])
        self.assertEqual(first // 16 % 2, 1, line)
        self.assertRegex(trainer.stderr, r"producer replay: block \d+: sequences \d+ to \d+ are not recorded in .*half \(7 of 13 shards are\)")
        self.assertEqual(replay.wait(), 1)
        self.assertRegex(replay.stderr, r"leases were for sequences that are not recorded")

    def test_halves_make_a_whole(self):
        even, odd = self.without(self.path("even"), range(1, 13, 2)), self.without(self.path("odd"), range(0, 13, 2))
        trainer = self.trainer(out="whole")
        self.succeed(trainer, self.replay(self.recording, "whole"))
        trainer = self.trainer()
        first = self.replay(even, name="even")
        self.until(lambda: "none of the 1 producers has" in trainer.stderr, "a block that nobody has", trainer, first)
        second = self.replay(odd, name="odd")  # in time
        self.succeed(trainer, first, second)
        self.assertEqual(self.weights("whole"), self.weights())
        self.assertGreater(harness.summary(self.path("out"))["ledger"]["blocks_leased_again"], 0)
        self.assertEqual(len([line for line in trainer.stderr.splitlines() if "not recorded" in line]), 2, "one line a producer")

    def test_the_one_that_has_it_leaves(self):
        even = self.without(self.path("even"), range(1, 13, 2))
        trainer = self.trainer("--timeout-ms", "1500", "--num-tokens", "1e6")
        half, whole = self.replay(even, name="half"), self.replay(self.recording, name="whole")
        self.until_step(20, trainer, half, whole)
        whole.kill()
        self.assertEqual(trainer.wait(), 1, trainer.stderr)
        self.assertIn("none of the 1 producers has sequences", self.error_line(trainer))


class FullDisk(Recorded):
    """On a small file system of its own."""

    def setUp(self):
        super().setUp()
        os.mkdir(self.path("small"))
        if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", self.path("small")],
                                               capture_output=True).returncode:
            self.skipTest("cannot mount a tmpfs")
        self.addCleanup(subprocess.run, ["umount", "-l", self.path("small")], check=True)
        self.folder_there = self.path("small", "recording")

    def fill(self):
        path = self.path("small", "filler")
        with open(path, "wb", buffering=0) as f:
            size = 1 << 20
            while size > 100:  # to the last byte, whatever is being written at the same time
                try:
                    f.write(bytes(size))
                except OSError:
                    size //= 2
        return path

    def test_refused_before_the_first_byte(self):
        filler = self.fill()
        os.truncate(filler, os.path.getsize(filler) - (1 << 20))
        p = self.record(self.folder_there)
        self.assertEqual(p.wait(), 1)
        self.assertRegex(self.error_line(p), r"MB to write, .* MB free")
        os.remove(filler)
        self.succeed(self.record(self.folder_there, "--resume"))
        self.assertEqual(hashes(self.folder_there), hashes(self.recording))

    def test_filled_on_the_way(self):
        p = self.record(self.folder_there, "--shard-seqs", "2")
        self.until(lambda: os.path.exists(shard_path(self.folder_there, 2)), "some shards", p)
        p.kill(signal.SIGSTOP)  # else it may be writing the manifest while there is no room for it
        filler = self.fill()
        os.truncate(filler, os.path.getsize(filler) - (1 << 16))  # room for a manifest, not for a shard
        p.kill(signal.SIGCONT)
        self.assertEqual(p.wait(), 1, p.stderr)
        self.assertIn("No space left on device", self.error_line(p))
        self.assertIn("--resume goes on", p.stderr)
        kept = set(manifest(self.folder_there)["shards"])
        self.assertTrue(3 <= len(kept) < N_SEQ // 2, kept)
        self.assertFalse([name for name in os.listdir(self.folder_there) if ".tmp." in name])
        os.remove(filler)
        self.succeed(self.record(self.folder_there, "--shard-seqs", "2", "--resume"))
        self.record_now(self.path("undisturbed"), "--shard-seqs", "2")
        self.assertEqual(hashes(self.folder_there), hashes(self.path("undisturbed")))

    def test_copy_while_serving(self):
        """The producer leaves with a line; what it has is kept; the run goes on with another."""
        self.fill()
        trainer = self.trainer("--scale", self.scale)
        p = self.producer([*self.source, "--record", self.folder_there])
        self.assertEqual(p.wait(), 1, p.stderr)
        self.assertIn("No space left on device", self.error_line(p))
        self.succeed(trainer, self.replay(self.recording))


if __name__ == "__main__":
    harness.main()

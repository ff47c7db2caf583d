"""test_init.py - a run that starts from another's weights: on rows of the same scale, or of the one that is said, and traceable.

Refused with both values: a file of another scale or mean than the run measures or its producer brings. --scale-from-init takes
both from the file, --scale overrides. cfg.json and summary.json have the file's fingerprint, which is what manifest.json of the
run that wrote it has, and keep it on --resume.
"""
import re
import struct

import harness

TRAINER = ["--batch-size", "64", "--num-tokens", "1280", "--buffer-mult", "16", "--dict-size", "64", "--model-batch-size", "2",
           "--eval-blocks", "1", "--scale-rows", "300", "--log-every", "5", "--save-every", "10"]
SYNTHETIC = ["--source", "synthetic", "--d-model", "16", "--n-sites", "2", "--latents", "32", "--n-seq", "256"]


class Init(harness.ProgramTest):
    def weights(self, out):
        return self.path(out, "crosscoder.safetensors")

    def first(self, *flags):
        self.train([*TRAINER, *flags], SYNTHETIC, "first")
        return ["--init", self.weights("first")]

    def cfg(self, out):
        return harness.read_json(self.path(out, "cfg.json"))

    def tensor(self, out, name):
        header, data = harness.read_safetensors(self.weights(out))
        begin, end = header[name]["data_offsets"]
        return struct.unpack(f"<{(end - begin) // 4}f", data[begin:end])

    def refused(self, flags, *patterns, producer=SYNTHETIC):
        trainer, producer = self.trainer([*TRAINER, *flags], "refused"), self.producer(producer)
        self.assertEqual(trainer.wait(), 1, trainer.stderr)
        lines = [line for line in trainer.stderr.splitlines() if "error: " in line]
        self.assertEqual(len(lines), 1, trainer.stderr)
        for pattern in patterns:
            self.assertRegex(lines[0], pattern)
        self.assertEqual(producer.wait(), 1)

    def test_same_scale(self):
        """The same rows are measured: nothing is to be said. The fingerprint stays when the run is resumed."""
        init = self.first()
        trainer, producer = self.trainer([*TRAINER, *init, "--num-tokens", "64000"], "second"), self.producer(SYNTHETIC)
        self.until_step(20, trainer, producer, out="second")
        trainer.kill()
        self.succeed(self.trainer(["--resume"], "second"), producer)
        made = harness.read_json(self.path("first", "manifest.json"))["files"]["crosscoder.safetensors"]["xxh3"]
        self.assertNotIn("init_fingerprint", self.cfg("first"))
        for found in self.cfg("second"), harness.summary(self.path("second")):
            self.assertEqual(found["init_fingerprint"], made)

    def test_other_scale(self):
        init = self.first()
        scale = self.cfg("first")["run_scale"]
        other = [*init, "--seed", "7"]
        self.refused(other, re.escape(self.weights("first")), f"has scale {scale[0]:.9g}", r"site 0 \(blocks.0.hook_resid_post\), the run has \d",
                     "--scale-from-init")
        self.refused(other, f"has scale {scale[0]:.9g}", "the run has 3: ", producer=[*SYNTHETIC, "--scale", "3,3"])  # in the same folder
        self.train([*TRAINER, *other, "--scale-from-init"], SYNTHETIC, "taken")
        self.assertEqual(self.cfg("taken")["run_scale"], scale)
        self.assertEqual(self.tensor("taken", "scale"), self.tensor("first", "scale"))
        trainer, _ = self.train([*TRAINER, *other, "--scale", "3,2"], SYNTHETIC, "given")
        self.assertEqual(self.cfg("given")["run_scale"], [3, 2])
        self.assertRegex(trainer.stderr, "has scale .* the run has 3: as --scale says")

    def test_no_scale(self):
        self.first()
        header, data = harness.read_safetensors(self.weights("first"))
        begin, end = header.pop("scale")["data_offsets"]
        for t in header.values():
            if "data_offsets" in t and t["data_offsets"][0] >= end:
                t["data_offsets"] = [x - (end - begin) for x in t["data_offsets"]]
        path = self.path("without.safetensors")
        harness.write_safetensors(path, header, data[:begin] + data[end:])
        self.refused(["--init", path], "without.safetensors has no scale", "--scale")
        trainer = self.trainer([*TRAINER, "--init", path, "--scale-from-init"], "refused")
        self.assertEqual(trainer.wait(), 1)
        self.assertIn("--scale-from-init: " + path + " has no scale", trainer.stderr)
        self.train([*TRAINER, "--init", path, "--scale", "3,2"], SYNTHETIC, "given")
        self.assertEqual(self.tensor("given", "scale"), (3, 2))

    def test_mean(self):
        """A run whose rows are centred takes the file's mean together with its scale."""
        init = self.first("--center")
        scale = ",".join(f"{x:.9g}" for x in self.tensor("first", "scale"))
        other = [*init, "--center", "--seed", "7"]
        self.refused(other, "has scale ")
        self.refused(other, "has mean .* dimension 0, the run has ", producer=[*SYNTHETIC, "--scale", scale])
        self.train([*TRAINER, *other, "--scale-from-init"], SYNTHETIC, "taken")
        for name in "scale", "mean":
            self.assertEqual(self.tensor("taken", name), self.tensor("first", name))

    def test_usage(self):
        for flags, said in (["--scale-from-init"], "--scale-from-init needs --init"), \
                           (["--scale-from-init", "--init", "x", "--scale", "1"], "exclude each other"):
            trainer = self.trainer([*TRAINER, *flags])
            self.assertEqual(trainer.wait(), 2)
            self.assertIn(said, trainer.stderr)


if __name__ == "__main__":
    harness.main()

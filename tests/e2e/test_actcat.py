"""test_actcat.py - actcat says of a recording and of caches what is in them."""
import json
import math
import os
import struct
import subprocess

import harness
from test_recording import write_array

ACTCAT = os.environ.get("ACTCAT", "actcat")
D, SITES = 32, 2


class Actcat(harness.ProgramTest):
    def actcat(self, *args, status=0):
        p = subprocess.run([ACTCAT, *map(str, args)], capture_output=True, text=True, timeout=harness.LIMIT)
        self.assertEqual(p.returncode, status, p.stderr)
        return p.stdout if status == 0 else p.stdout + p.stderr

    def rows(self):
        """100 rows of all ones; at site 1, dimension 3 is 10, and row 40 has a NaN, row 41 an Inf."""
        rows = [[[1.0] * D for _ in range(SITES)] for _ in range(100)]
        for row in rows:
            row[1][3] = 10.0
        rows[40][1][5], rows[41][1][6] = math.nan, -math.inf
        return rows

    def check_stats(self, stats):
        plain, odd = stats["sites"]
        self.assertEqual(stats["rows"], 100)
        self.assertAlmostEqual(plain["mean_norm"], math.sqrt(D), 5)
        self.assertAlmostEqual(plain["implied_scale"], 1, 5)
        self.assertEqual((plain["min"], plain["max"], plain["nan"], plain["inf"], plain["outliers"]), (1, 1, 0, 0, []))
        self.assertAlmostEqual(odd["mean_norm"], math.sqrt(D - 1 + 100), 5)
        self.assertEqual((odd["max"], odd["rows"], odd["nan"], odd["inf"], odd["bad_rows"]), (10, 98, 1, 1, 2))
        self.assertEqual([o["dim"] for o in odd["outliers"]], [3])
        self.assertAlmostEqual(odd["outliers"][0]["factor"], 100, 5)

    def test_npy(self):
        path = self.path("acts.npy")
        write_array(path, "<f4", [100, SITES, D], [struct.pack(f"<{D}f", *v) for row in self.rows() for v in row])
        self.check_stats(json.loads(self.actcat(path, "--json")))
        text = self.actcat(path)
        self.assertIn("2 rows with NaN or Inf, the first is row 40", text)
        self.assertIn("1: 3 (100x)", text)
        rows = [json.loads(line) for line in self.actcat(path, "--rows", "39:41", "--json").splitlines()]
        self.assertEqual([r["row"] for r in rows], [39, 40])
        self.assertEqual(rows[1]["acts"][1][3:7], [10, 1, None, 1])
        self.assertIn("row 100: there are 100 rows", self.actcat(path, "--rows", "99:101", status=1))
        self.assertIn("no tokens", self.actcat(path, "--row", "1", "--tokenizer", f"{harness.DEMO}/base", status=1))
        self.assertIn("only a recording has checksums", self.actcat(path, "--verify", status=1))

    def test_safetensors(self):
        path, header, data = self.path("acts.safetensors"), {}, b""
        for site in range(SITES):
            column = b"".join(struct.pack(f"<{D}f", *row[site]) for row in self.rows())
            header[f"layer.{9 + site}"] = {"dtype": "F32", "shape": [10, 10, D], "data_offsets": [len(data), len(data) + len(column)]}
            data += column
        harness.write_safetensors(path, header, data)
        stats = json.loads(self.actcat(path, "--json"))
        self.check_stats(stats)
        self.assertEqual([s["site"] for s in stats["sites"]], ["layer.9", "layer.10"])
        self.assertEqual(stats["stream"]["seq_len"], 10)
        self.assertIn("acts.safetensors: --npy-dtype belongs to .npy", self.actcat(path, "--npy-dtype", "bf16", status=1))

    def test_recording(self):
        """Recorded rows have the scale in them; text and rows as the token tensor has them; a damaged shard is named."""
        with open(f"{harness.DEMO}/tokens.npy", "rb") as f:
            tokens = memoryview(f.read())[128:].cast("H")
        harness.write_npy(self.path("tokens.npy"), [list(tokens[i * 128:i * 128 + 128]) for i in range(20)])
        folder = self.path("recording")
        self.succeed(self.start(harness.ACTGEN, ["--threads", "1", "--model", f"{harness.DEMO}/base", "--tokens",
                                                 self.path("tokens.npy"), "--record", folder, "--sites", "blocks.[24].hook_resid_post",
                                                 "--shard-seqs", "8", "--eval-blocks", "0"], "record"))
        for flag in ["--seq-len", "4"], ["--npy-dtype", "bf16"]:
            self.assertIn("is a recording, which says itself", self.actcat(folder, *flag, status=1))
        stats = json.loads(self.actcat(folder, "--json"))
        saved = harness.read_json(f"{folder}/manifest.json")
        self.assertEqual((stats["kind"], stats["dtype"], stats["rows"], stats["n_recorded"]), ("recording", "bf16", 20 * 127, 3))
        for i, site in enumerate(stats["sites"]):
            self.assertAlmostEqual(site["scale"], saved["scale"][i], 6)
            self.assertAlmostEqual(site["implied_scale"], 1, 3)  # measured over these rows, but for bf16
        row = 127 * 9 + 30
        line, = self.actcat(folder, "--rows", f"{row}:{row + 1}", "--json").splitlines()
        self.assertEqual([json.loads(line)[key] for key in ("sequence", "position", "token")], [9, 31, tokens[9 * 128 + 31]])
        text = self.actcat(folder, "--row", row, "--tokenizer", f"{harness.DEMO}/base").splitlines()
        self.assertEqual(len(text), 2)
        self.assertIn(f"sequence 9, position 31, token {tokens[9 * 128 + 31]}", text[0])
        self.assertRegex(text[1], r".\[\[.+\]\].")
        self.assertIn("3 of 3 recorded shards are as they were written", self.actcat("--verify", folder))

        with open(f"{folder}/shard_00000001.safetensors", "r+b") as f:
            f.seek(-1, os.SEEK_END)
            f.write(b"\x55")
        self.assertIn("shard_00000001.safetensors: checksum", self.actcat("--verify", folder, status=1))
        del saved["shards"]["1"]
        harness.write_old_manifest(folder, saved)
        self.assertEqual(json.loads(self.actcat(folder, "--json"))["rows"], 12 * 127)
        self.assertIn("is not recorded", self.actcat(folder, "--rows", f"{row}:{row + 1}", status=1))
        self.assertIn("2 of 3 shards", self.actcat(folder))

    def test_refused(self):
        for args, status, words in ((["/nowhere"], 1, "/nowhere"), ([], 2, "nothing to look at"), ([self.folder], 1, "manifest.json"),
                                    (["a.npy", "--rows", "5:5"], 2, "A < B"), (["a.npy", "--row", "5"], 2, "--tokenizer")):
            with self.subTest(args=args):
                out = self.actcat(*args, status=status)
                self.assertIn(words, out)


if __name__ == "__main__":
    harness.main()

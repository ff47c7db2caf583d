#!/usr/bin/env python3
"""out_of_memory.py - lets each allocation of a program fail in turn, as SQLite's tests do: run n lacks its n-th allocation, until a run
lacks none; and once more lacking the n-th and all after it. Needs a build with sanitizers or CROSSFEED_FAULTS (proto/base/mem.h).

A run that lacks memory must say so in its last line, "NAME: error: ...: cannot get N bytes of memory", end with status 1, leak nothing
(with address sanitizer), and lose nothing: what was there stays as it was, outputs are whole or absent, nothing temporary is left. A
recording that was cut short and a training that was go on to the same bytes.

    tests/faults/out_of_memory.py PROGRAM [--all] [JOB...]     PROGRAM: actgen, actcat, xckeys, xctok or xctrain
    --all: every allocation; else the first 200 of the program's first job, 30 of the others, and then fewer and fewer
    tests/faults/out_of_memory.py --shipped      no program of an ordinary build can be asked to fail
"""
import gzip
import lzma
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "../..")
PROGRAMS = os.environ.get("PROGRAMS", os.path.join(ROOT, "build-asan"))
sys.path[:0] = [os.path.join(HERE, "../e2e")]
import harness  # noqa: E402

DATA = os.path.join(ROOT, "tests/data")
LIMIT = 60  # seconds a program may take
FIRST_JOB, OTHER_JOBS, ALL_AFTER = 200, 30, 10  # the first so many allocations are all tried
THINNING = 5  # beyond, the step grows by one every so many
ASKED = re.compile(r"^mem: allocation \d+ \(.*\) fails as asked$", re.M)
FINDING = re.compile(r"(ERROR: \w+Sanitizer|runtime error:).*")
CLEAR = re.compile(r"error: .*cannot get \d+ bytes of memory$")


class Failure(Exception):
    pass


def program(name):
    return os.path.join(PROGRAMS, name)


def environment(fail):
    """fail: "17", "17+" or None."""
    e = dict(os.environ, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive", UBSAN_OPTIONS="print_stacktrace=1")
    e["ASAN_OPTIONS"] = "detect_leaks=1:exitcode=99:" + e.get("ASAN_OPTIONS", "")
    e.pop("CROSSFEED_FAIL_ALLOCATION", None)
    return dict(e, CROSSFEED_FAIL_ALLOCATION=fail) if fail else e


class Run:
    """A program on its way; its output goes to files in `folder`, away from what it works on."""

    def __init__(self, args, folder, fail=None):
        self.name = os.path.basename(args[0])
        self.args, self.fail = list(map(str, args)), fail
        self.out, self.err = tempfile.TemporaryFile("w+", dir=folder), tempfile.TemporaryFile("w+", dir=folder)
        self.process = subprocess.Popen(self.args, stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.err, env=environment(fail),
                                        preexec_fn=lambda: harness.libc.prctl(harness.PR_SET_PDEATHSIG, 9, 0, 0, 0))

    def ended(self):
        return self.process.poll() is not None

    def wait(self, limit=LIMIT):
        try:
            self.status = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f"still runs after {limit} s\n{self.describe()}") from None
        return self

    def kill(self):
        self.process.kill()
        self.process.wait()

    def text(self, f):
        f.seek(0)
        return f.read()

    @property
    def stderr(self):
        return self.text(self.err)

    @property
    def stdout(self):
        return self.text(self.out)

    def describe(self):
        return f"CROSSFEED_FAIL_ALLOCATION={self.fail} {' '.join(self.args)}\nstatus {self.process.returncode}, printed:\n{self.stderr}"

    def judge(self, tolerated=None):
        """True: the allocation failed, and the program said so and ended. None: it failed and did no harm (tolerated: what a line says
        then). False: there was no such allocation, and the program did its work."""
        stderr = self.stderr
        asked = bool(ASKED.search(stderr))
        lines = [line for line in ASKED.sub("", stderr).splitlines() if line]  # but for what this test has asked for
        if FINDING.search(stderr):
            raise Failure(f"a finding\n{self.describe()}")
        if self.status == 0 and not asked:
            return False
        if self.status == 0 and tolerated and re.search(tolerated, stderr):
            return None
        if self.status != 1 or not asked:
            raise Failure(f"ends with status {self.status}\n{self.describe()}")
        if not lines or not lines[-1].startswith(self.name + ": ") or not CLEAR.search(lines[-1]):
            raise Failure(f"ends without a clear line\n{self.describe()}")
        return True


def tree(folder):
    """{path below folder: contents}"""
    files = {}
    for at, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(at, name), "rb") as f:
                files[os.path.relpath(os.path.join(at, name), folder)] = f.read()
    return files


class Job:
    """What is done in a folder of its own, again and again. `inputs` are made once; `work` is empty before each run."""
    tolerated = None

    def __init__(self, folder):
        self.folder = folder
        self.inputs, self.work, self.logs = (os.path.join(folder, name) for name in ("inputs", "work", "logs"))
        for path in self.inputs, self.work, self.logs:
            os.makedirs(path)
        self.before = {}  # the work folder's files at the start of a run
        self.make_inputs()
        self.kept = tree(self.inputs)

    def make_inputs(self):
        pass

    def at(self, name):
        return os.path.join(self.work, name)

    def given(self, name):
        return os.path.join(self.inputs, name)

    def clean(self):
        shutil.rmtree(self.work)
        os.makedirs(self.work)
        for name, contents in self.before.items():
            with open(self.at(name), "wb") as f:
                f.write(contents)

    def run(self, fail=None):
        """One run to its end."""
        return Run(self.args(), self.logs, fail).wait()

    def good(self, run):
        """Checks a run that did its work; the first one is the reference."""
        files = {**tree(self.work), "standard output": run.stdout}
        self.reference = getattr(self, "reference", None) or files
        if files != self.reference:
            raise Failure(f"other results than undisturbed: {self.differences(files)}\n{run.describe()}")

    def differences(self, files):
        return sorted(name for name in files.keys() | self.reference.keys() if files.get(name) != self.reference.get(name))

    def cut_short(self, run):
        """Checks what a run that lacked memory left: here nothing new."""
        files = tree(self.work)
        if files != self.before:
            raise Failure(f"left or changed {sorted(n for n in files if files[n] != self.before.get(n))}\n{run.describe()}")

    def try_one(self, fail):
        self.clean()
        run = self.run(fail)
        what = run.judge(self.tolerated)
        (self.cut_short if what else self.good)(run)
        if tree(self.inputs) != self.kept:
            raise Failure(f"changed what it should only read\n{run.describe()}")
        return what

    def loop(self, every, all_after):
        """Runs that failed, and runs that did no harm, until one asks for an allocation that there is not."""
        n, failed, harmless = 1, 0, 0
        while (what := self.try_one(f"{n}+" if all_after else str(n))) is not False:
            failed += what is True
            harmless += what is None
            n += 1 if n <= every else 1 + (n - every) // THINNING
        return failed, harmless

    def enough(self):
        """What the loop must have met, or the job shows nothing."""

    def close(self):
        pass


# ---- jobs that are one program ----

TEXT = "hello world, it's 12 o'clock\n\nand all's well " + "x" * 100 + "\n"


def write_tokenizer(path):
    """Letters a to z, some merges, an end of text: small, as each token is several allocations."""
    letters = "abcdehlorstw" + "\u0120"
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("\u0120", "w")]
    tokens = [*letters, *(a + b for a, b in merges)]
    vocab = ", ".join(f'"{t}": {i}' for i, t in enumerate(tokens))
    listed = ", ".join(f'"{a} {b}"' for a, b in merges[:2]) + ", " + ", ".join(f'["{a}", "{b}"]' for a, b in merges[2:])
    with open(path, "w") as f:
        f.write('{"added_tokens": [{"id": %d, "content": "<|endoftext|>", "special": true}], "pre_tokenizer": {"type": "ByteLevel", '
                '"add_prefix_space": false}, "model": {"type": "BPE", "vocab": {%s}, "merges": [%s]}}' % (len(tokens), vocab, listed))


class Encode(Job):
    def make_inputs(self):
        write_tokenizer(self.given("tokenizer.json"))
        with open(self.given("text"), "w") as f:
            f.write(TEXT)
        self.before = {"out.npy": b"an older tensor", "out.lengths.npy": b"its lengths"}

    def args(self):
        return [program("xctok"), "--tokenizer", self.given("tokenizer.json"), "--out", self.at("out.npy"), "--seq-len", "8",
                "--force", self.given("text")]


class EncodeJson(Encode):
    """Documents in JSON, two tensors: both or none."""

    def make_inputs(self):
        super().make_inputs()
        with open(self.given("text"), "w") as f:
            f.write('{"text": "hello world"}\n{"text": "\\u00e9 well ' + "y" * 300 + '"}\n')

    def args(self):
        return [*super().args(), "--jsonl", "--per-document"]


class EncodeGzip(EncodeJson):
    """The same, packed."""
    pack = gzip.compress

    def make_inputs(self):
        super().make_inputs()
        with open(self.given("text"), "rb") as f:
            text = f.read()
        with open(self.given("text"), "wb") as f:
            f.write(type(self).pack(text))


class EncodeXz(EncodeGzip):
    pack = lzma.compress


class EncodeGpt2(Encode):
    """vocab.json and merges.txt, and what older folders have beside them."""

    def make_inputs(self):
        super().make_inputs()
        with open(self.given("vocab.json"), "w") as f:
            f.write('{"h": 0, "e": 1, "l": 2, "he": 3, "<|endoftext|>": 4}')
        with open(self.given("merges.txt"), "w") as f:
            f.write("#version: 0.2\nh e\n")
        with open(self.given("added_tokens.json"), "w") as f:
            f.write('{"<x>": 5}')
        with open(self.given("special_tokens_map.json"), "w") as f:
            f.write('{"pad_token": "<x>", "additional_special_tokens": ["<y>"]}')
        os.rename(self.given("tokenizer.json"), self.given("unused.json"))

    def args(self):
        args = super().args()
        return [a if a != self.given("tokenizer.json") else self.inputs for a in args]


class Decode(Encode):
    def make_inputs(self):
        super().make_inputs()
        harness.write_npy(self.given("ids.npy"), [[0, 1, 2, 3], [4, 5, 6, 17]])

    def args(self):
        return [program("xctok"), "--tokenizer", self.given("tokenizer.json"), "--decode", self.given("ids.npy")]


SYNTHETIC = ["--source", "synthetic", "--threads", "1", "--d-model", "4", "--n-sites", "2", "--latents", "8", "--active", "2"]


class Actcat(Job):
    """Of a recording of a small model, in JSON."""
    look = ["--json"]

    def make_inputs(self):
        harness.write_npy(self.given("tokens.npy"), [[(3 * i + j) % 10 for j in range(4)] for i in range(6)])
        command = [program("actgen"), "--threads", "1", "--model", f"{DATA}/gpt2/unscaled", "--tokens", self.given("tokens.npy"),
                   "--sites", "blocks.*.hook_resid_post", "--record", self.given("recording"), "--shard-seqs", "4", "--eval-blocks", "0"]
        if Run(command, self.logs).wait().status != 0:
            raise Failure("no recording to look at")
        write_tokenizer(self.given("tokenizer.json"))

    def args(self):
        return [program("actcat"), self.given("recording"), *self.look]

    def good(self, run):
        if not run.stdout.endswith("\n"):
            raise Failure(f"prints nothing\n{run.describe()}")
        super().good(run)


class ActcatTable(Actcat):
    look = []


class ActcatRows(Actcat):
    look = ["--rows", "1:3", "--json"]


class ActcatVerify(Actcat):
    look = ["--verify"]


class ActcatText(Actcat):
    def args(self):
        return [program("actcat"), self.given("recording"), "--row", "4", "--tokenizer", self.given("tokenizer.json")]


class ActcatImport(Actcat):
    def make_inputs(self):
        columns = struct.pack("<8f", *range(8))
        harness.write_safetensors(self.given("acts.safetensors"),
                                  {f"layer.{i}": {"dtype": "F32", "shape": [4, 2], "data_offsets": [32 * i, 32 * i + 32]}
                                   for i in range(2)}, 2 * columns)

    def args(self):
        return [program("actcat"), self.given("acts.safetensors"), "--json"]


class MakeKeys(Job):
    def args(self):
        return [program("xckeys"), "make", self.at("key")]

    def good(self, run):
        if sorted(tree(self.work)) != ["key.public", "key.secret"]:
            raise Failure(f"wrote {sorted(tree(self.work))}\n{run.describe()}")


class ShowKey(Job):
    def make_inputs(self):
        Run([program("xckeys"), "make", self.given("key")], self.logs).wait()

    def args(self):
        return [program("xckeys"), "public", self.given("key.secret")]


class Verify(Job):
    """A run with checkpoints and results, and a recording."""

    def make_inputs(self):
        endpoint = f"ipc://{self.folder}/socket"
        producer = Run([program("actgen"), *SYNTHETIC, "--n-seq", "16", "--seq-len", "4", "--connect", endpoint], self.logs)
        trainer = Run([program("xctrain"), *TRAINING, "--listen", endpoint, "--out", self.given("run")], self.logs).wait()
        recording = Run([program("actgen"), *SYNTHETIC, "--n-seq", "6", "--seq-len", "4", "--record", self.given("recording"),
                         "--shard-seqs", "2", "--eval-blocks", "0"], self.logs).wait()
        if producer.wait().status or trainer.status or recording.status:
            raise Failure(f"nothing to look at\n{trainer.describe()}\n{recording.describe()}")

    def args(self):
        return [program("xcverify"), self.given("run"), self.given("recording")]

    def cut_short(self, run):
        super().cut_short(run)
        if "DAMAGED" in run.stdout and "memory" not in run.stdout:
            raise Failure(f"takes a lack of memory for damage\n{run.describe()}")


class Record(Job):
    """A recording cut short goes on, with --resume, to the same bytes."""
    source = SYNTHETIC + ["--n-seq", "6", "--seq-len", "4"]

    def args(self):
        return [program("actgen"), *self.source, "--record", self.at("recording"), "--shard-seqs", "2", "--eval-blocks", "0"]

    def cut_short(self, run):
        left = tree(self.work)
        if any(".tmp" in name for name in left):
            raise Failure(f"left {sorted(left)}\n{run.describe()}")
        again = Run([*self.args(), "--resume"], self.logs).wait()
        if again.status != 0:
            raise Failure(f"after this run\n{run.describe()}\nthe recording cannot be continued:\n{again.describe()}")
        self.good(again)


class RecordTruth(Record):
    def args(self):
        return [*super().args(), "--truth", self.at("truth.safetensors")]


class RecordModel(Record):
    def make_inputs(self):
        harness.write_npy(self.given("tokens.npy"), [[(3 * i + j) % 10 for j in range(4)] for i in range(6)])
        harness.write_npy_vector(self.given("lengths.npy"), [4, 3, 4, 2, 4, 4])
        self.source = ["--threads", "1", "--model", f"{DATA}/gpt2/sharded", "--tokens", self.given("tokens.npy"), "--lengths",
                       self.given("lengths.npy"), "--sites", "blocks.*.hook_mlp_out"]


class RecordResumed(Record):
    """A recording that has begun is gone on with."""

    def make_inputs(self):
        run = Run([*self.source_args(self.given("begun"))], self.logs).wait()
        os.remove(self.given("begun/shard_00000001.safetensors"))
        manifest = harness.read_json(self.given("begun/manifest.json"))
        del manifest["shards"]["1"]
        harness.write_old_manifest(self.given("begun"), manifest)
        if run.status != 0:
            raise Failure(run.describe())

    def source_args(self, folder):
        return [program("actgen"), *self.source, "--record", folder, "--shard-seqs", "2", "--eval-blocks", "0"]

    def clean(self):
        super().clean()
        shutil.copytree(self.given("begun"), self.at("recording"))

    def args(self):
        return [*super().args(), "--resume"]


# ---- jobs of two programs ----

TRAINING = ["--threads", "1", "--dict-size", "8", "--batch-size", "8", "--num-tokens", "96", "--buffer-mult", "2",
            "--model-batch-size", "2", "--eval-blocks", "1", "--scale-rows", "8", "--log-every", "2", "--eval-every", "5",
            "--save-every", "4", "--keep", "2", "--heartbeat-ms", "100", "--timeout-ms", "1000", "--lr", "1e-2"]
RESULTS = ("crosscoder.safetensors", "provenance")


class Wire(Job):
    """A trainer and a producer over the wire, with keys."""
    source = SYNTHETIC + ["--n-seq", "16", "--seq-len", "4"]

    def make_inputs(self):
        self.trainer = self.producer = None
        for name in "trainer", "producer":
            Run([program("xckeys"), "make", self.given(name)], self.logs).wait()
        os.mkdir(self.given("allowed"))
        shutil.copy(self.given("producer.public"), self.given("allowed"))
        self.endpoint = f"ipc://{self.folder}/socket"
        self.n_begun = self.n_saved = 0  # runs cut short after training began, and that had saved

    def trainer_args(self, *more):
        return [program("xctrain"), *TRAINING, "--listen", self.endpoint, "--out", self.at("out"), "--curve-secret",
                self.given("trainer.secret"), "--curve-allow", self.given("allowed"), "--provenance", self.at("provenance"), *more]

    def producer_args(self):
        return [program("actgen"), *self.source, "--connect", self.endpoint, "--curve-secret", self.given("producer.secret"),
                "--curve-server", self.given("trainer.public")]

    def listen(self, *more, fail=None):
        """A trainer that listens, or has ended."""
        if os.path.exists(self.endpoint[6:]):
            os.remove(self.endpoint[6:])
        trainer = Run(self.trainer_args(*more), self.logs, fail)
        end = time.monotonic() + LIMIT
        while not trainer.ended() and not os.path.exists(self.endpoint[6:]) and time.monotonic() < end:
            time.sleep(0.002)
        return trainer

    def results(self):
        files = tree(self.work)
        return {name: files[path] for name in RESULTS for path in files if path.endswith(name) and "checkpoints" not in path}

    def good(self, run):
        files = self.results()
        self.reference = getattr(self, "reference", None) or files
        if files != self.reference or sorted(files) != sorted(RESULTS):
            raise Failure(f"other results than undisturbed: {sorted(files)}, {self.differences(files)}\n{run.describe()}")
        self.check_left(run)

    def check_left(self, run):
        left = sorted(tree(self.work))
        if any(".tmp" in name or "/tmp/" in name or name.endswith(".writable") for name in left):
            raise Failure(f"left {left}\n{run.describe()}")


class Train(Wire):
    """The trainer lacks memory, its producer does not. What it saved goes on to the same bytes."""
    tolerated = "the run goes on"

    def train(self, *more, fail=None):
        trainer, producer = self.listen(*more, fail=fail), None
        if not trainer.ended():
            producer = Run(self.producer_args(), self.logs)
        try:
            return trainer.wait()
        finally:
            if producer:
                producer.kill()

    def run(self, fail=None):
        return self.train(fail=fail)

    def enough(self):
        if not (self.n_begun and self.n_saved):
            raise Failure(f"{self.n_begun} runs failed after training began, {self.n_saved} had saved")

    def cut_short(self, run):
        self.check_left(run)
        saved = harness.checkpoints(self.at("out"))
        begun = os.path.exists(self.at("out/metrics.jsonl")) and os.path.getsize(self.at("out/metrics.jsonl"))
        self.n_begun += bool(begun)
        self.n_saved += bool(saved)
        if not saved and begun and not run.fail.endswith("+"):  # with memory for all else, what was trained is saved
            raise Failure(f"training had begun, nothing is saved\n{run.describe()}")
        if not saved:
            return
        again = self.train("--resume")
        if again.status != 0:
            raise Failure(f"after this run\n{run.describe()}\nit cannot be resumed:\n{again.describe()}")
        self.good(again)


class Serve(Wire):
    """The producer lacks memory, its trainer does not and ends with the same bytes, however many producers come and go."""
    tolerated = "connecting again"

    def clean(self):
        """The trainer waits for the next producer, unless it is done."""
        if self.trainer and self.trainer.ended():
            self.judge_trainer()
        if not self.trainer:
            super().clean()
            self.trainer = self.listen()

    def judge_trainer(self, producer=None):
        """The trainer has ended, or is about to."""
        trainer, self.trainer = self.trainer, None
        if trainer.wait().status != 0:
            by = f"\nby this producer:\n{producer.describe()}" if producer else ""
            raise Failure(f"the trainer fails\n{trainer.describe()}{by}")
        super().good(trainer)

    def run(self, fail=None):
        while True:
            producer = Run(self.producer_args(), self.logs, fail)
            while not producer.ended() and (not self.trainer.ended() or "joined" in producer.stderr):
                time.sleep(0.002)
            if producer.ended() or not self.trainer.ended() or "joined" in producer.stderr:
                return producer.wait()
            producer.kill()  # what earlier ones had sent was all that the trainer needed
            self.clean()

    def good(self, run):
        self.judge_trainer(run)

    def cut_short(self, run):
        if self.trainer.ended() or "training is done" in run.stderr:
            self.judge_trainer(run)

    def close(self):
        if self.trainer:
            self.trainer.kill()


class ServeRecording(Serve):
    def make_inputs(self):
        super().make_inputs()
        run = Run([program("actgen"), *self.source, "--record", self.given("recording"), "--shard-seqs", "2", "--eval-blocks", "0"], self.logs).wait()
        if run.status != 0:
            raise Failure(run.describe())
        self.source = ["--source", "recording", "--input", self.given("recording"), "--threads", "1", "--verify"]


class ServeAndRecord(Serve):
    def producer_args(self):
        return [*super().producer_args(), "--record", os.path.join(self.folder, "copy"), "--resume"]

    def check_left(self, run):
        super().check_left(run)
        if any(".tmp" in name for name in tree(os.path.join(self.folder, "copy"))):
            raise Failure(f"left a temporary\n{run.describe()}")


JOBS = {
    "xckeys": [ShowKey, MakeKeys],
    "xctok": [Encode, EncodeJson, EncodeGzip, EncodeXz, EncodeGpt2, Decode],
    "actcat": [Actcat, ActcatTable, ActcatRows, ActcatVerify, ActcatText, ActcatImport],
    "actgen": [Record, RecordTruth, RecordModel, RecordResumed, Serve, ServeRecording, ServeAndRecord],
    "xctrain": [Train],
    "xcverify": [Verify],
}


def shipped():
    for name in JOBS:
        if not os.path.exists(program(name)):  # CROSSFEED_XCTOK=OFF
            continue
        with open(program(name), "rb") as f:
            if b"CROSSFEED_FAIL_ALLOCATION" in f.read():
                print(f"{name} of an ordinary build reads CROSSFEED_FAIL_ALLOCATION")
                return 1
    return 0


def main():
    words = [w for w in sys.argv[1:] if w != "--all"]
    if words == ["--shipped"]:
        return shipped()
    if not words or words[0] not in JOBS:
        sys.exit(__doc__)
    for kind in JOBS[words[0]]:
        if len(words) > 1 and kind.__name__ not in words[1:]:
            continue
        first = kind is JOBS[words[0]][0]
        every, every_after = (FIRST_JOB if first else OTHER_JOBS), (ALL_AFTER if first else ALL_AFTER // 2)
        if "--all" in sys.argv:
            every = every_after = sys.maxsize
        # In memory where that is possible: a disk that must sync each file takes longer than all else.
        folder = tempfile.mkdtemp(prefix="crossfeed-oom-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        began, job = time.monotonic(), None
        try:
            job = kind(folder)
            if job.try_one(None) is not False:
                raise Failure("an undisturbed run lacks memory")
            failed, harmless = map(sum, zip(job.loop(every, False), job.loop(every_after, True)))
            if failed == 0 and kind is not MakeKeys:  # which needs none
                raise Failure("no allocation failed: does this build have CROSSFEED_FAULTS?")
            job.enough()
            print(f"{words[0]} {kind.__name__}: {failed} runs that lacked memory said so, {harmless} did without; "
                  f"{time.monotonic() - began:.1f} s", flush=True)
        except Failure as why:
            print(f"{words[0]} {kind.__name__}: {why}")
            return 1
        finally:
            if job:
                job.close()
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""cluster.py - a trainer and its producers, each producer behind a proxy of its own, for tests that disturb them.

Whoever dies is started again, as a service manager would: the trainer with --resume (or from the start if it had saved
nothing yet). A death that nobody ordered is judged: the trainer may not end before its work is done, and a producer may end
only with 0 or 1 and a line that says why, never by a signal. At the end nothing may be left: no process, no file that is not a result.
"""
import collections
import heapq
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "../..")
for variable, program in ("XCTRAIN", "xctrain"), ("ACTGEN", "actgen"), ("XCKEYS", "xckeys"):
    os.environ.setdefault(variable, os.path.join(ROOT, "build", program))
sys.path[:0] = [HERE, os.path.join(HERE, "../e2e")]
import harness  # noqa: E402
import proxy  # noqa: E402

TICK = 0.01
GRACE = 15  # seconds that a program has to end when asked to
SANITIZER = re.compile(r"(ERROR: \w+Sanitizer|runtime error:).*")


class Failure(Exception):
    pass


class Slot:
    """A producer's place: its proxy, its keys as arguments, and the program that is there now."""

    def __init__(self, number, way):
        self.name, self.way, self.keys = f"p{number}", way, []
        self.program = None
        self.ordered = False  # its end was: nothing to judge
        self.paused = False


class Cluster:
    def __init__(self, folder, trainer_args, producer_args, n_producers, seed, proxied=True, keys=False):
        """keys: trainer and producers know each other by CURVE keys."""
        self.folder, self.out = folder, os.path.join(folder, "out")
        self.mark = f"CROSSFEED_CLUSTER={uuid.uuid4()}"  # in the environment of all that is started here
        key, value = self.mark.split("=")
        os.environ[key] = value
        self.tmp = os.environ["TMPDIR"] = os.path.join(folder, "tmp")
        os.mkdir(self.tmp)
        self.rng = random.Random(seed)
        # An address of its own, so that its port is not taken while the trainer is down.
        self.host = "127.%d.%d.%d" % (random.randrange(64, 128), random.randrange(256), random.randrange(1, 255))
        self.trainer_args = ["--listen", f"tcp://{self.host}:5555", "--out", self.out, *map(str, trainer_args)]
        self.producer_args = list(map(str, producer_args))
        self.trainer, self.trainer_ordered, self.trainer_paused = None, False, False
        loop = proxy.start_loop() if proxied else None
        self.slots = [Slot(i, proxy.Proxy(loop, self.host, 5555) if proxied else None) for i in range(n_producers)]
        if keys:
            self.make_keys()
        self.actions = []  # heap of (time, number, function)
        self.n_started = self.step = self.n_resumed = self.n_from_start = 0
        self.pids = set()
        self.ends = collections.Counter()  # how producers ended
        self.checked = self.killed = 0  # programs that ended, and how many of them by a signal
        self.began = time.time()
        self.now = 0.0  # seconds in which this program ran: no jump if it was stopped for a while
        self.last_tick = time.monotonic()

    # Programs.

    def make_keys(self):
        """A pair for the trainer and for each producer, who is told the other side's public half."""
        own, allowed = os.path.join(self.folder, "trainer"), os.path.join(self.folder, "allowed")
        os.mkdir(allowed)
        self.trainer_args += ["--curve-secret", f"{own}.secret", "--curve-allow", allowed]
        for slot in self.slots:
            slot.keys = ["--curve-secret", f"{allowed}/{slot.name}.secret", "--curve-server", f"{own}.public"]
        for pair in own, *(f"{allowed}/{slot.name}" for slot in self.slots):
            subprocess.run([os.environ["XCKEYS"], "make", pair], check=True, stdout=subprocess.DEVNULL)

    def start(self, path, args, name):
        self.n_started += 1
        program = harness.Program(path, args, self.folder, f"{self.n_started}-{name}")
        self.pids.add(program.pid)
        return program

    def start_trainer(self):
        self.trainer_ordered = self.trainer_paused = False
        resume = []
        if harness.checkpoints(self.out):
            resume, self.n_resumed = ["--resume"], self.n_resumed + 1
        elif os.path.exists(self.out):
            self.n_from_start += 1
            shutil.rmtree(self.out)
        self.trainer = self.start(harness.XCTRAIN, [*self.trainer_args, *resume], "trainer")

    def start_producer(self, slot):
        slot.ordered = slot.paused = False
        endpoint = slot.way.endpoint if slot.way else f"tcp://{self.host}:5555"
        args = ["--connect", endpoint, "--name", slot.name, *slot.keys, *self.producer_args]
        slot.program = self.start(harness.ACTGEN, args, slot.name)

    def look_through(self, program):
        """What an ended program said may hold no sanitizer's finding; its output is removed."""
        said = program.stderr
        if found := SANITIZER.search(said):
            raise Failure(f"{program.name}: {found.group(0)}\n{said[found.start():]}")
        if program.status not in (0, 1, -signal.SIGKILL, -signal.SIGTERM):  # SIGTERM: before it had set up its handler
            raise Failure(f"{program.name} ended with {program.status}:\n{said}")
        self.checked += 1
        self.killed += program.status < 0
        for path in program.out_path, program.err_path:
            os.unlink(path)
        return said

    # Time.

    def later(self, seconds, function, *args):
        self.n_started += 1
        heapq.heappush(self.actions, (self.now + seconds, self.n_started, function, args))

    def tick(self):
        """Lets a little time pass; does what is due, and starts who died again. Returns whether the trainer is done."""
        time.sleep(TICK)
        now = time.monotonic()
        self.now += min(now - self.last_tick, 0.5)
        self.last_tick = now
        while self.actions and self.actions[0][0] <= self.now:
            _, _, function, args = heapq.heappop(self.actions)
            function(*args)
        for slot in self.slots:
            if slot.program and not slot.program.running():
                self.producer_ended(slot)
        if self.trainer and not self.trainer.running():
            return self.trainer_ended()
        self.step = last_step(self.out) if self.trainer else self.step
        return False

    def producer_ended(self, slot):
        program, slot.program = slot.program, None
        said = self.look_through(program)
        if program.status < 0 and not slot.ordered:
            raise Failure(f"{program.name} was killed by somebody else")
        why = "killed" if program.status < 0 else last_words(said)
        self.ends[f"{why} ({program.status})"] += 1
        self.later(self.rng.uniform(0, 0.5), self.start_producer, slot)

    def trainer_ended(self):
        program, self.trainer = self.trainer, None
        if program.status == 0 and not self.trainer_ordered:
            self.said = self.look_through(program)
            return True
        if not self.trainer_ordered or program.status == 1:
            raise Failure(f"{program.name} ended with {program.status}:\n{program.stderr}")
        self.look_through(program)
        self.later(self.rng.uniform(0, 0.5), self.start_trainer)
        return False

    # Orders.

    def end_producer(self, slot, number):
        if slot.program:
            slot.ordered = True
            slot.program.kill(signal.SIGCONT)
            slot.program.kill(number)

    def end_trainer(self, number):
        if self.trainer:
            self.trainer_ordered = True
            self.trainer.kill(signal.SIGCONT)
            self.trainer.kill(number)

    def pause_producer(self, slot, seconds):
        program = slot.program
        if program and not slot.paused:
            slot.paused = True
            program.kill(signal.SIGSTOP)
            self.later(seconds, self.go_on, slot, program)

    def go_on(self, slot, program):
        if slot.program is program:
            slot.paused = False
            program.kill(signal.SIGCONT)

    def pause_trainer(self, seconds):
        program = self.trainer
        if program and not self.trainer_paused:
            self.trainer_paused = True
            program.kill(signal.SIGSTOP)
            self.later(seconds, self.trainer_goes_on, program)

    def trainer_goes_on(self, program):
        if self.trainer is program:
            self.trainer_paused = False
            program.kill(signal.SIGCONT)

    # The end.

    def stop_trainer(self):
        """Politely, and it is not started again."""
        program, self.trainer = self.trainer, None
        program.kill(signal.SIGCONT)
        program.kill(signal.SIGTERM)
        if wait(program) not in (0, -signal.SIGTERM):
            raise Failure(f"{program.name} was stopped and ended with {program.status}:\n{program.stderr}")
        self.look_through(program)

    def finish(self):
        """The trainer is done: every producer ends, by itself or when asked politely, and with 0 or 1."""
        self.actions.clear()
        for slot in self.slots:
            if slot.program:
                slot.program.kill(signal.SIGCONT)
        for _ in range(int(2 / TICK)):  # most have heard END
            if not any(s.program and s.program.running() for s in self.slots):
                break
            time.sleep(TICK)
        for slot in self.slots:
            if slot.program:
                slot.program.kill(signal.SIGTERM)
        for slot in self.slots:
            if slot.program:
                wait(slot.program)
                self.ends[f"{last_words(self.look_through(slot.program))} ({slot.program.status})"] += 1
                slot.program = None

    def kill_all(self):
        for program in [self.trainer, *[s.program for s in self.slots]]:
            if program:
                program.kill()
        for slot in self.slots:
            if slot.way:
                slot.way.close()

    def leaks(self):
        """What is left of the programs started here, as lines: processes, and files that are no results."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/environ", "rb") as f:
                    marked = self.mark.encode() in f.read().split(b"\0")
                with open(f"/proc/{pid}/comm") as f:
                    name = f.read().strip()
            except OSError:
                continue
            if marked and int(pid) != os.getpid():
                found.append(f"process {pid} {name}")
        results = re.compile(r"(crosscoder\.safetensors|(cfg|manifest|run|status|summary)\.json|metrics\.jsonl|"
                             r"checkpoints/(damaged_)?step_\d{10}(\.\d+)?/(crosscoder\.safetensors|state\.safetensors|(cfg|manifest)\.json))")
        for folder, folders, names in os.walk(self.out):
            for name in names if names or folders else ["(empty folder)"]:
                path = os.path.relpath(os.path.join(folder, name), self.out)
                if not results.fullmatch(path):
                    found.append(f"file out/{path}")
        # Others use these folders too: ours would bear a process id or a program's name.
        ours = re.compile(r"(?<!\d)(" + "|".join(map(str, self.pids)) + r")(?!\d)|xctrain|actgen")
        for folder in self.tmp, "/tmp", "/dev/shm":
            for name in os.listdir(folder):
                path = os.path.join(folder, name)
                if folder == self.tmp or (ours.search(name) and changed(path) >= self.began):
                    found.append(f"file {path}")
        return found


def changed(path):
    try:
        return os.lstat(path).st_ctime
    except OSError:
        return 0


def wait(program):
    """Its exit status, soon. Counts turns, not time: all may be stopped for a while."""
    for _ in range(int(GRACE / TICK)):
        if not program.running():
            return program.status
        time.sleep(TICK)
    raise Failure(f"{program.name} was asked to end and still runs after {GRACE} s:\n{program.stderr}")


def last_step(out):
    """Of the last whole line of metrics.jsonl, from the end of the file; 0 if there is none."""
    try:
        with open(os.path.join(out, "metrics.jsonl"), "rb") as f:
            size = f.seek(0, os.SEEK_END)
            f.seek(max(0, size - 16384))
            steps = re.findall(rb'"step": ?(\d+)\b[^\n]*\n', f.read())
            return int(steps[-1]) if steps else 0
    except OSError:
        return 0


def last_words(said):
    """The kind of a program's last line: without names and numbers."""
    line = (said.strip().splitlines() or ["nothing said"])[-1]
    line = re.sub(r"tcp://\S+", "ENDPOINT", line.removeprefix("actgen: "))
    line = line.split(": sent ")[0]
    return re.sub(r"\b(0x)?[0-9a-f]*\d[0-9a-f]*\b", "N", line)[:90]


def fds(program):
    try:
        return len(os.listdir(f"/proc/{program.pid}/fd"))
    except OSError:
        return 0


def rss(program):
    """Resident bytes now."""
    with open(f"/proc/{program.pid}/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")

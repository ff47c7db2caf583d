"""training.py - one run of actgen and xctrain on a thread each, for the tables of what training finds; and a table's cell over seeds."""
import json
import os
import signal
import subprocess
import sys
import tempfile

LIMIT = 300  # seconds that a run may take


def run(build, source, recipe, planted=False):
    """Trains on what actgen makes of the flags `source`, with the flags `recipe`; returns summary.json. planted: the source plants a truth,
    and the summary says what was found of it."""
    with tempfile.TemporaryDirectory(prefix="training-") as folder:
        endpoint, out = f"ipc://{folder}/socket", f"{folder}/out"
        truth = ["--truth", f"{folder}/truth.safetensors"] if planted else []
        producer = subprocess.Popen([f"{build}/actgen", "--threads", "1", "--connect", endpoint, *source, *truth],
                                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while truth and not os.path.exists(truth[1]):  # the trainer reads it at its start
                if producer.poll() is not None:
                    sys.exit(f"actgen ended with {producer.returncode}")
            done = subprocess.run([f"{build}/xctrain", "--threads", "1", "--out", out, "--listen", endpoint, *truth, *recipe],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=LIMIT)
            if done.returncode:
                sys.exit(done.stderr)
            with open(f"{out}/summary.json") as f:
                return json.load(f)
        finally:
            producer.send_signal(signal.SIGTERM)
            producer.wait()


def cell(values, digits=1):
    """Mean (least to greatest); "-" where there are none."""
    values = [v for v in values if v is not None]
    if not values:
        return "-"
    mean, least, greatest = ((f"{v:.{digits}f}".rstrip("0").removesuffix(".") if digits else f"{v:.0f}")
                             for v in (sum(values) / len(values), min(values), max(values)))
    return mean if least == greatest else f"{mean} ({least} to {greatest})"

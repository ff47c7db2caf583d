#!/usr/bin/env python3
"""What the initial norm of the decoder vectors does to a run on the demo pair: a table, mean and range over seeds.

    tools/bench/dec_init_norm.py [--build build] [--seeds 1 2 3] [--activation relu]

The run is that of tools/quickstart.sh: 12 sites of d_model 128, 1,024 latents, 3e5 rows. FVU, L0 and silent latents (that never fired) are
those of the held-out rows at its end.
"""
import argparse
import datetime
import os

import training

DEMO = os.path.relpath(os.path.join(os.path.dirname(__file__), "../demo"))
SOURCE = ["--model", f"{DEMO}/base", "--model", f"{DEMO}/chat", "--tokens", f"{DEMO}/tokens.npy"]
TRAINER = ["--model-batch-size", "32", "--batch-size", "512", "--buffer-mult", "64", "--dict-size", "1024", "--num-tokens", "3e5", "--lr", "1e-3",
           "--save-every", "1000000"]
RECIPES = {"relu": ["--l1-coeff", "1"], "batchtopk": ["--activation", "batchtopk", "--k", "32"]}
NORMS = ["0.001", "0.005", "0.03", "0.08", "0.1", "0.3", "1"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--activation", choices=list(RECIPES), default="relu")
    a = parser.parse_args()
    print(f"{datetime.date.today()}, {a.activation}, seeds {a.seeds}: mean (least to greatest)\n")
    print("| dec_init_norm | FVU | L0 | silent |\n| --- | --- | --- | --- |")
    for norm in NORMS:
        runs = [training.run(a.build, SOURCE, [*TRAINER, *RECIPES[a.activation], "--dec-init-norm", norm, "--seed", str(seed)])
                for seed in a.seeds]
        print(f"| {norm} | {training.cell([r['fvu'] for r in runs], 3)} | {training.cell([r['l0'] for r in runs])} | "
              f"{training.cell([r['silent'] for r in runs], 0)} |", flush=True)


if __name__ == "__main__":
    main()

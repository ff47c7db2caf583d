#!/usr/bin/env python3
"""What training recipes find of a planted dictionary: a table, mean and range over seeds.

    tools/bench/planted.py [--build build] [--seeds 1 2 3] [--rows 1e6] [--only batchtopk jumprelu] [--table truth null]

Two models, one site each; the planted latents fire at rates that differ by a factor of up to ten. The first table has 30 % of them in
either model alone. The second is the null: every planted latent is in both models, so whatever is called exclusive is so
falsely. What the columns mean: trainer/learn/recovery.h; "dead" are learned latents that have not fired for the last rows.
"""
import argparse
import datetime

import training

SOURCE = ["--source", "synthetic", "--d-model", "64", "--n-sites", "2", "--n-models", "2", "--latents", "128", "--active", "4",
          "--local", "0", "--aligned", "--rate-spread", "10"]
TABLES = {"truth": ["--exclusive", "0.6"], "null": ["--exclusive", "0"],
          "hard": ["--exclusive", "0.6", "--correlated", "0.2", "--weak-ratio", "0.25"],
          "alone": ["--exclusive", "0.6", "--alone", "0.5"]}
TRAINER = ["--dict-size", "512", "--batch-size", "256", "--buffer-mult", "32", "--model-batch-size", "8", "--lr", "3e-3",
           "--dead-rows", "3e4", "--eval-blocks", "2"]
INIT = ["--dec-init-norm", "0.1"]
BATCHTOPK = [*INIT, "--activation", "batchtopk", "--k", "4", "--k-start", "32", "--k-anneal-steps", "1000", "--threshold-start", "300"]
RECIPES = {
    "relu, l1_coeff 1": [*INIT, "--l1-coeff", "1"],
    "relu, l1_coeff 2": [*INIT, "--l1-coeff", "2"],
    "relu, l1_coeff 5": [*INIT, "--l1-coeff", "5"],
    "relu, l1_coeff 5, 128 shared latents": [*INIT, "--l1-coeff", "5", "--shared-latents", "128"],
    "batchtopk": BATCHTOPK,
    "jumprelu": ["--activation", "jumprelu", "--l0-coeff", "0.5"],
    "batchtopk, exclusive partition": [*BATCHTOPK, "--exclusive-latents", "128,128"],
}


def figures(summary):
    """What a row of the table shows of one run; None: nothing to divide by."""
    r = summary["recovery"]
    exclusive = r["exclusive"]

    def percent(x):
        return None if x is None else 100 * x

    return {"recovered, %": percent(summary["recovered"]), "exclusive precision, %": percent(exclusive["precision"]),
            "exclusive recall, %": percent(exclusive["recall"]), "live called exclusive, %": percent(exclusive["called"] / max(r["live"], 1)),
            "duplicates": r["duplicates"], "spurious": r["spurious"], "L0": summary["l0"], "dead": summary["dead"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the planted dictionary and the training")
    parser.add_argument("--rows", type=float, default=1e6)
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="recipes whose name has one of these in it")
    parser.add_argument("--table", nargs="+", choices=list(TABLES), default=["truth", "null"],
                        help="hard: truth, and a fifth of the latents are pairs, a tenth of the shared are weak in model 1; "
                             "alone: truth, and a tenth of the shared are half of the time active in model 1 alone")
    a = parser.parse_args()
    names = [name for name in RECIPES if not a.only or any(text in name for text in a.only)]
    if not names:
        parser.error(f"--only {a.only}: no recipe has that in its name; they are {list(RECIPES)}")
    print(f"{datetime.date.today()}, {a.rows:.0f} rows, seeds {a.seeds}: mean (least to greatest)")
    for table in a.table:
        print(f"\n`{' '.join(SOURCE[2:] + TABLES[table])}`\n")
        for n, name in enumerate(names):
            runs = [figures(training.run(a.build, [*SOURCE, *TABLES[table], "--seed", str(seed)],
                                         [*TRAINER, "--num-tokens", str(a.rows), "--seed", str(seed), *RECIPES[name]], planted=True))
                    for seed in a.seeds]
            columns = [c for c in runs[0] if not c.startswith("live" if table != "null" else "exclusive")]
            if n == 0:
                print(f"| recipe | {' | '.join(columns)} |\n|{' --- |' * (len(columns) + 1)}")
            print(f"| {name} | {' | '.join(training.cell([r[c] for r in runs]) for c in columns)} |", flush=True)


if __name__ == "__main__":
    main()

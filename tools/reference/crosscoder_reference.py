#!/usr/bin/env python3
"""The crosscoder's training step in PyTorch autograd: the yardstick for trainer/learn/step.c.

An independent implementation of the reference repository's algorithm (its crosscoder.py and trainer.py): its names and
shapes, torch.optim.Adam, clip_grad_norm_, LambdaLR. It shares nothing with the C code but ARCHITECTURE.md, "The crosscoder".

    crosscoder_reference.py --write     generates tests/data/crosscoder_golden.safetensors
    crosscoder_reference.py --check     generates it again, compares, and says how far float32 PyTorch is from it

The golden run is in float64, from float32 weights and rows, so that it is the same to many digits on every machine and
PyTorch; what a float32 run may differ by is what --check prints.
"""
import argparse
import os
import sys

import torch
from safetensors.torch import load_file, save_file

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import overwrite  # noqa: E402

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/data/crosscoder_golden.safetensors")

# Chosen so that 200 steps learn, clip often but not always, and are not chaotic: float32 stays within 1e-6 of float64. (With
# lr 4e-3 and batch 128 PyTorch's own float32 run is off by 1e-3, since Adam amplifies gradients near 0.)
N_SITES, D_MODEL, D_SAE, N_ROWS = 3, 16, 96, 1536
CONFIG = {
    "batch_size": 256,
    "steps": 200,
    "lr": 2e-3,
    "l1_coeff": 0.3,
    "beta1": 0.9,
    "beta2": 0.999,
    "eps": 1e-8,
    "max_norm": 2.0,
    "lr_warmup_fraction": 0.05,
    "lr_decay_fraction": 0.2,
    "l1_warmup_fraction": 0.05,
}
DEC_INIT_NORM = 0.3


class Crosscoder(torch.nn.Module):
    def __init__(self, weights, dtype):
        super().__init__()
        for name in ("W_enc", "W_dec", "b_enc", "b_dec"):
            setattr(self, name, torch.nn.Parameter(weights[name].to(dtype).clone()))

    def forward(self, x):
        f = torch.relu(torch.einsum("bsd,sdj->bj", x, self.W_enc) + self.b_enc)
        return f, torch.einsum("bj,jsd->bsd", f, self.W_dec) + self.b_dec

    def losses(self, x):
        f, reconstruction = self(x)
        square = (reconstruction - x).pow(2)
        l2 = square.sum(dim=(1, 2)).mean()
        l1 = (f * self.W_dec.norm(dim=-1).sum(dim=-1)).sum(dim=-1).mean()
        l0 = (f > 0).to(x.dtype).sum(dim=-1).mean()
        variance = (x - x.mean(dim=0)).pow(2)
        square, variance = square.detach(), variance.detach()
        return {
            "l2": l2,
            "l1": l1,
            "l0": l0,
            "fvu": square.sum() / variance.sum(),
            "fvu_site": square.sum(dim=(0, 2)) / variance.sum(dim=(0, 2)),
            "fvu_token": (square.sum(dim=(1, 2)) / variance.sum(dim=(1, 2))).mean(),
            "fvu_token_site": (square.sum(dim=2) / variance.sum(dim=2)).mean(dim=0),
        }


def lr_factor(step, config):
    total = config["steps"]
    warm, decay = config["lr_warmup_fraction"] * total, config["lr_decay_fraction"] * total
    if step + 1 < warm:
        return (step + 1) / warm
    if step < total - decay:
        return 1.0
    return 1.0 - (step - (total - decay)) / decay


def l1_coeff_at(step, config):
    warm = config["l1_warmup_fraction"] * config["steps"]
    return config["l1_coeff"] * (step / warm if step < warm else 1.0)


def train(weights, rows, config, dtype):
    """Trains on rows [n, n_sites, d_model], taken batch after batch and from the start again; n is a multiple of
    batch_size. Returns the final weights and, by name, the value of each step."""
    model = Crosscoder(weights, dtype)
    adam = torch.optim.Adam(model.parameters(), lr=config["lr"], betas=(config["beta1"], config["beta2"]), eps=config["eps"])
    scheduler = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: lr_factor(step, config))
    history = {}
    for step in range(config["steps"]):
        first = step * config["batch_size"] % len(rows)
        x = rows[first : first + config["batch_size"]].to(dtype)
        values = model.losses(x)
        values["l1_coeff"] = torch.tensor(l1_coeff_at(step, config), dtype=torch.float64)
        values["lr"] = torch.tensor(scheduler.get_last_lr()[0], dtype=torch.float64)
        values["loss"] = values["l2"] + l1_coeff_at(step, config) * values["l1"]
        adam.zero_grad()
        values["loss"].backward()
        values["grad_norm"] = torch.nn.utils.clip_grad_norm_(model.parameters(), config["max_norm"])
        adam.step()
        scheduler.step()
        for name, value in values.items():
            history.setdefault(name, []).append(value.detach().to(torch.float64))
    final = {name: value.detach() for name, value in model.named_parameters()}
    return final, {name: torch.stack(values) for name, values in history.items()}


def make_rows(generator, n_rows=N_ROWS, n_sites=N_SITES, d_model=D_MODEL):
    """Rows as activations are: sparse features, most at every site and some at one only, on a mean, under noise; each
    site scaled to a mean norm of sqrt(d_model)."""
    n_features = 48
    directions = torch.randn(n_features, n_sites, d_model, generator=generator)
    directions /= directions.norm(dim=-1, keepdim=True)
    present = torch.ones(n_features, n_sites, 1)
    for i in range(0, n_features, 4):
        present[i] = 0
        present[i, (i // 4) % n_sites] = 1
    active = torch.rand(n_rows, n_features, generator=generator) < 0.06
    strength = 0.5 + torch.randn(n_rows, n_features, generator=generator).abs()
    rows = torch.einsum("bf,fsd->bsd", active * strength, directions * present)
    rows += 0.3 * torch.randn(n_sites, d_model, generator=generator)
    rows += 0.05 * torch.randn(n_rows, n_sites, d_model, generator=generator)
    return rows * (d_model**0.5 / rows.norm(dim=-1).mean(dim=0))[None, :, None]


def make_weights(generator, n_sites=N_SITES, d_model=D_MODEL, d_sae=D_SAE):
    decoder = torch.randn(d_sae, n_sites, d_model, generator=generator)
    decoder *= DEC_INIT_NORM / decoder.norm(dim=-1, keepdim=True)
    return {
        "W_enc": decoder.permute(1, 2, 0).contiguous(),
        "W_dec": decoder,
        "b_enc": torch.zeros(d_sae),
        "b_dec": torch.zeros(n_sites, d_model),
    }


def make_golden():
    generator = torch.Generator().manual_seed(20240613)
    rows, weights = make_rows(generator), make_weights(generator)
    final, history = train(weights, rows, CONFIG, torch.float64)
    golden = {"rows": rows}
    golden.update({"initial." + name: value for name, value in weights.items()})
    golden.update({"final." + name: value.to(torch.float32) for name, value in final.items()})
    golden.update({"step." + name: value for name, value in history.items()})
    return {name: value.contiguous() for name, value in golden.items()}


def distance(a, b, pieces):
    """The largest relative norm of the difference, of a tensor as so many pieces: the steps, or 1 for a tensor of weights."""
    a, b = a.double().reshape(pieces, -1), b.double().reshape(pieces, -1)
    return ((a - b).norm(dim=1) / b.norm(dim=1).clamp(min=1e-12)).max().item()


def check(golden, path):
    stored = load_file(path)
    if sorted(stored) != sorted(golden):
        print(f"{path} holds {sorted(stored)}, should hold {sorted(golden)}")
        return 1
    # The inputs are taken as stored, so that another version's random numbers do no harm.
    weights = {name[8:]: value for name, value in stored.items() if name.startswith("initial.")}
    bad = 0
    print("distance from the file         float64    float32")
    again = {dtype: train(weights, stored["rows"], CONFIG, dtype) for dtype in (torch.float64, torch.float32)}
    for name in sorted(stored):
        kind, _, rest = name.partition(".")
        if kind not in ("final", "step"):
            continue
        pieces = CONFIG["steps"] if kind == "step" else 1
        found = [distance(again[dtype][kind == "step"][rest], stored[name], pieces) for dtype in again]
        bad += not found[0] < 1e-6
        print(f"{name:28} {found[0]:10.1e} {found[1]:10.1e}")
    print("differs from the file" if bad else "agrees with the file")
    return 1 if bad else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the golden file")
    parser.add_argument("--check", action="store_true", help="compare with the golden file; exit 1 if it differs")
    parser.add_argument("--path", default=os.path.normpath(GOLDEN))
    overwrite.add_flag(parser)
    args = parser.parse_args()
    if args.write == args.check:
        parser.error("either --write or --check")
    if args.write:
        overwrite.check(parser, args, args.path, GOLDEN)
    torch.set_num_threads(1)
    golden = make_golden()
    if args.check:
        return check(golden, args.path)
    metadata = {name: repr(value) for name, value in CONFIG.items()}
    save_file(golden, args.path, metadata=metadata)
    loss, norm = golden["step.loss"], golden["step.grad_norm"]
    print(f"{args.path}: {os.path.getsize(args.path)} bytes; loss {loss[0]:.3f} -> {loss[-1]:.3f}; "
          f"clipped in {(norm > CONFIG['max_norm']).sum().item()} of {len(norm)} steps")
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/python3
"""gpt2_producer.py - serves the activations of GPT-2 models in the same run as actgen: computed with numpy, and fingerprinted by
PROTOCOL.md, section 7. All of the protocol is producer.py's.

    gpt2_producer.py --connect ENDPOINT --model DIR [--model DIR] --tokens FILE [--lengths FILE] --sites NAME[,NAME...]
"""
import argparse
import json
import os
import re
import sys

import numpy as np
import xxhash

from producer import Producer, log

MASKED = 4294967295  # token id of a row that is not trained on
TENSORS = [f"{layer}.{kind}" for layer in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj") for kind in ("weight", "bias")]


def text(x):
    """A text, as fingerprints have it."""
    return x.encode("ascii") + b"\0"


def u32(*numbers):
    return np.array(numbers, dtype="<u4").tobytes()


def read_tensors(path):
    """The tensors of a safetensors file as float32, without the prefix of their names."""
    with open(path, "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        data = f.read()
    header.pop("__metadata__", None)
    tensors = {}
    for name, t in header.items():
        raw = data[slice(*t["data_offsets"])]
        if t["dtype"] == "BF16":
            values = (np.frombuffer(raw, dtype="<u2").astype("<u4") << 16).view("<f4")
        else:
            values = np.frombuffer(raw, dtype={"F16": "<f2", "F32": "<f4"}[t["dtype"]]).astype("<f4")
        tensors[name.removeprefix("transformer.")] = values.reshape(t["shape"])
    return tensors


def layer_norm(x, weight, bias, epsilon):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred ** 2).mean(axis=-1, keepdims=True) + epsilon) * weight + bias


def gelu_new(x):
    return 0.5 * x * (1 + np.tanh(np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x ** 3)))


class Model:
    def __init__(self, folder):
        with open(os.path.join(folder, "config.json")) as f:
            self.config = c = json.load(f)
        if c["activation_function"] != "gelu_new":
            sys.exit(f"gpt2_producer.py: {folder}: activation {c['activation_function']}, only gelu_new is computed here")
        self.tensors = read_tensors(os.path.join(folder, "model.safetensors"))
        self.epsilon = np.float32(c["layer_norm_epsilon"])

    def fingerprint(self):
        c, h = self.config, xxhash.xxh3_128()
        h.update(text(f"gpt2 vocab {c['vocab_size']} positions {c['n_positions']} d {c['n_embd']} layers {c['n_layer']} heads {c['n_head']} "
                      f"inner {c['n_inner'] or 4 * c['n_embd']} activation {c['activation_function']} epsilon {float(self.epsilon):.9g} "
                      f"scaled {c['scale_attn_weights']:d} inverse {c['scale_attn_by_inverse_layer_idx']:d} centered 0"))
        for name in ["wte.weight", "wpe.weight"] + [f"h.{layer}.{name}" for layer in range(c["n_layer"]) for name in TENSORS]:
            h.update(text(name))
            h.update(self.tensors[name].tobytes())
        return h.hexdigest()

    def attention(self, x, layer, linear):
        n, d = x.shape
        heads = self.config["n_head"]
        q, k, v = linear(x, "attn.c_attn").reshape(n, 3, heads, d // heads).transpose(1, 2, 0, 3)
        scores = q @ k.transpose(0, 2, 1)
        if self.config["scale_attn_weights"]:
            scores /= np.float32(np.sqrt(d // heads))
        if self.config["scale_attn_by_inverse_layer_idx"]:
            scores /= np.float32(layer + 1)
        scores[:, np.triu(np.ones((n, n), dtype=bool), 1)] = -np.inf
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return linear((weights @ v).transpose(1, 0, 2).reshape(n, d), "attn.c_proj")

    def hook_points(self, ids):
        """{name: vectors [len(ids), d_model]} of one sequence, all layers'."""
        found, t = {}, self.tensors
        x = t["wte.weight"][ids] + t["wpe.weight"][:len(ids)]
        for layer in range(self.config["n_layer"]):
            def norm(x, name):
                return layer_norm(x, t[f"h.{layer}.{name}.weight"], t[f"h.{layer}.{name}.bias"], self.epsilon)

            def linear(x, name):
                return x @ t[f"h.{layer}.{name}.weight"] + t[f"h.{layer}.{name}.bias"]

            point = {"hook_resid_pre": x, "hook_attn_out": self.attention(norm(x, "ln_1"), layer, linear)}
            point["hook_resid_mid"] = x + point["hook_attn_out"]
            point["hook_mlp_out"] = linear(gelu_new(linear(norm(point["hook_resid_mid"], "ln_2"), "mlp.c_fc")), "mlp.c_proj")
            x = point["hook_resid_post"] = point["hook_resid_mid"] + point["hook_mlp_out"]
            found |= {f"blocks.{layer}.{name}": vectors for name, vectors in point.items()}
        return found


class Gpt2:
    """The source of a Producer: see producer.Source."""

    def __init__(self, folders, tokens, lengths, sites):
        self.models = [Model(folder) for folder in folders]
        self.tokens = np.load(tokens).astype("<u4")
        self.lengths = np.load(lengths).astype("<u4") if lengths else None
        self.sites = sites

    def tokens_fingerprint(self):
        n_seq, seq_len = self.tokens.shape
        found = xxhash.xxh3_128_hexdigest(u32(n_seq, seq_len) + self.tokens.tobytes())
        if self.lengths is None:
            return found
        return xxhash.xxh3_128_hexdigest(text(found) + np.minimum(self.lengths, seq_len).tobytes())

    def hello(self):
        n_seq, seq_len = self.tokens.shape
        config = self.models[0].config
        return {"type": "HELLO", "version": 1, "software": "gpt2_producer.py", "producer": f"python-{os.getpid()}", "sites": self.sites,
                "d_model": config["n_embd"], "seq_len": seq_len, "rows_per_seq": seq_len - 1, "n_seq": n_seq,
                "vocab_size": config["vocab_size"], "tokens": self.tokens_fingerprint(), "models": [m.fingerprint() for m in self.models],
                "dtypes": ["bf16", "fp32"], "scale": None}

    def rows(self, sequence):
        ids = self.tokens[sequence]
        points = [m.hook_points(ids) for m in self.models]

        def vectors(site):  # "blocks...", "1:blocks...", "1-0:blocks..."
            model, less, name = re.fullmatch(r"(?:(\d+)(?:-(\d+))?:)?(.*)", site).groups()
            whole = points[int(model or 0)][name]
            return whole if less is None else whole - points[int(less)][name]

        positions = np.arange(1, len(ids))
        marked = ids[1:].copy()
        if self.lengths is not None:
            marked[positions >= self.lengths[sequence]] = MASKED
        x = np.stack([vectors(site)[1:] for site in self.sites], axis=1).astype(np.float32)
        return x, np.stack([np.full(len(positions), sequence), positions, marked], axis=1).astype("<u4")


def main():
    parser = argparse.ArgumentParser(description="Serves the activations of GPT-2 models to an xctrain trainer, beside actgen.")
    parser.add_argument("--connect", default="tcp://127.0.0.1:5555", help="endpoint of the trainer")
    parser.add_argument("--model", action="append", required=True, help="folder with config.json and model.safetensors")
    parser.add_argument("--tokens", required=True, help="token tensor, .npy [n_seq, seq_len]")
    parser.add_argument("--lengths", help="valid tokens of each sequence, .npy [n_seq]")
    parser.add_argument("--sites", required=True, help="names, comma-separated")
    args = parser.parse_args()
    source = Gpt2(args.model, args.tokens, args.lengths, args.sites.split(","))
    log(f"tokens {source.tokens_fingerprint()}")
    return Producer(source, args.connect).run()


if __name__ == "__main__":
    sys.exit(main())

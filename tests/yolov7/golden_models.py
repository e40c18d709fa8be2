"""The official models as goldens: counts, names of tensors, weights filled by rule, outputs."""

import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import torch

from yolov7 import build_model, load_official_state_dict

GOLDENS = Path(__file__).parent.parent / "goldens"
FACTS = json.loads((GOLDENS / "models.json").read_text())


def official_shapes(name):
    """Official tensor names and shapes of a training checkpoint, in the official order."""
    with gzip.open(GOLDENS / "official_state_dicts.json.gz") as file:
        return dict(json.load(file)[name])


def official_state_dict(name):
    """Weights that anyone can rebuild: each tensor is one draw, seeded by its own name."""
    return {key: _filled(key, shape, FACTS[name]) for key, shape in official_shapes(name).items()}


def _filled(key, shape, facts):
    draw = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little"))
    kind = key.rsplit(".", 1)[-1]
    if kind == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    if kind == "anchor_grid":
        return torch.tensor(facts["anchors_px"]).reshape(shape)
    if kind == "anchors":
        return torch.tensor(facts["anchors_px"]) / torch.tensor(facts["strides"])[:, None, None]
    if kind == "implicit":
        values = 0.02 * draw.standard_normal(shape) + (".ia." not in key)
    elif kind in ("bias", "running_mean"):
        values = 0.1 * draw.standard_normal(shape)
    elif kind == "running_var" or len(shape) == 1:
        values = 0.5 + draw.random(shape)
    else:
        values = np.sqrt(2 / np.prod(shape[1:])) * draw.standard_normal(shape)
    return torch.from_numpy(values.astype(np.float32))


def filled_model(name):
    model = build_model(name)
    load_official_state_dict(model, official_state_dict(name))
    return model.eval()


def golden_image():
    """(1, 3, 256, 320), the input of every golden output."""
    return torch.from_numpy(np.random.default_rng(0).random((1, 3, 256, 320)).astype(np.float32))


def randomize_norms(model, seed=0):
    """Give batch normalisation statistics and scales that a folding mistake would show in."""
    draw = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias.data):
                tensor.normal_(0.0, 0.1, generator=draw)
            for tensor in (module.running_var, module.weight.data):
                tensor.uniform_(0.5, 1.5, generator=draw)
    return model

"""Files as the official trainer writes them: whole modules of classes that are not installed, pickled."""

import contextlib
import sys
import types
import warnings

import torch
from torch import nn

from yolov7.checkpoints.official_names import official_names

STAND_INS = {
    "models.yolo": ("Model", "Detect", "IDetect"),
    "models.common": ("Conv", "ImplicitA", "ImplicitM"),
    "utils.torch_utils": ("ModelEMA",),
}


def fuseforward(self, x):
    """The method that fused modules have as their `forward`, an attribute of each."""
    raise AssertionError("only pickled")


@contextlib.contextmanager
def stand_in_modules():
    """Give the official module names classes of ours for as long as something is pickled."""
    packages = {name.partition(".")[0]: types.ModuleType(name.partition(".")[0]) for name in STAND_INS}
    modules = {name: types.ModuleType(name) for name in STAND_INS}
    for name, classes in STAND_INS.items():
        for class_name in classes:
            setattr(modules[name], class_name, type(class_name, (nn.Module,), {"__module__": name, "fuseforward": fuseforward}))
    assert not (packages | modules).keys() & sys.modules.keys()
    sys.modules.update(packages | modules)
    try:
        yield modules
    finally:
        for name in packages | modules:
            del sys.modules[name]


def official_module(state_dict, modules, names=None, activation=None):
    """A tree of stand-ins whose `state_dict()` is the given one."""
    root = modules["models.yolo"].Model()
    root.nc, root.yaml, root.hyp = 0, {"anchors": 3}, {"lr0": 0.01}
    root.stride = torch.tensor([8.0, 16.0, 32.0])  # an attribute, not a buffer
    if names is not None:
        root.names = names
    root.register_buffer("passing", torch.zeros(3), persistent=False)
    for key, tensor in state_dict.items():
        *path, leaf = key.split(".")
        module = root
        for depth, name in enumerate(path):
            if name not in module._modules:
                module.add_module(name, _stand_in(modules, path[: depth + 1], key, activation))
            module = module._modules[name]
        trained = tensor.is_floating_point() and not leaf.startswith(("running", "anchor"))
        if trained:
            module.register_parameter(leaf, nn.Parameter(tensor))
        else:
            module.register_buffer(leaf, tensor)
    return root


def _stand_in(modules, path, key, activation):
    if len(path) == 1:
        return nn.Sequential()
    if len(path) == 2:
        if ".conv." not in key:
            return modules["models.yolo"].IDetect()
        conv = modules["models.common"].Conv()
        conv.act = activation if activation is not None else nn.Identity()
        return conv
    if path[-1].isdigit() and path[-2] in ("ia", "im"):
        return modules["models.common"].ImplicitA()
    return nn.ModuleList() if path[-1] in ("m", "m2", "ia", "im") else nn.Module()


def save_official(path, state_dict, key="model", half=False, names=None, activation=None, legacy=False, bound=False,
                  **others):
    """Write a checkpoint with the module under `key` and everything else that official ones hold.

    `bound`: as after fusing, which gives each module a bound method.
    """
    with stand_in_modules() as modules:
        module = official_module(state_dict, modules, names, activation)
        module = module.half() if half else module
        for part in module.modules() if bound else ():
            if hasattr(part, "fuseforward"):
                part.forward = part.fuseforward
        content = {"epoch": -1, "best_fitness": None, "optimizer": None, "training_results": None, "wandb_id": None}
        with warnings.catch_warnings():  # the older format wants the source of classes, which ours have not
            warnings.simplefilter("ignore", UserWarning)
            torch.save(content | others | {key: module}, path, _use_new_zipfile_serialization=not legacy)
    return path


def as_official(model):
    """The model's tensors under their official names."""
    own = model.state_dict()
    levels, anchors, _ = model.anchors_px.shape
    state_dict = {}
    for official, key in official_names(model).items():
        if key is None:
            state_dict[official] = model.anchors_px / torch.tensor(model.strides)[:, None, None]
        else:
            state_dict[official] = own[key].reshape(levels, 1, anchors, 1, 1, 2) if key == "anchors_px" else own[key]
    return state_dict

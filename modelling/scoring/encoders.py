"""ECG and image encoders, run on items rather than samples: each is encoded once, in batches of one shape.

On a CPU they compute in float32 in batches of a fixed size, filled up with zeros: with one shape there is one
order of sums, so an item's embedding does not depend on its neighbours (measured equal bit for bit, and held
by a test), at a third of the time that float64 takes. On a GPU they compute in bfloat16, channels last,
compiled for that one shape.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn

from modelling.batches import Encoding, Modality
from modelling.batches.arrays import ItemReader
from modelling.models import RiskModel
from modelling.scoring.embeddings import EmbeddingStore

log = logging.getLogger(__name__)

ENCODED = {Modality.ECG: "signal", Modality.CXR: "picture"}
"""Modalities whose items are encoded one by one, and the encoder's name in every network."""
BATCH = {
    "cpu": {Modality.ECG: 8, Modality.CXR: 4},
    "cuda": {Modality.ECG: 512, Modality.CXR: 128},
}


def out_of_memory(error: BaseException) -> bool:
    """Tell whether a smaller batch could help."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)


def release_memory(device: str) -> None:
    """Give what the caching allocator holds back to the device."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def encoder_digest(encoder: nn.Module, *, preparation: Any, arithmetic: str) -> str:
    """Return a digest of all that an embedding depends on but its input."""
    digest = sha256(json.dumps([asdict(preparation), arithmetic, torch.__version__]).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


@dataclass(kw_only=True)
class Encoders:
    """The encoders of a network, on their device.

    Attributes
    ----------
    network
        A copy of its own, float32, in evaluation mode.
    digests
        :func:`encoder_digest` of each modality that the network encodes.
    batch
        Items a batch; halved when the device runs out of memory.
    """

    network: RiskModel
    device: str
    digests: Mapping[Modality, str]
    batch: dict[Modality, int]
    compiled: bool = False
    _ready: dict[Modality, Callable[[Tensor], Tensor]] = field(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        """Whether they compute on a GPU."""
        return self.device.startswith("cuda")

    def _function(self, modality: Modality) -> Callable[[Tensor], Tensor]:
        if modality not in self._ready:
            network = self.network
            function = network.embed_signals if modality is Modality.ECG else network.embed_images
            self._ready[modality] = torch.compile(function, dynamic=False) if self.compiled else function
        return self._ready[modality]

    def _run(self, items: Tensor, modality: Modality) -> Tensor:
        if self.on_gpu:
            items = items.pin_memory().to(self.device, non_blocking=True)
            if items.ndim == 4:
                items = items.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cuda", torch.bfloat16, enabled=self.on_gpu):
            return self._function(modality)(items).float().cpu()

    def encode(self, items: Tensor, modality: Modality) -> Tensor:
        """Map windows ``[k, 12, length]`` or squares ``[k, size, size]`` to embeddings ``[k, d]``, float32."""
        items = items.unsqueeze(1) if modality is Modality.CXR else items
        parts: list[Tensor] = []
        start = 0
        while start < len(items):
            size = self.batch[modality]
            part = items[start : start + size]
            filled = torch.cat([part, part.new_zeros(size - len(part), *part.shape[1:])])
            try:
                parts.append(self._run(filled, modality)[: len(part)])
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or size == 1:
                    raise
                release_memory(self.device)
                self.batch[modality] = size // 2
                log.warning("out of memory: %s batches are halved to %d", modality, size // 2)
                continue
            start += size
        return torch.cat(parts)

    def reader(self, read: ItemReader, modality: Modality, store: EmbeddingStore) -> ItemReader:
        """Return a reader of embeddings, of which only those that the store lacks are computed.

        Parameters
        ----------
        read
            Prepares arrays, in threads that run ahead of the encoder.
        """

        def embedded(rows: Sequence[dict[str, Any]]) -> Iterator[Tensor | Exception]:
            keys = [item_key(row) for row in rows]
            known: dict[str, Tensor | Exception] = dict(store.get(self.digests[modality], set(keys)))
            fresh = {key: row for key, row in zip(keys, rows, strict=True) if key not in known}
            known |= self._fresh(fresh, read, modality, store)
            return (known[key] for key in keys)

        return embedded

    def _fresh(
        self, rows: Mapping[str, dict[str, Any]], read: ItemReader, modality: Modality, store: EmbeddingStore
    ) -> dict[str, Tensor | Exception]:
        result: dict[str, Tensor | Exception] = {}
        waiting: dict[str, Tensor] = {}

        def encode() -> None:
            if waiting:
                vectors = self.encode(torch.stack(list(waiting.values())), modality)
                result.update(zip(waiting, vectors, strict=True))
                waiting.clear()

        for key, outcome in zip(rows, read(list(rows.values())), strict=True):
            if isinstance(outcome, Tensor):
                waiting[key] = outcome
            else:
                result[key] = outcome
            if len(waiting) == self.batch[modality]:
                encode()
        encode()
        store.put(
            self.digests[modality], {key: item for key, item in result.items() if isinstance(item, Tensor)}
        )
        return result


def item_key(row: Mapping[str, Any]) -> str:
    """Return what an item's embedding depends on: the digest of its array, and how its rows are read."""
    about = [row["array_sha256"], row.get("leads"), row.get("sampling_rate")]
    return sha256(json.dumps(about).encode()).hexdigest()


def build_encoders(network: RiskModel, encoding: Encoding, *, device: str) -> Encoders | None:
    """Return the encoders of a float32 network on a CPU, or None if it has none."""
    settings = {Modality.ECG: encoding.settings.signal, Modality.CXR: encoding.settings.image}
    used = {
        modality: getattr(network, name)
        for modality, name in ENCODED.items()
        if modality in network.modalities and hasattr(network, name)
    }
    if not used:
        return None
    kind = "cuda" if device.startswith("cuda") else "cpu"
    arithmetic = f"{kind} {'bfloat16' if kind == 'cuda' else 'float32'}"
    own = copy.deepcopy(network).to(device).eval()
    if kind == "cuda" and Modality.CXR in used:
        own.get_submodule(ENCODED[Modality.CXR]).to(memory_format=torch.channels_last)
    return Encoders(
        network=own,
        device=device,
        digests={
            modality: encoder_digest(encoder, preparation=settings[modality], arithmetic=arithmetic)
            for modality, encoder in used.items()
        },
        batch=dict(BATCH[kind]),
        compiled=kind == "cuda",
    )

"""Checkpoints: a folder per round, complete or not there at all.

    checkpoints/round-000015/model.safetensors       the model, every tensor by its name (narrow floats as float32)
                             strategies.safetensors  the state of each stateful hub, "world/us:velocity"
                             sites.safetensors       what each site keeps, "world/us/cleveland:control", if any do
                             members/                a file for each of the root's members, if each keeps a model
                             held.safetensors        late updates that count in the next round, if there are any
                             best.safetensors        the best model so far, where the run stops early by a metric
                             under_way/              what hubs were told whose rounds are under way, if any are
                             checkpoint.json         rounds done, epoch, seed, digests, standardisation, stopping, hubs

A checkpoint is written under another name, flushed to disk and renamed; the newest that has the digests that it names
counts (of `under_way`, each record has a checksum of its own, and the run goes on without it; nothing that is to come
needs the best model). It says which process wrote it, by the number that this one has claimed: one that was taken for
dead and comes back puts nothing in the place of a later one's, and what it added after it had lost the run does not
count.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from hierfl import durable
from hierfl.best import BEST, link
from hierfl.commits import FOLDER, complete, put_in_place
from hierfl.errors import OutputError
from hierfl.learning.blocks import threads
from hierfl.learning.ring import PartialSum
from hierfl.learning.state import Layout, ModelState, TensorSpec
from hierfl.learning.stopping import Progress
from hierfl.members import check as check_member
from hierfl.runtime.jobs import Memory
from hierfl.tensor_file import BFLOAT16, content
from tiers.messages import Opening, Share, Shortfall, Update
from tiers.standing import Losses, Standing

__all__ = [
    "NO_MODEL",
    "UNDER_WAY",
    "Checkpoint",
    "Known",
    "known",
    "latest",
    "load",
    "newest",
    "save",
    "save_model",
]

MODEL = "model.safetensors"
HELD = "held.safetensors"
SITES = "sites.safetensors"
MEMBERS = "members"
UNDER_WAY = "under_way"
FORMAT = 1

Arrays = Mapping[str, NDArray[Any]]

NO_MODEL = ModelState(np.zeros(0, np.float32), np.zeros(0, np.int64))
"""Stands in a checkpoint whose vectors are still elsewhere."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs to go on: `rounds_done` rounds are in `model`.

    `hubs`: what hubs remember beside their strategies' states, with the payloads of the updates that they hold; who was
    at work is not written, since that work ends with the process. `wall_s`: seconds that the run has taken so far.
    `sites`: what sites keep, by path; `members`: files with the models that the root's members keep, by path. `writer`:
    the number of the process that wrote it, 0 where nobody counts. `elsewhere`: where the model lies if not here, with
    its digest, and which states do: with members in other institutions, that keep them. `under_way`: the folder with
    what hubs were told in rounds that are under way, where there are such. `best`: the file of the best model so far.
    `distances`: how far from each other the models of hubs' members were last, by path, where each keeps its own.
    `goal`: what the run was to stop by.
    """

    rounds_done: int
    epoch: int
    seed: int
    layout: Layout
    model: ModelState
    states: Mapping[str, Arrays] = field(default_factory=dict)
    scale: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    progress: Progress = field(default_factory=Progress)
    hubs: Mapping[str, tuple[Memory, tuple[PartialSum, ...]]] = field(default_factory=dict)
    wall_s: float = 0.0
    sites: Mapping[str, Arrays] = field(default_factory=dict)
    members: Mapping[str, Path] = field(default_factory=dict)
    writer: int = 0
    elsewhere: Mapping[str, Any] = field(default_factory=dict)
    under_way: Path | None = None
    best: Path | None = None
    distances: Mapping[str, float] = field(default_factory=dict)
    goal: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Known:
    """What a checkpoint says of itself, without its vectors."""

    rounds_done: int
    model_digest: str
    wall_s: float


def save(
    run_dir: Path,
    checkpoint: Checkpoint,
    keep: int,
    members: Path | None = None,
    fence: Callable[[], None] | None = None,
    carry: Callable[[Path], None] | None = None,
) -> Path:
    """Write a checkpoint, atomically, and drop all but the newest `keep`. Errors: OutputError (disk full, ...); Fenced.

    `members`: the folder in which members have written their own models, which becomes the checkpoint's. `fence`: asked
    before anything is dropped, raises Fenced where another process leads the run. `carry`: writes what is under way in
    a folder.
    """
    final = run_dir / FOLDER / f"round-{checkpoint.rounds_done:06d}"
    partial = final.with_name(f".{final.name}.{checkpoint.writer}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write(partial, checkpoint)
        if checkpoint.best is not None:
            link(checkpoint.best, partial / BEST)
        if members is not None and members.exists():
            members.rename(partial / MEMBERS)
            durable.flush(partial / MEMBERS)
        if carry is not None:
            carry(partial / UNDER_WAY)
        durable.flush(partial)
        put_in_place(partial, final, checkpoint.writer)
        durable.flush(final.parent)
        outdated = complete(run_dir)[:-keep]
        if fence is not None:
            fence()
        for old in outdated:
            shutil.rmtree(old)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if fence is not None:
            fence()  # a successor may have cleared it away
        raise OutputError(
            f"checkpoint {final} cannot be written: {error.strerror or error}; earlier checkpoints are kept,"
            f" `hierfl resume {run_dir}` goes on from the newest once there is room"
        ) from error
    return final


def latest(run_dir: Path) -> Path | None:
    """Find the newest complete checkpoint."""
    whole = complete(run_dir)
    return whole[-1] if whole else None


def newest(run_dir: Path) -> tuple[Checkpoint | None, list[str]]:
    """Read the newest checkpoint that is whole; None where there is none. Also say which could not be read, and why.

    Errors: OutputError if there are checkpoints and none can be read.
    """
    reasons: list[str] = []
    for folder in reversed(complete(run_dir)):
        try:
            return load(folder), [f"{reason}; {folder} is used in its place" for reason in reasons]
        except OutputError as error:
            reasons.append(str(error))
    if reasons:
        raise OutputError("; ".join([*reasons, "no checkpoint is left to go on from: start the run anew"]))
    return None, []


def known(run_dir: Path) -> Known | None:
    """Tell of the newest checkpoint whose header can be read."""
    for folder in reversed(complete(run_dir)):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            said = json.loads((folder / "checkpoint.json").read_text(encoding="utf-8"))
            return Known(said["rounds_done"], said["model_digest"], said.get("wall_s", 0.0))
    return None


def load(folder: Path) -> Checkpoint:
    """Read a checkpoint, holding all that is in it against its digests. Errors: OutputError."""
    try:
        said = json.loads((folder / "checkpoint.json").read_text(encoding="utf-8"))
        for name, digest in said.get("files", {}).items():
            with (folder / name).open("rb") as file:
                _same(folder / name, hashlib.file_digest(file, "sha256").hexdigest(), digest)
        found = _read(folder, said)
        if not found.elsewhere:
            _same(folder / MODEL, found.model.digest(found.layout), said["model_digest"])
        for file in found.members.values():
            check_member(file)
    except OutputError as error:
        raise OutputError(f"checkpoint {folder} is corrupt: {error}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"checkpoint {folder} cannot be read: {error}") from error
    except Exception as error:
        raise OutputError(f"checkpoint {folder} is corrupt: {error}") from error
    return found


def _same(file: Path, found: str, expected: str) -> None:
    """Errors: OutputError for a file of another digest than its checkpoint names."""
    if found != expected:
        raise OutputError(f"what {file} holds has the digest {found}, and was written with {expected}")


def save_model(
    path: Path, layout: Layout, model: ModelState, about: Mapping[str, str] | None = None, *, is_private: bool = False
) -> None:
    """Write a model in its own dtypes, every name that it had, for `safetensors` or torch; `about`: what the file says
    of it; `is_private`: only its owner may read it. Errors: OutputError.
    """
    tensors = {spec.name: _narrowed(spec, values) for spec, values in model.tensors(layout)}
    types = {spec.name: BFLOAT16 for spec in layout.tensors if spec.dtype == "bfloat16"}
    for alias, name in layout.aliases:
        tensors[alias] = tensors[name]
        types |= {alias: BFLOAT16} if name in types else {}
    try:
        durable.place(path, content(tensors, {"format": "pt", **(about or {})}, types), 0o600 if is_private else None)
    except OSError as error:
        raise OutputError(f"the model cannot be written to {path}: {error.strerror or error}") from error


def _read(folder: Path, said: Mapping[str, Any]) -> Checkpoint:
    """Read a checkpoint. `said`: by its checkpoint.json."""
    from safetensors.numpy import load_file

    elsewhere = said.get("elsewhere", {})
    flat = load_file(folder / "strategies.safetensors")
    layout = _layout(said["layout"])
    model = NO_MODEL if elsewhere else _assemble(layout, load_file(folder / MODEL))
    held, kept = (load_file(folder / name) if (folder / name).exists() else {} for name in (HELD, SITES))
    own = {unquote(file.stem): file.resolve() for file in sorted((folder / MEMBERS).glob("*.safetensors"))}
    hubs = {hub: _memory(hub, remembered, held) for hub, remembered in said.get("hubs", {}).items()}
    scale = said["scale"] and (_floats(said["scale"]["mean"]), _floats(said["scale"]["std"]))
    return Checkpoint(
        *(said["rounds_done"], said["epoch"], said["seed"], layout, model, _by_node(flat), scale),
        *(Progress(**said["progress"]), hubs, said.get("wall_s", 0.0), _by_node(kept), own, said.get("writer", 0)),
        elsewhere=elsewhere,
        under_way=folder / UNDER_WAY if (folder / UNDER_WAY).exists() else None,
        best=folder / BEST if (folder / BEST).exists() else None,
        distances=said.get("distances", {}),
        goal=said.get("goal", {}),
    )


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    """Write and flush the files; what they hold is hashed meanwhile."""
    layout, model = checkpoint.layout, checkpoint.model
    elsewhere = dict(checkpoint.elsewhere)
    tensors = {} if elsewhere else {spec.name: values for spec, values in model.tensors(layout)}
    held = {
        f"{hub}:{number}:{part}": vector
        for hub, (_, payloads) in checkpoint.hubs.items()
        for number, payload in enumerate(payloads)
        for part, vector in (("floats", payload.floats), ("ints", payload.ints))
    }
    contents = {
        **({} if elsewhere else {MODEL: content(tensors)}),
        "strategies.safetensors": content(_flat(checkpoint.states)),
        **({SITES: content(_flat(checkpoint.sites))} if checkpoint.sites else {}),
        **({HELD: content(held)} if held else {}),
    }
    of_model = threads().submit(model.digest, layout)
    of_files = {name: threads().submit(_sha256, pieces) for name, pieces in contents.items() if name != MODEL}
    for name, pieces in contents.items():
        durable.write(folder / name, pieces)
    scale = checkpoint.scale
    said = {
        "format": FORMAT,
        "rounds_done": checkpoint.rounds_done,
        "epoch": checkpoint.epoch,
        "seed": checkpoint.seed,
        "model_digest": elsewhere["model_digest"] if elsewhere else of_model.result(),
        **({"elsewhere": elsewhere} if elsewhere else {}),
        "layout": asdict(layout),
        "scale": scale and {"mean": [x.hex() for x in scale[0].tolist()], "std": [x.hex() for x in scale[1].tolist()]},
        "progress": asdict(checkpoint.progress),
        "goal": dict(checkpoint.goal),
        "wall_s": checkpoint.wall_s,
        "writer": checkpoint.writer,
        **({"distances": dict(checkpoint.distances)} if checkpoint.distances else {}),
        "hubs": {hub: _written(memory) for hub, (memory, _) in checkpoint.hubs.items()},
        "files": {name: digest.result() for name, digest in of_files.items()},
    }
    durable.write(folder / "checkpoint.json", [json.dumps(said, indent=1).encode()])


def _sha256(pieces: Iterable[bytes | memoryview]) -> str:
    """Give the digest of a file of these pieces."""
    found = hashlib.sha256()
    for piece in pieces:
        found.update(piece)
    return found.hexdigest()


def _flat(states: Mapping[str, Arrays]) -> dict[str, NDArray[Any]]:
    """Name vectors by node and name."""
    return {f"{node}:{name}": vector for node, state in states.items() for name, vector in state.items()}


def _by_node(flat: Arrays) -> dict[str, dict[str, NDArray[Any]]]:
    """Sort such vectors by node."""
    states: dict[str, dict[str, NDArray[Any]]] = {}
    for key, vector in flat.items():
        node, _, name = key.rpartition(":")
        states.setdefault(node, {})[name] = vector
    return states


def _written(memory: Memory) -> dict[str, Any]:
    """Write what a hub remembers, without who is at work."""
    standing = memory.standing.without_errands()
    return {
        "round_number": standing.round_number,
        "losses": {name: asdict(lost) for name, lost in standing.losses.items()},
        "held": [asdict(update) for update in standing.held],
        "shortfalls": {name: [asdict(one) for one in found] for name, found in standing.shortfalls.items()},
        "openings": [asdict(memory.openings[number]) for number in sorted({u.round_number for u in standing.held})],
    }


def _memory(hub: str, said: Mapping[str, Any], held: Arrays) -> tuple[Memory, tuple[PartialSum, ...]]:
    """Read what a hub remembers, and the payloads of the updates that it holds."""
    updates = tuple(
        Update(one["hub"], one["round_number"], tuple(Share(**share) for share in one["shares"]), one["num_bytes"])
        for one in said["held"]
    )
    losses = {name: Losses(**lost) for name, lost in said["losses"].items()}
    openings = {one["round_number"]: Opening(**one) for one in said["openings"]}
    payloads = (
        PartialSum(held[f"{hub}:{number}:floats"], held[f"{hub}:{number}:ints"], update.shares[0].weight)
        for number, update in enumerate(updates)
    )
    short = {name: tuple(Shortfall(**one) for one in found) for name, found in said.get("shortfalls", {}).items()}
    return Memory(Standing(said["round_number"], {}, losses, updates, short), openings), tuple(payloads)


def _layout(said: Mapping[str, Any]) -> Layout:
    """Read a layout."""
    specs = (TensorSpec(t["name"], tuple(t["shape"]), t["dtype"], t["offset"]) for t in said["tensors"])
    aliases = tuple((alias, name) for alias, name in said["aliases"])
    return Layout(tuple(specs), aliases, tuple(said.get("buffers", ())), said.get("base", ""))


def _assemble(layout: Layout, tensors: Arrays) -> ModelState:
    """Lay named tensors out in the two vectors."""
    floats = np.zeros(layout.num_floats, layout.float_dtype)
    ints = np.zeros(layout.num_ints, np.int64)
    for spec in layout.tensors:
        target = floats if spec.is_float else ints
        target[spec.offset : spec.offset + spec.size] = tensors[spec.name].reshape(-1)
    return ModelState(floats, ints)


def _narrowed(spec: TensorSpec, values: NDArray[Any]) -> NDArray[Any]:
    """Give a tensor in its own dtype; one of bfloat16, which NumPy does not have and torch rounds to, as its bits."""
    if spec.dtype != "bfloat16":
        return np.asarray(values, dtype=np.dtype(spec.dtype), order="C")
    import torch

    bits: NDArray[Any] = torch.tensor(values, dtype=torch.bfloat16).view(torch.int16).numpy()
    return bits


def _floats(words: list[str]) -> NDArray[np.float64]:
    """Read exact float64 numbers."""
    return np.array([float.fromhex(word) for word in words])

"""A trained model on records that are no site's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierfl.errors import OutputError
from hierfl.learning.task import Applies, Task, offers

__all__ = ["applied"]

_BATCH = 8192


def applied(
    task: Task, file: Path, x: NDArray[np.floating], scale: tuple[NDArray[np.float64], NDArray[np.float64]] | None
) -> dict[str, NDArray[Any]]:
    """Predict records (n, d) by the weights in a file; columns by name, (n,) each. `scale`: mean and deviation of the
    federation's features, where these are scaled: in float64, rounded once, as in training.

    Errors: OutputError where the file does not hold the task's model.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from hierfl.learning.beside import made

    assert offers(task, Applies)
    model = made(task.model)
    try:
        model.load_state_dict(load_file(file))
    except (RuntimeError, SafetensorError) as error:
        raise OutputError(f"{file} does not hold the model of this task: {str(error).splitlines()[0]}") from error
    model.eval()
    scaled = torch.from_numpy(x if scale is None else (x.astype(np.float64) - scale[0]) / scale[1]).float()
    with torch.no_grad():
        parts = [task.apply(model, batch) for batch in torch.split(scaled, _BATCH)]
    names = parts[0].keys() if parts else ()
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in names}

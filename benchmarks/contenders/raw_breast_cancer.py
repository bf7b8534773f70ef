"""Breast cancer on four sites as a loop in one process: the data, model, steps and measurements of hierfl's run."""

from __future__ import annotations

import sys

import torch
from torch.utils.data import TensorDataset

from hierfl.tasks.breast_cancer import BreastCancer

LR = 0.1
BATCH = 32


def main() -> None:
    task = BreastCancer()
    data = [task.data(site) for site in task.sites()]
    train = [_tensors(site.train) for site in data]
    test = [_tensors(site.test) for site in data]
    pooled = torch.cat([x for x, *_ in train])
    mean, deviation = pooled.mean(0), pooled.std(0)
    train = [((x - mean) / deviation, *rest) for x, *rest in train]
    test = [((x - mean) / deviation, *rest) for x, *rest in test]
    torch.manual_seed(0)
    model, local = task.model(), task.model()
    for number in range(int(sys.argv[1])):
        sums = [torch.zeros_like(parameter) for parameter in model.parameters()]
        for batch in train:
            local.load_state_dict(model.state_dict())
            _epoch(task, local, batch)
            for total, parameter in zip(sums, local.parameters(), strict=True):
                total.add_(parameter.detach(), alpha=len(batch[0]))
        with torch.no_grad():
            for total, parameter in zip(sums, model.parameters(), strict=True):
                parameter.copy_(total / len(pooled))
            correct = sum(
                float(((prediction.scores > 0.5) == prediction.labels).sum())
                for prediction in (task.predict(model, batch) for batch in test)
            )
        print(f"round {number + 1}: accuracy {correct / sum(len(x) for x, *_ in test):.4f}")


def _epoch(task: BreastCancer, local: torch.nn.Module, batch: tuple[torch.Tensor, ...]) -> None:
    """Pass once over a site's samples, in a random order."""
    optimizer = torch.optim.SGD(local.parameters(), lr=LR)
    for chosen in torch.split(torch.randperm(len(batch[0])), BATCH):
        optimizer.zero_grad()
        task.loss(local, tuple(tensor[chosen] for tensor in batch)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _tensors(dataset: object) -> tuple[torch.Tensor, ...]:
    assert isinstance(dataset, TensorDataset)
    return dataset.tensors


if __name__ == "__main__":
    main()

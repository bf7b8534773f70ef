import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from hierfl import kinds
from hierfl.config.load import load
from hierfl.config.schema import Evaluation, Training
from hierfl.errors import DataError
from hierfl.learning import measuring, training
from hierfl.learning.flat import FlatModel
from hierfl.learning.standardise import by_itself
from hierfl.learning.task import Standardised, Task

PAGE = (Path(__file__).parents[3] / "docs" / "tasks.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "my_task.py").write_text(blocks("python")[0], encoding="utf-8")
    (tmp_path / "wards.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    random = np.random.default_rng(0)
    for name in ("wards/aalborg", "wards/bergen", "old_wards/porto"):
        x = random.normal(size=(80, 4))
        file = tmp_path / f"{name}.csv"
        file.parent.mkdir(exist_ok=True)
        np.savetxt(file, np.column_stack([x, x[:, 0] + x[:, 1] > 0]), delimiter=",")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("my_task", None)


def test_the_own_task_is_short_and_learns(folder):
    assert len((folder / "my_task.py").read_text().splitlines()) <= 50
    task = kinds.load("task", "my_task:Readmission")()
    assert isinstance(task, Task)
    assert isinstance(task, Standardised)
    data, cpu = by_itself(task.data("aalborg")), torch.device("cpu")
    torch.manual_seed(0)
    model = task.model()
    settings = Training(optimizer="adam", lr=0.05, batch_size=16, local_epochs=30)
    training.train(FlatModel(model), task, data.train, settings, 0)
    measured = measuring.measure(model, task, data.test, Evaluation(), cpu).scalars()
    assert measured["num_test"] == 20
    assert measured["accuracy"] > 0.8
    with pytest.raises(DataError, match="site 'nowhere'"):
        task.data("nowhere")


def test_it_can_start_from_an_earlier_model(folder):
    [continued] = [block for block in blocks("python") if "start: str" in block]
    source = (folder / "my_task.py").read_text()
    (folder / "my_task.py").write_text(f"{source}\n\nfrom safetensors.torch import load_file\n\n{continued}")
    made = kinds.load("task", "my_task:Continued")
    earlier = made().model()
    save_file(earlier.state_dict(), "earlier.safetensors")
    again = made(start="earlier.safetensors").model().state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in earlier.state_dict().items())


@pytest.mark.parametrize("patient", [None, "pid"])
def test_tables_draw_a_rare_class_more_often(folder, patient):
    [balanced] = [block for block in blocks("python") if "class Balanced" in block]
    source = (folder / "my_task.py").read_text()
    (folder / "my_task.py").write_text(f"{source}\n\nfrom hierfl.tasks.parquet import Parquet\n\n{balanced}")
    lines = [f"{n},p{n // 3},{int(n % 10 == 0)}" for n in range(60)]
    (folder / "rare.csv").write_text("\n".join(["x,pid,died", *lines]))
    task = kinds.load("task", "my_task:Balanced")(features=["x"], label="died", patient=patient)
    train = task.data("aalborg", path="rare.csv").train
    weights, died = task.sample_weights(train), torch.tensor([label for *_, label in train]).bool()
    assert weights[died].sum() == pytest.approx(1.0)
    assert weights[~died].sum() == pytest.approx(1.0)


def test_its_yaml_is_valid(folder):
    config = load("wards.yaml")
    assert config.task.hidden == 16
    assert dict(config.sites["world/porto"].source) == {"folder": "old_wards"}


def test_every_task_is_described():
    assert all(re.search(rf"^### .*\b{name}\b", PAGE, flags=re.MULTILINE) for name in kinds.names("task"))


def test_the_other_snippets_name_real_fields():
    for block in blocks("yaml")[1:]:
        section = OmegaConf.to_container(OmegaConf.create(block).task)
        kinds.load("task", section.pop("kind"))(**section)

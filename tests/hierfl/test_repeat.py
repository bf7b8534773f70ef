"""Federations on several seeds: which seeds, what is put together, and FLamby's protocol as it comes along."""

from __future__ import annotations

import json
import re
import shlex
import statistics
from pathlib import Path
from typing import Any

import pytest
from small_runs import config_of, hub
from typer.testing import CliRunner

from hierfl.cli import app
from hierfl.config.load import load
from hierfl.errors import ConfigError
from hierfl.leave_out import EACH, without
from hierfl.lifecycle import run
from hierfl.repeat import repeat, seeds_of, tables, with_seeds

ROOT = Path(__file__).parents[2]
FLAMBY = sorted((ROOT / "configs" / "flamby_heart").glob("*.yaml"))


def written(folder: Path, name: str, **top: Any) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(config_of(folder / "runs", hub("world", "a", "b"), name="wards", **top).resolved))
    return path


@pytest.mark.parametrize(("word", "seeds"), [("0..2", (0, 1, 2)), ("7", (7,)), ("3,1", (3, 1)), ("4..4", (4,))])
def test_seeds_are_read(word: str, seeds: tuple[int, ...]) -> None:
    assert seeds_of(word) == seeds


@pytest.mark.parametrize("word", ["", "a", "2..1", "1,1", "-1", "0..1000", "0...2", "1, 2"])
def test_other_words_are_no_seeds(word: str) -> None:
    with pytest.raises(ConfigError, match=r"both ends count"):
        seeds_of(word)


@pytest.mark.parametrize("name", ['the "wards"', "C:\\wards", "costs ${much}", "名" * 66, "w" * 200])
def test_runs_of_several_seeds_and_without_a_site_bear_any_name(tmp_path: Path, name: str) -> None:
    """What is in a YAML's quotes stands otherwise there, and paths of hospitals are longer than a folder's name."""
    site = f"{name[:60]}-last"
    said, last = name.replace("${", "\\${"), site.replace("${", "\\${")
    tree = hub("world", hub(said, said, last), "b")
    (path := tmp_path / "named.yaml").write_text(json.dumps(config_of(tmp_path, tree, name=said).resolved))
    ((_, configs),) = with_seeds([path], [], (3, 12)).items()
    _, others = without(path, [], EACH)
    ends = [config.name for config in (*configs, others[f"world/{name}/{site}"])]
    assert [end[:30] for end in ends] == [name[:30] if len(name) > 30 else end[:30] for end in ends]
    assert ends[0].endswith("-seed-3") and ends[1].endswith("-seed-12") and ends[2].endswith(site[-30:])
    assert max(len(end.encode()) for end in ends) <= 200
    if len(name) < 30:
        assert ends[:2] == [f"{name}-seed-3", f"{name}-seed-12"]
        assert ends[2] == f"{name}-without-{name}-{site}"


def test_each_seed_is_a_run_and_the_figures_are_put_together(tmp_path: Path) -> None:
    configs = with_seeds([written(tmp_path, "one")], ["federation.rounds=1"], (3, 5))
    summaries: list[Any] = []

    def one(config: Any) -> Any:
        summaries.append(run(config))
        return summaries[-1]

    answer = repeat(configs, one)
    assert answer["seeds"] == [3, 5]
    names = [Path(found).name for found in answer["configs"]["wards"]["run_dirs"]]
    assert [name[: len("wards-seed-3-")] for name in names] == ["wards-seed-3-", "wards-seed-5-"]
    losses = [summary["nodes"]["world/a"]["loss"] for summary in summaries]
    assert losses[0] != losses[1]
    found = answer["configs"]["wards"]["nodes"]["world/a"]["loss"]
    assert found == {"mean": statistics.fmean(losses), "std": statistics.stdev(losses), "values": losses}
    ((title, rows),) = tables(answer).items()
    assert title == "wards, mean and deviation over 2 seeds"
    assert rows["world/a"]["loss"] == f"{found['mean']:.3f} +/- {found['std']:.3f}"


def test_what_is_undefined_counts_in_no_mean_and_one_seed_has_no_deviation() -> None:
    def ended(auc: float | None) -> dict[str, Any]:
        return {"nodes": {"world": {"accuracy": 0.5, "auc": auc}}, "run_dir": "runs/x"}

    ends = iter([ended(None), ended(0.75)])
    configs: Any = {"wards": [config_of(Path("runs"), hub("world", "a"), seed=seed) for seed in (0, 1)]}
    answer = repeat(configs, lambda config: next(ends))
    node = answer["configs"]["wards"]["nodes"]["world"]
    assert node["auc"] == {"mean": 0.75, "std": None, "values": [None, 0.75]}
    assert next(iter(tables(answer).values())) == {"world": {"accuracy": "0.500 +/- 0.000", "AUC": "0.750"}}


def test_metrics_of_a_tasks_own_are_put_together_as_well_and_what_nobody_has_makes_no_table() -> None:
    ends = iter(
        {"nodes": {"world": {"loss": 2.0 * error, "days": error, "role": "evaluation"}}, "run_dir": "runs/x"}
        for error in (1.0, 2.0, 3.0, 5.0)
    )
    seeds = [config_of(Path("runs"), hub("world", "a"), seed=seed) for seed in (0, 1)]
    both: Any = repeat({"one": seeds, "two": seeds}, lambda config: next(ends))
    alone = {**both, "configs": {"one": both["configs"]["one"]}}
    assert next(iter(tables(alone).values())) == {"world": {"loss": "3.000 +/- 1.414", "days": "1.500 +/- 0.707"}}
    assert [title.partition(",")[0] for title in tables(both)] == ["loss", "days"]
    assert tables(both)["days, mean and deviation over 2 seeds"]["two"] == {"world": "4.000 +/- 1.414"}


def test_several_configurations_are_compared_metric_by_metric_on_the_command_line(tmp_path: Path) -> None:
    paths = [written(tmp_path, "one"), written(tmp_path, "two", baseline="local")]
    words = ["run", *map(str, paths), "--seeds", "0,1", "federation.rounds=1"]
    told = CliRunner().invoke(app, [*words, "--plain"])
    assert told.exit_code == 0, told.output
    assert re.search(r"^accuracy, mean and deviation over 2 seeds$", told.stdout, flags=re.MULTILINE)
    assert re.search(r"^wards 2 +\d\.\d{3} \+/- \d\.\d{3}", told.stdout, flags=re.MULTILINE)
    answer = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert list(answer["configs"]) == ["wards", "wards 2"]
    assert len(answer["configs"]["wards 2"]["on_all_data"]["accuracy"]["values"]) == 2


def test_mistakes_of_all_files_are_told_before_anything_runs(tmp_path: Path) -> None:
    paths = [written(tmp_path, name) for name in ("one", "two")]
    with pytest.raises(ConfigError) as told:
        with_seeds(paths, ["federation.rounds=0"], (0, 1))
    assert [problem.path for problem in told.value.problems] == [f"{path}: federation.rounds" for path in paths]
    with pytest.raises(ConfigError, match="keep one"):
        with_seeds(paths, ["seed=3"], (0, 1))
    refused = CliRunner().invoke(app, ["run", str(paths[0]), "--seeds", "0..1", "--leave-out", "each"])
    assert refused.exit_code == 2
    assert "give --leave-out once for each seed (seed=1 ...)" in " ".join(refused.stderr.split())
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("path", FLAMBY, ids=lambda path: path.stem)
def test_flamby_protocol_runs_cut_down_and_its_header_is_valid(path: Path, tmp_path: Path) -> None:
    header = re.findall(r"^#   hierfl run (.*)$", path.read_text(), flags=re.MULTILINE)
    assert [shlex.split(line, comments=True) for line in header] == [
        [f"configs/flamby_heart/{path.name}", "--seeds", "0..4"],
        ["configs/flamby_heart/*.yaml", "--seeds", "0..4"],
    ]
    config = load(path)
    assert len(config.federation.sites) == (5 if path.stem == "pooled" else 4)
    summary = run(load(path, ["federation.rounds=2", "evaluation.every=2", f"output.dir={tmp_path}"]))
    assert summary["nodes"]["world"]["num_test"] == 254
    assert summary["nodes"]["world"]["accuracy"] > 0.5


def test_the_page_has_the_nine() -> None:
    page = (ROOT / "docs" / "federations.md").read_text(encoding="utf-8").partition("## FLamby's protocol")[2]
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE)) == [path.stem for path in FLAMBY]

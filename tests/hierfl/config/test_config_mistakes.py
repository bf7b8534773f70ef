"""Every mistake: its place, and a message that helps."""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from hierfl.config import check, from_mapping, load
from hierfl.errors import ConfigError

SOUND = """
name: heart
task: {kind: heart_disease}
training: {lr: 0.01, local_steps: 10}
federation:
  name: world
  rounds: 3
  strategy: {kind: fedavgm, momentum: 0.5}
  members:
    - name: us
      training: {lr: 0.02}
      members: [{name: cleveland}, {name: long_beach, training: {lr: 0.03}}]
    - {name: hungary, members: [{name: budapest}]}
runtime: {kind: local}
"""

US = "federation.members.us"
CLEVELAND = US + ".members.cleveland"

# An override of SOUND that is a mistake, the place that is reported, and words of the message.
MISTAKES = [
    # unknown keys
    ("trainig.lr=1", "trainig", "unknown key (did you mean 'training'?"),
    ("training.lrr=1", "training.lrr", "did you mean 'lr'?"),
    (f"{US}.round=2", f"{US}.round", "did you mean 'rounds'?"),
    (f"{CLEVELAND}.wight=2", f"{CLEVELAND}.wight", "did you mean 'weight'?"),
    (f"{CLEVELAND}.rounds=2", f"{CLEVELAND}.rounds", "only a hub"),
    (f"{US}.seed=2", f"{US}.seed", "only the top"),
    ("strategy=fedavg", "strategy", "under `federation:`"),
    ("federation.strategy.momentun=0.9", "federation.strategy.momentun", "did you mean 'momentum'?"),
    ("task.patient=all", "task.patient", "did you mean 'patients'?"),
    ("runtime.num_worker=2", "runtime.num_worker", "did you mean 'num_workers'?"),
    # unknown kinds
    ("task.kind=heart", "task.kind", "did you mean 'heart_disease'?"),
    ("federation.strategy=fedavgg", "federation.strategy.kind", "did you mean 'fedavg'?"),
    (f"{US}.topology=sta", f"{US}.topology.kind", "did you mean 'star'?"),
    ("runtime.policy=fife", "runtime.policy.kind", "did you mean 'fifo'?"),
    ("federation.strategy=[fedavg]", "federation.strategy", "must name a strategy"),
    ("federation.strategy={momentum: 1}", "federation.strategy.kind", "must name a strategy"),
    ("task=no_such_module:Task", "task.kind", "there is no module 'no_such_module'"),
    ("task=hierfl.errors:ConfigErro", "task.kind", "hierfl/errors.py) has no class 'ConfigErro'"),
    ("task=hierfl.tasks.heart_disease:Heart", "task.kind", "(did you mean 'HeartDisease'? allowed: HeartDisease)"),
    ("task=hierfl.errors.Problem", "task.kind", "or your own as 'hierfl.errors:Problem'"),
    ("task=':Problem'", "task.kind", "not of the form 'package.module:Class'"),
    ("task='my_task.py:Task'", "task.kind", "without .py"),
    ("task=os:path", "task.kind", "nor any other that is a task (with model, data, loss, predict)"),
    ("task=hierfl.errors:ConfigError", "task.kind", "must be a dataclass"),
    ("task=hierfl.errors:Problem", "task.kind", "has no model, data, loss, predict"),
    (f"{US}.participation=deadlin", f"{US}.participation.kind", "did you mean 'deadline'?"),
    # devices and residency
    ("runtime.devices=[{name: g, count: 0}]", "runtime.devices[0].count", "from 1 to 10,000"),
    ("runtime.devices=[{count: 2}]", "runtime.devices[0].name", "is missing"),
    ("runtime.devices=[{name: g}, {name: g}]", "runtime.devices[1].name", "give each its own"),
    ("runtime.devices=[{name: g, memory_gib: 0}]", "runtime.devices[0].memory_gib", "above 0"),
    ("runtime.devices=[{name: g, label: [de]}]", "runtime.devices[0].label", "did you mean 'labels'?"),
    ("runtime.devices=3", "runtime.devices", "must be a list of groups"),
    (f"{US}.residency=[us]", f"{CLEVELAND}.residency", "declare devices with their labels"),
    (f"{US}.residency=us", f"{US}.residency", "must be a list"),
    ("runtime.site_timeout_s=3", "runtime.site_timeout_s", "needs runtime.kind: ray"),
    (f"{CLEVELAND}.site_timeout_s=3", f"{CLEVELAND}.site_timeout_s", "needs runtime.kind: ray"),
    ("runtime={kind: ray, device_timeout_s: 0}", "runtime.device_timeout_s", "above 0"),
    ("runtime={kind: ray, site_timeout_s: 0}", "runtime.site_timeout_s", "above 0"),
    ("runtime.devices=[gpu-0]", "runtime.devices[0]", "must be a mapping"),
    ("runtime.devices=[{name: g, count: 1000000000}]", "runtime.devices[0].count", "from 1 to 10,000"),
    ("runtime.devices=[{name: g, memory_gib: 16GB}]", "runtime.devices[0].memory_gib", "must be a number, not '16GB'"),
    ("runtime.devices=[{name: g, labels: de}]", "runtime.devices[0].labels", "must be a list"),
    ("runtime.devices=[{name: g, gpus: 1.5}]", "runtime.devices[0].gpus", "fraction of one GPU"),
    ("runtime.num_workers=1000000", "runtime.num_workers", "from 1 to 10,000"),
    # participation and split
    ("participation=deadline", "participation", "under `federation:`"),
    (f"{CLEVELAND}.participation=sample", f"{CLEVELAND}.participation", "only a hub"),
    ("federation.participation={kind: sample, fraction: 30}", "federation.participation.fraction", "at most 1"),
    ("federation.participation={kind: sample, fracton: 0.3}", "federation.participation.fracton", "'fraction'"),
    ("federation.participation={kind: deadline, late: cary}", "federation.participation.late", "mean 'carry'?"),
    ("federation.participation={kind: deadline, after_s: 10s}", "federation.participation.after_s", "a number"),
    ("federation.participation={kind: deadline, after: {p90: 0}}", "federation.participation.after.p90", "above 0"),
    ("federation.participation={kind: deadline, after: {p95: 1}}", "federation.participation.after.p95", "'p90'"),
    ("federation.participation={kind: async}", "federation.participation.kind", "allowed: all, buffered"),
    (f"{US}.topology={{kind: cyclic, order: by_siz}}", f"{US}.topology.order", "did you mean 'by_size'?"),
    ("federation.topology=cyclic", "federation.strategy", "fedavgm does not go with topology cyclic"),
    (f"{US}.split=2", f"{US}.split", "only a site"),
    (f"{CLEVELAND}.split=two", f"{CLEVELAND}.split", "whole number"),
    (f"{CLEVELAND}.split=100000", f"{CLEVELAND}.split", "from 1 to 1,000"),
    # what a kind refuses itself
    ("federation.strategy.momentum=1.5", "federation.strategy.momentum", "below 1"),
    ("federation.strategy.weights=sample", "federation.strategy.weights", "did you mean 'samples'?"),
    ("task.patients=al", "task.patients", "did you mean 'all'?"),
    ("task={kind: parquet, label: y}", "task.features", "is missing"),
    ("task={kind: parquet, label: y, features: [a, [b]]}", "task.features[1]", "must be a string"),
    # the tree
    (f"{US}.members=[]", f"{US}.members", "is empty"),
    (f"{US}.members=null", f"{US}.members", "is empty"),
    (f"{US}.members=cleveland", f"{US}.members", "must be a list of nodes"),
    (f"{US}.members.0=cleveland", f"{US}.members[0]", "must be a node"),
    (f"{US}.members.1.name=cleveland", f"{CLEVELAND}", "two members"),
    (f"{US}.name=hungary", "federation.members.hungary", "two members"),
    (f"{US}.members.0.name=null", f"{US}.members[0].name", "is null"),
    (f"{US}.members.0.name=''", f"{US}.members[0].name", "of 1 to 200 bytes"),
    (f'{US}.members.0.name="a\\e[31m"', f"{US}.members[0].name", "no line break or other control character"),
    (f"{US}.members.0.name=a/b", f"{US}.members.a/b.name", "no '/'"),
    (f"{US}.members.0.name=no", f"{US}.members[0].name", "quote it"),
    (f"{US}.members.0.name=clevland", f"{US}.members.clevland.name", "did you mean 'cleveland'?"),
    (f"{CLEVELAND}.data.key=clevland", f"{CLEVELAND}.data.key", "did you mean 'cleveland'?"),
    (f"{US}.data.key=cleveland", f"{US}.data.key", "at a site only"),
    (f"{CLEVELAND}.data=cleveland", f"{CLEVELAND}.data", "must be a mapping"),
    ("federation=null", "federation", "is missing"),
    ("federation=world", "federation", "must be a hub"),
    ("federation={name: world}", "federation.members", "is missing"),
    ("federation={count: 2, name: w, members: []}", "federation.count", "one hub"),
    ("federation.members={count: 3, name: s}", "federation.members.name", "write {i} into it"),
    ("federation.members={count: 3, name: 's{j}'}", "federation.members.name", "{j}"),
    ("federation.members={count: 3, name: 's{i:q}'}", "federation.members.name", "{i:q} has a wrong format"),
    ("federation.members={count: 3, name: 's{i:9999999999}'}", "federation.members.name", "hundreds of characters"),
    (
        "federation.members={count: 3, name: 's{i}', data: {key: '{i:q}'}}",
        "federation.members.data",
        "{i:q} has a wrong format",
    ),
    ("federation.members={count: 0, name: 's{i}'}", "federation.members.count", "from 1 to"),
    ("federation.members={count: many, name: 's{i}'}", "federation.members.count", "whole number"),
    ("federation.members={count: 300000000, name: 's{i}'}", "federation.members.count", "from 1 to 1,000,000"),
    ("federation.members={cout: 3, name: 's{i}'}", "federation.members", "did you mean 'count' by 'cout'?"),
    ("federation.members={name: a}", "federation.members", "with a count"),
    ("federation.members={count: 3}", "federation.members.name", "is missing"),
    ("federation.members={count: 3, name: 's{i}', trainin: {}}", "federation.members.trainin", "'training'"),
    # types and ranges
    ("federation.rounds=three", "federation.rounds", "whole number, not 'three'"),
    ("federation.rounds=1.5", "federation.rounds", "whole number, not 1.5"),
    ("federation.rounds=true", "federation.rounds", "whole number, not true"),
    ("federation.rounds=0", "federation.rounds", "at least 1, not 0"),
    (f"{US}.rounds=-1", f"{US}.rounds", "at least 1, not -1"),
    (f"{US}.rounds=0", f"{US}.rounds", "at least 1"),
    ("federation.quorum=0", "federation.quorum", "above 0"),
    ("federation.quorum=1.1", "federation.quorum", "at most 1"),
    ("federation.on_failure=continu", "federation.on_failure", "did you mean 'continue'?"),
    (f"{CLEVELAND}.weight=0", f"{CLEVELAND}.weight", "from 0.000001 to 8,000,000,000"),
    (f"{CLEVELAND}.weight=1e300", f"{CLEVELAND}.weight", "from 0.000001 to 8,000,000,000"),
    ("training=fast", "training", "must be a mapping"),
    ("training.lr=fast", "training.lr", "must be a number, not 'fast'"),
    ("training.lr=0", "training.lr", "above 0"),
    ("training.lr=.nan", "training.lr", "above 0"),
    ("training.lr=.inf", "training.lr", "above 0"),
    ("training.lr=true", "training.lr", "must be a number"),
    ("training.lr=null", "training.lr", "must be a number, not null"),
    (f"{CLEVELAND}.training.lr=-1", f"{CLEVELAND}.training.lr", "above 0"),
    ("training.batch_size=0", "training.batch_size", "at least 1"),
    ("training.local_epochs=1", "training", "both local_steps and local_epochs"),
    ("training.optimizer=adamm", "training.optimizer", "did you mean 'adam"),
    ("training.optimizer=lbfgs", "training.optimizer", "calls the loss several times a step"),
    ("training.optimizer=muon", "training.optimizer", "takes matrices only"),
    ("training.optimizer=SparseAdam", "training.optimizer", "sparse gradients only, and those here are dense (allowed"),
    ("training.momentum=0.9", "training.momentum", "optimizer_options: {momentum: 0.9}"),
    ("training.optimizer_options={momentun: 3}", "training.optimizer_options.momentun", "did you mean 'momentum'?"),
    ("training.optimizer_options={momentum: -3}", "training.optimizer_options.momentum", "from 0, below 1, not -3"),
    ("training.optimizer_options={momentum: much}", "training.optimizer_options.momentum", "must be a number"),
    ("training.optimizer_options={lr: 3}", "training.optimizer_options.lr", "training.lr"),
    ("training.optimizer_options={foreach: true}", "training.optimizer_options.foreach", "torch chooses"),
    ("training.optimizer_options={eps: 1e-3}", "training.optimizer_options.eps", "unknown option of sgd"),
    ("training.optimizer_options={nesterov: true}", "training.optimizer_options.nesterov", "needs momentum"),
    ("training={optimizer: adam, optimizer_options: {betas: [0.9, 1]}}", "training.optimizer_options.betas", "below 1"),
    ("training={optimizer: adam, optimizer_options: {betas: [0.9]}}", "training.optimizer_options.betas", "list of 2"),
    (
        f"{US}.training={{optimizer: adam, optimizer_options: {{momentum: 0.9}}}}",
        f"{US}.training.optimizer_options.momentum",
        "unknown option of adam",
    ),
    (
        f"{CLEVELAND}.training.optimizer_options={{weight_dekay: 1}}",
        f"{CLEVELAND}.training.optimizer_options.weight_dekay",
        "did you mean 'weight_decay'?",
    ),
    ("training.optimizer_options=[1]", "training.optimizer_options", "must be a mapping"),
    ("training.precision=flot16", "training.precision", "did you mean 'float16'?"),
    ("training.clip_norm=0", "training.clip_norm", "above 0"),
    ("seed=-1", "seed", "at least 0"),
    ("name=a/b", "name", "no '/'"),
    ('name="a\\0b"', "name", "no line break or other control character"),
    (f"name={'x' * 201}", "name", "of 1 to 200 bytes"),
    ("evaluation.auc=histogramm", "evaluation.auc", "did you mean 'histogram'?"),
    ("evaluation.every=-1", "evaluation.every", "at least 0"),
    ("stopping.metric=acuracy", "stopping.metric", "did you mean 'accuracy'?"),
    ("stopping={metric: wait_days, patience: 3}", "stopping.metric", "which this task does not measure"),
    ("stopping={metric: wait_days, mode: down, patience: 3}", "stopping.mode", "allowed: min, max"),
    ("stopping={metric: loss, mode: max, patience: 3}", "stopping.mode", "a lower loss is better: leave it out"),
    ("stopping={metric: dice, target: 9}", "stopping.target", "from 0 to 1 for dice, not 9"),
    ("stopping={metric: AUC, target: 0.9}", "stopping.metric", "did you mean 'auc'?"),
    ("stopping={metrik: auc, target: 0.9}", "stopping.metrik", "did you mean 'metric'?"),
    ("stopping={metric: auc, target: 90}", "stopping.target", "from 0 to 1 for auc, not 90"),
    ("stopping={metric: loss, patience: 0}", "stopping.patience", "at least 1"),
    ("stopping.target=0.9", "stopping.target", "give stopping.metric"),
    ("stopping.patience=3", "stopping.patience", "give stopping.metric"),
    ("stopping.mode=min", "stopping.mode", "give stopping.metric"),
    ("stopping.min_delta=0.1", "stopping.min_delta", "give stopping.metric"),
    ("stopping={metric:auc}", "stopping={metric:auc}", "'metric:auc' lacks the space behind its colon: metric: auc"),
    ("stopping.metric=auc", "stopping.metric", "give stopping.target or stopping.patience"),
    ("arithmetic.width=33", "arithmetic.width", "32 or 64"),
    ("arithmetic.clip=7", "arithmetic.clip", "power of two"),
    ("arithmetic.clip=-8", "arithmetic.clip", "power of two"),
    ("runtime=ray", "runtime", "must be a mapping"),
    ("runtime.kind=rai", "runtime.kind", "did you mean 'ray'?"),
    ("runtime.address=somewhere", "runtime.address", "host:port"),
    ("runtime.num_workers=0", "runtime.num_workers", "from 1 to 10,000"),
    ("runtime.gpus_per_worker=1.5", "runtime.gpus_per_worker", "fraction"),
    ("federation.name=worker-0", "federation.name", "what a worker is called"),
    ("runtime.resources_per_worker.a=x", "runtime.resources_per_worker.a", "must be a number"),
    ("runtime.device=gpu", "runtime.device", "allowed: auto, cpu, cuda"),
    ("runtime.preaggregate=1", "runtime.preaggregate", "true or false"),
    ("output.dir=[runs]", "output.dir", "must be a string"),
    ("output.dir=1.10", "output.dir", "must be a string, not the number 1.1: write it in quotes"),
    ("output.dir=''", "output.dir", "a folder's name"),
    ("output.checkpoint_every=0", "output.checkpoint_every", "at least 1"),
    # overrides and interpolation
    ("abc", "abc", "key=value"),
    ("=3", "=3", "key=value"),
    ("a..b=3", "a..b=3", "a name is missing"),
    ("seed=[1", "seed=[1", "not YAML"),
    ("name.x=1", "name.x", "no keys below"),
    ("federation.members.uss.rounds=2", "federation.members.uss", "did you mean 'us'?"),
    ("federation.members.7.rounds=2", "federation.members.7", "there is no '7'"),
    ("federation.members.st. mary.rounds=2", "federation.members.st", "there is no 'st' here"),
    ("training.lr=${training.lrr}", "training.lr", "lrr"),
    ("training.lr=${oc.env:HIERFL_NO_SUCH_VARIABLE}", "training.lr", "HIERFL_NO_SUCH_VARIABLE"),
    ("training.lr=${training.local_step}", "training.lr", "did you mean 'local_steps'?"),
    ("training.lr=${env:LR}", "training.lr", "did you mean 'oc.env'?"),
    ("training.lr=${oc.env:HIERFL_NO_SUCH}", "training.lr", "${oc.env:HIERFL_NO_SUCH,default}"),
    ("training.learning_rate=1", "training.learning_rate", "did you mean 'lr'?"),
    ("training.lr='${'", "training.lr", "cannot be read"),
    ("training.lr=???", "training.lr", "is mandatory"),
]


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "sound.yaml"
    path.write_text(SOUND)
    return path


def test_the_sound_one_is_sound(sound: Path) -> None:
    assert check(sound) == []


@pytest.mark.parametrize(("override", "place", "words"), MISTAKES, ids=[mistake[0] for mistake in MISTAKES])
def test_a_mistake_is_reported_once_at_its_place(sound: Path, override: str, place: str, words: str) -> None:
    problems = check(sound, [override])
    (problem,) = [problem for problem in problems if problem.path == place]
    assert words in problem.message
    others = [other.message for other in problems if other != problem]
    assert all("that the task knows" in other or "data needs it" in other for other in others)


def test_all_mistakes_come_at_once(sound: Path) -> None:
    overrides = ["training.lr=fast", "seed=-1", f"{US}.rounds=0", "task.patients=al", "nonsense", "runtime.kind=x"]
    places = {problem.path for problem in check(sound, overrides)}
    assert places == {"training.lr", "seed", f"{US}.rounds", "task.patients", "nonsense", "runtime.kind"}
    with pytest.raises(ConfigError) as caught:
        load(sound, overrides)
    assert {problem.path for problem in caught.value.problems} == places
    assert caught.value.exit_code == 2


def test_a_mistake_in_the_file_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(SOUND.replace("lr: 0.03", "lr: slow"))
    (problem,) = check(path)
    assert (problem.path, problem.line) == (f"{US}.members.long_beach.training.lr", 12)
    assert str(problem).startswith(f"{problem.path} (line 12): must be a number")
    assert check(path, [f"{problem.path}=fast"])[0].line is None


def test_a_name_with_a_dot_is_shown_in_the_brackets_that_it_needs(sound: Path) -> None:
    overrides = ["federation.members.hungary.name=st. mary", "federation.members.st. mary.rounds=2"]
    assert "stands in brackets, federation.members[st. mary]" in str(check(sound, overrides)[0])
    assert check(sound, [overrides[0], "federation.members[st. mary].rounds=2"]) == []


def test_two_mistakes_across_sections(sound: Path) -> None:
    stopping = "stopping={metric: auc, patience: 2}"
    messages = [str(problem) for problem in check(sound, [stopping, "evaluation={auc: none, every: 0}"])]
    assert len(messages) == 2
    assert "evaluation.auc is none" in messages[0]
    assert "evaluation.every is 0" in messages[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1\nb: 2", "line 2, column"),
        ("seed: 1\nseed: 2", "line 2, column 1: the key 'seed' is given twice"),
        ("", "wrong.yaml is empty"),
        ("- 1", "wrong.yaml is a list"),
        ("3", "is 3"),
        ("a: &a [*a]", "inside its own anchor"),
        ("a: " + "[" * 9000, "nested deeper"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
    ],
)
def test_what_is_no_configuration(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    assert words in str(check(path)[0])


def test_a_file_that_is_not_there(sound: Path) -> None:
    assert "in that folder: sound.yaml" in str(check(sound.with_name("soud.yaml"))[0])
    assert "is a folder" in str(check(sound.parent)[0])
    sound.write_bytes(b"\xff\xfe\xfd")
    assert "is no YAML text" in str(check(sound)[0])


def test_many_unknown_sites_are_counted() -> None:
    tree = {"name": "w", "members": {"count": 5000, "name": "s{i}"}}
    with pytest.raises(ConfigError) as caught:
        from_mapping({"task": "heart_disease", "federation": tree})
    assert len(caught.value.problems) == 21
    assert "4980 more sites" in caught.value.problems[-1].message


def test_weights_whose_sum_is_too_large() -> None:
    tree = {"name": "w", "members": {"count": 9000, "name": "s{i}", "weight": 1e6}}
    with pytest.raises(ConfigError, match=r"^federation.members: have weights that add up to .*: scale them down$"):
        from_mapping({"task": "synthetic", "federation": tree})


def test_a_template_is_checked_once() -> None:
    tree = {"name": "w", "members": {"count": 50, "name": "h{i}", "members": {"count": 9, "name": "s{i}", "lr": 1}}}
    with pytest.raises(ConfigError) as caught:
        from_mapping({"task": "synthetic", "federation": tree})
    assert [problem.path for problem in caught.value.problems] == ["federation.members.members.lr"]


def test_a_task_of_ones_own_that_lacks_a_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_a_task.py").write_text(
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Half:\n    def model(self): ...\n"
        "    def data(self, site): ...\n    def loss(self, model, batch): ...\n"
    )
    path = tmp_path / "own.yaml"
    path.write_text("{task: 'half_a_task:Half', federation: {name: w, members: [{name: a}]}}")
    monkeypatch.setattr(sys, "path", list(sys.path))
    (problem,) = check(path)
    assert problem.path == "task.kind"
    assert "has no predict" in problem.message


def test_checking_imports_no_torch_and_no_ray(sound: Path) -> None:
    code = (
        "import sys; from hierfl.config import load; load(sys.argv[1]);"
        "print([m for m in ('torch', 'ray', 'sklearn', 'omegaconf', 'matplotlib') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code, str(sound)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_mapping_is_not_changed() -> None:
    mapping = yaml.safe_load(SOUND)
    from_mapping(mapping, [f"{US}.rounds=2", "training.lr=${seed}", "seed=1"])
    assert mapping == yaml.safe_load(SOUND)


JUNK = [None, True, -1, 0, 1.5, float("nan"), "", "x", "a/b", "${", "${x}", "???", [], [None], {}, {"kind": 1}, {1: 2}]
JUNK += [{"count": 2}, {"count": 2, "name": "{i"}, {"name": {}}, [[]], "no_module:X", "hierfl.errors:Problem"]


def places(value: object, before: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [before, *(place for key, inner in pairs for place in places(inner, (*before, key)))]


@pytest.mark.parametrize("place", places(yaml.safe_load(SOUND))[1:], ids=str)
def test_junk_anywhere_is_sound_or_a_config_error(place: tuple[object, ...]) -> None:
    for junk in JUNK:
        mapping = yaml.safe_load(SOUND)
        holder = mapping
        for step in place[:-1]:
            holder = holder[step]
        holder[place[-1]] = junk
        with suppress(ConfigError):
            from_mapping(mapping)


def test_nested_templates_make_no_endless_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hierfl.config.tree.MOST_NODES", 50)
    tree = {"name": "w", "members": {"count": 9, "name": "h{i}", "members": {"count": 9, "name": "s{i}"}}}
    with pytest.raises(ConfigError) as caught:
        from_mapping({"task": "synthetic", "federation": tree})
    (problem,) = caught.value.problems
    assert "larger than 50 nodes" in problem.message

from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Payload(_message.Message):
    __slots__ = ("digest", "num_floats", "num_ints", "dtype")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    NUM_FLOATS_FIELD_NUMBER: _ClassVar[int]
    NUM_INTS_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    digest: bytes
    num_floats: int
    num_ints: int
    dtype: str
    def __init__(self, digest: _Optional[bytes] = ..., num_floats: _Optional[int] = ..., num_ints: _Optional[int] = ..., dtype: _Optional[str] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("transfer", "offset", "check", "data")
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    transfer: int
    offset: int
    check: bytes
    data: bytes
    def __init__(self, transfer: _Optional[int] = ..., offset: _Optional[int] = ..., check: _Optional[bytes] = ..., data: _Optional[bytes] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("digest", "offset")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    digest: bytes
    offset: int
    def __init__(self, digest: _Optional[bytes] = ..., offset: _Optional[int] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: bytes
    def __init__(self, digest: _Optional[bytes] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("versions", "federation", "node", "config_digest", "task_digest", "approval", "instance", "run", "leader", "number", "line")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    CONFIG_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TASK_DIGEST_FIELD_NUMBER: _ClassVar[int]
    APPROVAL_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedScalarFieldContainer[int]
    federation: str
    node: str
    config_digest: str
    task_digest: str
    approval: str
    instance: str
    run: str
    leader: int
    number: int
    line: str
    def __init__(self, versions: _Optional[_Iterable[int]] = ..., federation: _Optional[str] = ..., node: _Optional[str] = ..., config_digest: _Optional[str] = ..., task_digest: _Optional[str] = ..., approval: _Optional[str] = ..., instance: _Optional[str] = ..., run: _Optional[str] = ..., leader: _Optional[int] = ..., number: _Optional[int] = ..., line: _Optional[str] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("version", "run", "nonce", "deadline_s", "epoch", "leader", "line")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    version: int
    run: str
    nonce: bytes
    deadline_s: float
    epoch: int
    leader: int
    line: str
    def __init__(self, version: _Optional[int] = ..., run: _Optional[str] = ..., nonce: _Optional[bytes] = ..., deadline_s: _Optional[float] = ..., epoch: _Optional[int] = ..., leader: _Optional[int] = ..., line: _Optional[str] = ...) -> None: ...

class Beat(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Bye(_message.Message):
    __slots__ = ("reason", "final")
    REASON_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    reason: str
    final: bool
    def __init__(self, reason: _Optional[str] = ..., final: _Optional[bool] = ...) -> None: ...

class Prepare(_message.Message):
    __slots__ = ("layout_digest", "num_floats", "num_ints", "mean", "std")
    LAYOUT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NUM_FLOATS_FIELD_NUMBER: _ClassVar[int]
    NUM_INTS_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    STD_FIELD_NUMBER: _ClassVar[int]
    layout_digest: str
    num_floats: int
    num_ints: int
    mean: _containers.RepeatedScalarFieldContainer[float]
    std: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, layout_digest: _Optional[str] = ..., num_floats: _Optional[int] = ..., num_ints: _Optional[int] = ..., mean: _Optional[_Iterable[float]] = ..., std: _Optional[_Iterable[float]] = ...) -> None: ...

class Prepared(_message.Message):
    __slots__ = ("difference",)
    DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    difference: str
    def __init__(self, difference: _Optional[str] = ...) -> None: ...

class Describe(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Moments(_message.Message):
    __slots__ = ("count", "sums", "squares")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SUMS_FIELD_NUMBER: _ClassVar[int]
    SQUARES_FIELD_NUMBER: _ClassVar[int]
    count: int
    sums: _containers.RepeatedScalarFieldContainer[bytes]
    squares: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, count: _Optional[int] = ..., sums: _Optional[_Iterable[bytes]] = ..., squares: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Column(_message.Message):
    __slots__ = ("name", "kind", "count", "missing", "num_withheld", "moments", "has_values", "values", "others", "bins")
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    NUM_WITHHELD_FIELD_NUMBER: _ClassVar[int]
    MOMENTS_FIELD_NUMBER: _ClassVar[int]
    HAS_VALUES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    OTHERS_FIELD_NUMBER: _ClassVar[int]
    BINS_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    count: int
    missing: int
    num_withheld: int
    moments: Moments
    has_values: bool
    values: _containers.ScalarMap[str, int]
    others: int
    bins: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., count: _Optional[int] = ..., missing: _Optional[int] = ..., num_withheld: _Optional[int] = ..., moments: _Optional[_Union[Moments, _Mapping]] = ..., has_values: _Optional[bool] = ..., values: _Optional[_Mapping[str, int]] = ..., others: _Optional[int] = ..., bins: _Optional[_Iterable[int]] = ...) -> None: ...

class Statistics(_message.Message):
    __slots__ = ("num_rows", "columns")
    NUM_ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    num_rows: int
    columns: _containers.RepeatedCompositeFieldContainer[Column]
    def __init__(self, num_rows: _Optional[int] = ..., columns: _Optional[_Iterable[_Union[Column, _Mapping]]] = ...) -> None: ...

class Described(_message.Message):
    __slots__ = ("num_train", "num_test", "moments", "error", "statistics", "num_patients")
    NUM_TRAIN_FIELD_NUMBER: _ClassVar[int]
    NUM_TEST_FIELD_NUMBER: _ClassVar[int]
    MOMENTS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    NUM_PATIENTS_FIELD_NUMBER: _ClassVar[int]
    num_train: int
    num_test: int
    moments: Moments
    error: str
    statistics: Statistics
    num_patients: int
    def __init__(self, num_train: _Optional[int] = ..., num_test: _Optional[int] = ..., moments: _Optional[_Union[Moments, _Mapping]] = ..., error: _Optional[str] = ..., statistics: _Optional[_Union[Statistics, _Mapping]] = ..., num_patients: _Optional[int] = ...) -> None: ...

class Shortfall(_message.Message):
    __slots__ = ("round_number", "counted", "weight")
    ROUND_NUMBER_FIELD_NUMBER: _ClassVar[int]
    COUNTED_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    round_number: int
    counted: int
    weight: int
    def __init__(self, round_number: _Optional[int] = ..., counted: _Optional[int] = ..., weight: _Optional[int] = ...) -> None: ...

class Train(_message.Message):
    __slots__ = ("hub", "round_number", "weight", "opened_by", "opened_round", "total_weight", "model", "holder", "shortfalls")
    HUB_FIELD_NUMBER: _ClassVar[int]
    ROUND_NUMBER_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    OPENED_BY_FIELD_NUMBER: _ClassVar[int]
    OPENED_ROUND_FIELD_NUMBER: _ClassVar[int]
    TOTAL_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    SHORTFALLS_FIELD_NUMBER: _ClassVar[int]
    hub: str
    round_number: int
    weight: int
    opened_by: str
    opened_round: int
    total_weight: int
    model: Payload
    holder: str
    shortfalls: _containers.RepeatedCompositeFieldContainer[Shortfall]
    def __init__(self, hub: _Optional[str] = ..., round_number: _Optional[int] = ..., weight: _Optional[int] = ..., opened_by: _Optional[str] = ..., opened_round: _Optional[int] = ..., total_weight: _Optional[int] = ..., model: _Optional[_Union[Payload, _Mapping]] = ..., holder: _Optional[str] = ..., shortfalls: _Optional[_Iterable[_Union[Shortfall, _Mapping]]] = ...) -> None: ...

class Trained(_message.Message):
    __slots__ = ("weight", "num_samples", "num_steps", "loss", "duration_s", "error", "update")
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    NUM_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    NUM_STEPS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    weight: int
    num_samples: int
    num_steps: int
    loss: float
    duration_s: float
    error: str
    update: Payload
    def __init__(self, weight: _Optional[int] = ..., num_samples: _Optional[int] = ..., num_steps: _Optional[int] = ..., loss: _Optional[float] = ..., duration_s: _Optional[float] = ..., error: _Optional[str] = ..., update: _Optional[_Union[Payload, _Mapping]] = ...) -> None: ...

class Evaluate(_message.Message):
    __slots__ = ("round_number", "model", "tunes", "holder")
    ROUND_NUMBER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TUNES_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    round_number: int
    model: Payload
    tunes: bool
    holder: str
    def __init__(self, round_number: _Optional[int] = ..., model: _Optional[_Union[Payload, _Mapping]] = ..., tunes: _Optional[bool] = ..., holder: _Optional[str] = ...) -> None: ...

class Curve(_message.Message):
    __slots__ = ("scores", "positives", "negatives", "bins")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    POSITIVES_FIELD_NUMBER: _ClassVar[int]
    NEGATIVES_FIELD_NUMBER: _ClassVar[int]
    BINS_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    positives: _containers.RepeatedScalarFieldContainer[int]
    negatives: _containers.RepeatedScalarFieldContainer[int]
    bins: int
    def __init__(self, scores: _Optional[_Iterable[float]] = ..., positives: _Optional[_Iterable[int]] = ..., negatives: _Optional[_Iterable[int]] = ..., bins: _Optional[int] = ...) -> None: ...

class Size(_message.Message):
    __slots__ = ("num_patients", "squares")
    NUM_PATIENTS_FIELD_NUMBER: _ClassVar[int]
    SQUARES_FIELD_NUMBER: _ClassVar[int]
    num_patients: int
    squares: bytes
    def __init__(self, num_patients: _Optional[int] = ..., squares: _Optional[bytes] = ...) -> None: ...

class Right(_message.Message):
    __slots__ = ("squares", "products")
    SQUARES_FIELD_NUMBER: _ClassVar[int]
    PRODUCTS_FIELD_NUMBER: _ClassVar[int]
    squares: bytes
    products: bytes
    def __init__(self, squares: _Optional[bytes] = ..., products: _Optional[bytes] = ...) -> None: ...

class Clusters(_message.Message):
    __slots__ = ("sizes", "right")
    SIZES_FIELD_NUMBER: _ClassVar[int]
    RIGHT_FIELD_NUMBER: _ClassVar[int]
    sizes: _containers.RepeatedCompositeFieldContainer[Size]
    right: _containers.RepeatedCompositeFieldContainer[Right]
    def __init__(self, sizes: _Optional[_Iterable[_Union[Size, _Mapping]]] = ..., right: _Optional[_Iterable[_Union[Right, _Mapping]]] = ...) -> None: ...

class Tally(_message.Message):
    __slots__ = ("num_samples", "num_not_finite", "num_left_out", "loss", "log_loss", "brier", "confusion", "curves", "own", "num_own", "labels", "clusters")
    class OwnEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    NUM_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    NUM_NOT_FINITE_FIELD_NUMBER: _ClassVar[int]
    NUM_LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    LOG_LOSS_FIELD_NUMBER: _ClassVar[int]
    BRIER_FIELD_NUMBER: _ClassVar[int]
    CONFUSION_FIELD_NUMBER: _ClassVar[int]
    CURVES_FIELD_NUMBER: _ClassVar[int]
    OWN_FIELD_NUMBER: _ClassVar[int]
    NUM_OWN_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CLUSTERS_FIELD_NUMBER: _ClassVar[int]
    num_samples: int
    num_not_finite: int
    num_left_out: int
    loss: bytes
    log_loss: bytes
    brier: bytes
    confusion: _containers.RepeatedScalarFieldContainer[int]
    curves: _containers.RepeatedCompositeFieldContainer[Curve]
    own: _containers.ScalarMap[str, bytes]
    num_own: int
    labels: _containers.RepeatedScalarFieldContainer[str]
    clusters: Clusters
    def __init__(self, num_samples: _Optional[int] = ..., num_not_finite: _Optional[int] = ..., num_left_out: _Optional[int] = ..., loss: _Optional[bytes] = ..., log_loss: _Optional[bytes] = ..., brier: _Optional[bytes] = ..., confusion: _Optional[_Iterable[int]] = ..., curves: _Optional[_Iterable[_Union[Curve, _Mapping]]] = ..., own: _Optional[_Mapping[str, bytes]] = ..., num_own: _Optional[int] = ..., labels: _Optional[_Iterable[str]] = ..., clusters: _Optional[_Union[Clusters, _Mapping]] = ...) -> None: ...

class Evaluated(_message.Message):
    __slots__ = ("tally", "duration_s", "error")
    TALLY_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    tally: Tally
    duration_s: float
    error: str
    def __init__(self, tally: _Optional[_Union[Tally, _Mapping]] = ..., duration_s: _Optional[float] = ..., error: _Optional[str] = ...) -> None: ...

class Held(_message.Message):
    __slots__ = ("holder", "name", "payload", "weight")
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    holder: str
    name: str
    payload: Payload
    weight: int
    def __init__(self, holder: _Optional[str] = ..., name: _Optional[str] = ..., payload: _Optional[_Union[Payload, _Mapping]] = ..., weight: _Optional[int] = ...) -> None: ...

class Kept(_message.Message):
    __slots__ = ("name", "axes", "held")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AXES_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    name: str
    axes: _containers.RepeatedScalarFieldContainer[int]
    held: Held
    def __init__(self, name: _Optional[str] = ..., axes: _Optional[_Iterable[int]] = ..., held: _Optional[_Union[Held, _Mapping]] = ...) -> None: ...

class State(_message.Message):
    __slots__ = ("vectors",)
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    vectors: _containers.RepeatedCompositeFieldContainer[Kept]
    def __init__(self, vectors: _Optional[_Iterable[_Union[Kept, _Mapping]]] = ...) -> None: ...

class Thing(_message.Message):
    __slots__ = ("model", "sum", "state")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SUM_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    model: Held
    sum: Held
    state: State
    def __init__(self, model: _Optional[_Union[Held, _Mapping]] = ..., sum: _Optional[_Union[Held, _Mapping]] = ..., state: _Optional[_Union[State, _Mapping]] = ...) -> None: ...

class Broadcast(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Reduce(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class Cut(_message.Message):
    __slots__ = ("num",)
    NUM_FIELD_NUMBER: _ClassVar[int]
    num: int
    def __init__(self, num: _Optional[int] = ...) -> None: ...

class Add(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Gather(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Ratio(_message.Message):
    __slots__ = ("numerator", "denominator")
    NUMERATOR_FIELD_NUMBER: _ClassVar[int]
    DENOMINATOR_FIELD_NUMBER: _ClassVar[int]
    numerator: bytes
    denominator: bytes
    def __init__(self, numerator: _Optional[bytes] = ..., denominator: _Optional[bytes] = ...) -> None: ...

class Mix(_message.Message):
    __slots__ = ("own", "weights", "total", "models")
    OWN_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    own: int
    weights: _containers.RepeatedCompositeFieldContainer[Ratio]
    total: int
    models: int
    def __init__(self, own: _Optional[int] = ..., weights: _Optional[_Iterable[_Union[Ratio, _Mapping]]] = ..., total: _Optional[int] = ..., models: _Optional[int] = ...) -> None: ...

class CutModel(_message.Message):
    __slots__ = ("num",)
    NUM_FIELD_NUMBER: _ClassVar[int]
    num: int
    def __init__(self, num: _Optional[int] = ...) -> None: ...

class Average(_message.Message):
    __slots__ = ("weights",)
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    weights: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, weights: _Optional[_Iterable[int]] = ...) -> None: ...

class Join(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Encode(_message.Message):
    __slots__ = ("weight", "seed")
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    weight: int
    seed: int
    def __init__(self, weight: _Optional[int] = ..., seed: _Optional[int] = ...) -> None: ...

class Commit(_message.Message):
    __slots__ = ("rounds_done", "keep", "has_own", "alive")
    ROUNDS_DONE_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    HAS_OWN_FIELD_NUMBER: _ClassVar[int]
    ALIVE_FIELD_NUMBER: _ClassVar[int]
    rounds_done: int
    keep: int
    has_own: bool
    alive: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, rounds_done: _Optional[int] = ..., keep: _Optional[int] = ..., has_own: _Optional[bool] = ..., alive: _Optional[_Iterable[str]] = ...) -> None: ...

class Write(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Place(_message.Message):
    __slots__ = ("hub", "weight", "opened_by", "opened_round", "total_weight", "turn", "things", "broadcast", "reduce", "cut", "add", "gather", "encode", "commit", "write_model", "mix", "cut_model", "average", "join")
    HUB_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    OPENED_BY_FIELD_NUMBER: _ClassVar[int]
    OPENED_ROUND_FIELD_NUMBER: _ClassVar[int]
    TOTAL_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    THINGS_FIELD_NUMBER: _ClassVar[int]
    BROADCAST_FIELD_NUMBER: _ClassVar[int]
    REDUCE_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    ADD_FIELD_NUMBER: _ClassVar[int]
    GATHER_FIELD_NUMBER: _ClassVar[int]
    ENCODE_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    WRITE_MODEL_FIELD_NUMBER: _ClassVar[int]
    MIX_FIELD_NUMBER: _ClassVar[int]
    CUT_MODEL_FIELD_NUMBER: _ClassVar[int]
    AVERAGE_FIELD_NUMBER: _ClassVar[int]
    JOIN_FIELD_NUMBER: _ClassVar[int]
    hub: str
    weight: int
    opened_by: str
    opened_round: int
    total_weight: int
    turn: int
    things: _containers.RepeatedCompositeFieldContainer[Thing]
    broadcast: Broadcast
    reduce: Reduce
    cut: Cut
    add: Add
    gather: Gather
    encode: Encode
    commit: Commit
    write_model: Write
    mix: Mix
    cut_model: CutModel
    average: Average
    join: Join
    def __init__(self, hub: _Optional[str] = ..., weight: _Optional[int] = ..., opened_by: _Optional[str] = ..., opened_round: _Optional[int] = ..., total_weight: _Optional[int] = ..., turn: _Optional[int] = ..., things: _Optional[_Iterable[_Union[Thing, _Mapping]]] = ..., broadcast: _Optional[_Union[Broadcast, _Mapping]] = ..., reduce: _Optional[_Union[Reduce, _Mapping]] = ..., cut: _Optional[_Union[Cut, _Mapping]] = ..., add: _Optional[_Union[Add, _Mapping]] = ..., gather: _Optional[_Union[Gather, _Mapping]] = ..., encode: _Optional[_Union[Encode, _Mapping]] = ..., commit: _Optional[_Union[Commit, _Mapping]] = ..., write_model: _Optional[_Union[Write, _Mapping]] = ..., mix: _Optional[_Union[Mix, _Mapping]] = ..., cut_model: _Optional[_Union[CutModel, _Mapping]] = ..., average: _Optional[_Union[Average, _Mapping]] = ..., join: _Optional[_Union[Join, _Mapping]] = ...) -> None: ...

class Placed(_message.Message):
    __slots__ = ("error", "refused", "duration_s", "numbers", "things", "model_digest", "unreached")
    ERROR_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    THINGS_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    UNREACHED_FIELD_NUMBER: _ClassVar[int]
    error: str
    refused: bool
    duration_s: float
    numbers: _containers.RepeatedScalarFieldContainer[float]
    things: _containers.RepeatedCompositeFieldContainer[Thing]
    model_digest: str
    unreached: str
    def __init__(self, error: _Optional[str] = ..., refused: _Optional[bool] = ..., duration_s: _Optional[float] = ..., numbers: _Optional[_Iterable[float]] = ..., things: _Optional[_Iterable[_Union[Thing, _Mapping]]] = ..., model_digest: _Optional[str] = ..., unreached: _Optional[str] = ...) -> None: ...

class AskKey(_message.Message):
    __slots__ = ("train", "attempt", "members")
    TRAIN_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    train: Train
    attempt: bytes
    members: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, train: _Optional[_Union[Train, _Mapping]] = ..., attempt: _Optional[bytes] = ..., members: _Optional[_Iterable[str]] = ...) -> None: ...

class MemberKey(_message.Message):
    __slots__ = ("node", "weight", "public", "certificate", "signature")
    NODE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    node: str
    weight: int
    public: bytes
    certificate: bytes
    signature: bytes
    def __init__(self, node: _Optional[str] = ..., weight: _Optional[int] = ..., public: _Optional[bytes] = ..., certificate: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Keyed(_message.Message):
    __slots__ = ("key", "error", "is_lost", "noted")
    KEY_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    IS_LOST_FIELD_NUMBER: _ClassVar[int]
    NOTED_FIELD_NUMBER: _ClassVar[int]
    key: MemberKey
    error: str
    is_lost: bool
    noted: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, key: _Optional[_Union[MemberKey, _Mapping]] = ..., error: _Optional[str] = ..., is_lost: _Optional[bool] = ..., noted: _Optional[_Iterable[str]] = ...) -> None: ...

class AskMasked(_message.Message):
    __slots__ = ("train", "attempt", "keys")
    TRAIN_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    train: Train
    attempt: bytes
    keys: _containers.RepeatedCompositeFieldContainer[MemberKey]
    def __init__(self, train: _Optional[_Union[Train, _Mapping]] = ..., attempt: _Optional[bytes] = ..., keys: _Optional[_Iterable[_Union[MemberKey, _Mapping]]] = ...) -> None: ...

class Masked(_message.Message):
    __slots__ = ("update", "error", "is_lost")
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    IS_LOST_FIELD_NUMBER: _ClassVar[int]
    update: Payload
    error: str
    is_lost: bool
    def __init__(self, update: _Optional[_Union[Payload, _Mapping]] = ..., error: _Optional[str] = ..., is_lost: _Optional[bool] = ...) -> None: ...

class Ask(_message.Message):
    __slots__ = ("id", "prepare", "describe", "train", "evaluate", "place", "key", "mask", "drop", "epoch")
    ID_FIELD_NUMBER: _ClassVar[int]
    PREPARE_FIELD_NUMBER: _ClassVar[int]
    DESCRIBE_FIELD_NUMBER: _ClassVar[int]
    TRAIN_FIELD_NUMBER: _ClassVar[int]
    EVALUATE_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    DROP_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    id: int
    prepare: Prepare
    describe: Describe
    train: Train
    evaluate: Evaluate
    place: Place
    key: AskKey
    mask: AskMasked
    drop: _containers.RepeatedScalarFieldContainer[str]
    epoch: int
    def __init__(self, id: _Optional[int] = ..., prepare: _Optional[_Union[Prepare, _Mapping]] = ..., describe: _Optional[_Union[Describe, _Mapping]] = ..., train: _Optional[_Union[Train, _Mapping]] = ..., evaluate: _Optional[_Union[Evaluate, _Mapping]] = ..., place: _Optional[_Union[Place, _Mapping]] = ..., key: _Optional[_Union[AskKey, _Mapping]] = ..., mask: _Optional[_Union[AskMasked, _Mapping]] = ..., drop: _Optional[_Iterable[str]] = ..., epoch: _Optional[int] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("id", "prepared", "described", "trained", "evaluated", "placed", "keyed", "masked")
    ID_FIELD_NUMBER: _ClassVar[int]
    PREPARED_FIELD_NUMBER: _ClassVar[int]
    DESCRIBED_FIELD_NUMBER: _ClassVar[int]
    TRAINED_FIELD_NUMBER: _ClassVar[int]
    EVALUATED_FIELD_NUMBER: _ClassVar[int]
    PLACED_FIELD_NUMBER: _ClassVar[int]
    KEYED_FIELD_NUMBER: _ClassVar[int]
    MASKED_FIELD_NUMBER: _ClassVar[int]
    id: int
    prepared: Prepared
    described: Described
    trained: Trained
    evaluated: Evaluated
    placed: Placed
    keyed: Keyed
    masked: Masked
    def __init__(self, id: _Optional[int] = ..., prepared: _Optional[_Union[Prepared, _Mapping]] = ..., described: _Optional[_Union[Described, _Mapping]] = ..., trained: _Optional[_Union[Trained, _Mapping]] = ..., evaluated: _Optional[_Union[Evaluated, _Mapping]] = ..., placed: _Optional[_Union[Placed, _Mapping]] = ..., keyed: _Optional[_Union[Keyed, _Mapping]] = ..., masked: _Optional[_Union[Masked, _Mapping]] = ...) -> None: ...

class Take(_message.Message):
    __slots__ = ("transfer", "offset", "digest")
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    transfer: int
    offset: int
    digest: bytes
    def __init__(self, transfer: _Optional[int] = ..., offset: _Optional[int] = ..., digest: _Optional[bytes] = ...) -> None: ...

class HubSays(_message.Message):
    __slots__ = ("nonce", "sequence", "welcome", "ask", "take", "receipt", "beat", "bye")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    ASK_FIELD_NUMBER: _ClassVar[int]
    TAKE_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    BEAT_FIELD_NUMBER: _ClassVar[int]
    BYE_FIELD_NUMBER: _ClassVar[int]
    nonce: bytes
    sequence: int
    welcome: Welcome
    ask: Ask
    take: Take
    receipt: Receipt
    beat: Beat
    bye: Bye
    def __init__(self, nonce: _Optional[bytes] = ..., sequence: _Optional[int] = ..., welcome: _Optional[_Union[Welcome, _Mapping]] = ..., ask: _Optional[_Union[Ask, _Mapping]] = ..., take: _Optional[_Union[Take, _Mapping]] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ..., beat: _Optional[_Union[Beat, _Mapping]] = ..., bye: _Optional[_Union[Bye, _Mapping]] = ...) -> None: ...

class MemberSays(_message.Message):
    __slots__ = ("nonce", "sequence", "hello", "answer", "beat", "bye")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    BEAT_FIELD_NUMBER: _ClassVar[int]
    BYE_FIELD_NUMBER: _ClassVar[int]
    nonce: bytes
    sequence: int
    hello: Hello
    answer: Answer
    beat: Beat
    bye: Bye
    def __init__(self, nonce: _Optional[bytes] = ..., sequence: _Optional[int] = ..., hello: _Optional[_Union[Hello, _Mapping]] = ..., answer: _Optional[_Union[Answer, _Mapping]] = ..., beat: _Optional[_Union[Beat, _Mapping]] = ..., bye: _Optional[_Union[Bye, _Mapping]] = ...) -> None: ...

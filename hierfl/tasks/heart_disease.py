"""Heart disease in four hospitals: 920 patients, is a coronary artery narrowed by more than half?

UCI Heart Disease, doi 10.24432/C52P4X, CC BY 4.0 (`data/NOTICE` names the creators). `patients: complete` is the
protocol of FLamby (Ogier du Terrail et al. 2022): the patients without a gap in ten columns, 13 features, 66% of each
site to train on. `patients: all` keeps everyone: gaps are filled with the site's own training median (numbers) or most
frequent value (codes), so nothing leaves a site; a cholesterol or blood pressure of 0 means "not measured" and is a
gap too; where a site has measured none (cholesterol in Zurich and Basel) the agreed 240 mg/dl stands in.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierfl.learning import standardise as scaling
from hierfl.tasks import _classifier as classifier

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from pyarrow import Table
    from torch import Tensor
    from torch.nn import Module

    from hierfl.learning.task import Prediction, SiteData

    Matrix = NDArray[np.float64]

__all__ = ["FEATURES", "SITES", "HeartDisease"]

SITES = ("cleveland", "budapest", "zurich_basel", "long_beach")

FEATURES = (
    *("age", "sex", "trestbps", "chol", "fbs", "thalach", "exang", "oldpeak"),
    *("cp_2", "cp_3", "cp_4", "restecg_1", "restecg_2"),
)
"""The 13 features in order; chest pain (cp) and resting ECG are one-hot with the first level dropped."""

_NUMBERS = ("age", "trestbps", "chol", "thalach", "oldpeak")
_CODES = ("sex", "cp", "fbs", "restecg", "exang")
_ZERO_IS_A_GAP = ("trestbps", "chol")
_AGREED = {"chol": 240.0}
_FILE = Path(__file__).with_name("data") / "heart_disease.parquet"


@dataclass(frozen=True)
class HeartDisease:
    """The default task; its sites are cleveland, budapest, zurich_basel and long_beach."""

    network: str = "logistic"
    """logistic, or mlp with one hidden layer."""
    hidden: int = 16
    """mlp: width of the hidden layer."""
    patients: str = "complete"
    """complete (FLamby's protocol, 740 patients) or all (920, gaps filled)."""
    standardise: str = "federated"
    """none, site (each by its own training statistics) or federated (by the federation's)."""

    def __post_init__(self) -> None:
        classifier.check(
            classifier.choice("network", self.network, classifier.NETWORKS),
            classifier.at_least("hidden", self.hidden, 1),
            classifier.choice("patients", self.patients, ("complete", "all")),
            classifier.choice("standardise", self.standardise, scaling.STANDARDISE),
        )

    @property
    def inputs(self) -> list[str]:
        """Name the model's inputs, in order."""
        return list(FEATURES)

    def sites(self) -> Sequence[str]:
        """List the four hospitals."""
        return SITES

    def num_samples(self, site: str) -> tuple[int, int]:
        """Count a hospital's (train, test) patients."""
        split = self._columns(site)[1]
        return int((split == "train").sum()), int((split == "test").sum())

    def model(self) -> Module:
        """Build a model with 13 inputs and one logit."""
        return classifier.network(self.network, len(FEATURES), 2, self.hidden)

    def data(self, site: str) -> SiteData:
        """Load one hospital's patients: features float32 (n, 13), labels int64 (n,), 1 for disease.

        Errors: DataError for a hospital that is none of the four.
        """
        columns, split = self._columns(site)
        is_train, is_test = split == "train", split == "test"
        used = is_train | is_test
        if self.patients == "all":
            columns = _filled(columns, is_train)
        loaded = classifier.site_data(_features(columns)[used], columns["num"][used] > 0, is_test[used])
        return scaling.by_itself(loaded) if self.standardise == "site" else loaded

    def table(self, site: str) -> Table:
        """Give all of a hospital's patients as they were recorded: `num` is the finding, 0 for none; gaps are null.

        Errors: DataError for a hospital that is none of the four.
        """
        import pyarrow as pa

        columns, _ = self._columns(site)
        return pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})

    def loss(self, model: Module, batch: Any) -> Tensor:
        """Return the mean binary cross entropy."""
        return classifier.loss(model, batch)

    def predict(self, model: Module, batch: Any) -> Prediction:
        """Return the probability of disease, and the labels."""
        return classifier.predict(model, batch)

    def metrics(self) -> Mapping[str, str]:
        """Name what is measured."""
        return classifier.metrics(2)

    def _columns(self, site: str) -> tuple[dict[str, Matrix], NDArray[np.str_]]:
        """Return a hospital's columns, NaN where missing, and "train", "test" or "None" per patient."""
        if site not in SITES:
            raise classifier.unknown_site(site, SITES)
        columns, splits = _table(site)
        return columns, splits["split" if self.patients == "complete" else "split_all"]


@lru_cache(maxsize=len(SITES))
def _table(site: str) -> tuple[dict[str, Matrix], dict[str, NDArray[np.str_]]]:
    """Read one hospital's rows of the shipped file."""
    import numpy as np
    import pyarrow.parquet as pq

    table = pq.read_table(_FILE, filters=[("site", "=", site)])
    numbers = {name: np.array(table[name].to_pylist(), dtype=np.float64) for name in (*_NUMBERS, *_CODES, "num")}
    return numbers, {name: np.array(table[name].to_pylist()).astype(np.str_) for name in ("split", "split_all")}


def _features(columns: dict[str, Matrix]) -> Matrix:
    """Stack the columns into FEATURES, one-hot where the name says so (cp_2: chest pain of kind 2)."""
    import numpy as np

    parts = [name.partition("_") for name in FEATURES]
    return np.stack([columns[name] == float(level) if level else columns[name] for name, _, level in parts], axis=1)


def _filled(columns: dict[str, Matrix], is_train: NDArray[np.bool_]) -> dict[str, Matrix]:
    """Fill a hospital's gaps from its own training patients; the given columns stay as they are."""
    import numpy as np

    filled = dict(columns)
    for name in (*_NUMBERS, *_CODES):
        gap = np.isnan(columns[name]) | ((columns[name] == 0) & (name in _ZERO_IS_A_GAP))
        known = columns[name][is_train & ~gap]
        filled[name] = np.where(gap, _typical(name, known), columns[name])
    return filled


def _typical(name: str, known: Matrix) -> float:
    """Return the median of a number, the most frequent (then the smallest) value of a code, or the agreed one."""
    import numpy as np

    if not len(known):
        return _AGREED[name]
    if name in _NUMBERS:
        return float(np.median(known))
    values, counts = np.unique(known, return_counts=True)
    return float(values[counts.argmax()])

"""What Parquet and Arrow files hold that is no text, or that Arrow thinks odd."""

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from hierfl.errors import DataError
from hierfl.tasks import _site_files
from hierfl.tasks._csv import Csv
from hierfl.tasks.parquet import Parquet

WRITERS = {"parquet": pa.parquet.write_table, "feather": pa.feather.write_feather}


def columns(**other):
    return pa.table({"age": pa.array(range(10)), "sick": pa.array([i % 3 == 0 for i in range(10)])} | other)


def task(**fields):
    return Parquet(**({"features": ["age"], "label": "sick", "standardise": "none"} | fields))


@pytest.mark.parametrize(
    ("written", "categories"), [("zzz_zzz", None), ("warm_warm", ["cold", "hot"])], ids=["a-name", "a-word"]
)
def test_a_table_whose_text_is_no_utf_8_is_told(written, categories, tmp_path):
    file = tmp_path / "north.parquet"
    words = pa.array(["cold" if i % 2 else "warm_warm" for i in range(10)])
    pa.parquet.write_table(columns(zzz_zzz=words), file, compression="none", store_schema=False)
    content = file.read_bytes()
    assert written.encode() in content
    file.write_bytes(content.replace(written.encode(), written.replace("_", "\xe4").encode("latin-1")))
    wanted = {} if categories is None else {"features": ["age", "zzz_zzz"], "categories": {"zzz_zzz": categories}}
    said = "utf-8" if categories is None else "column 'zzz_zzz': some of its text is no UTF-8; write the file anew"
    with pytest.raises(DataError, match=rf"north.*north\.parquet.*{said}"):
        task(**wanted).data("north", path=str(file))


@pytest.mark.parametrize("ending", ["parquet", "feather"])
def test_what_arrow_thinks_odd_and_can_be_read_is_read(ending, tmp_path):
    file = tmp_path / f"north.{ending}"
    noon = pa.array([1_600_000_000_123 + i for i in range(10)]).view(pa.date64())
    late = pa.array([86_400_000 + i for i in range(10)], pa.int32()).view(pa.time32("ms"))
    WRITERS[ending](columns(seen=noon, until=late), file)
    assert len(task().data("north", path=str(file)).train) == 8
    whole = _site_files.read_table("north", str(file), [], Csv(), whole=True)
    assert "until" in whole.arrow.column_names


def test_a_dictionary_that_points_outside_is_told(tmp_path):
    codes = pa.array([0, 1, 7] + [0] * 7, pa.int32())
    words = pa.DictionaryArray.from_arrays(codes, pa.array(["cold", "hot"]), safe=False)
    pa.feather.write_feather(columns(ward=words), tmp_path / "north.feather")
    with pytest.raises(DataError, match="column 'ward': it is damaged; write the file anew"):
        _site_files.read_table("north", str(tmp_path / "north.feather"), ["ward"], Csv())

"""Four hospitals, each a process with a folder of its own patients, which no other process is told of."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from link_processes import Links, free_port

from hierfl.tasks.heart_disease import FEATURES, HeartDisease

TREE = {"us": ["cleveland", "long_beach"], "hungary": ["budapest"], "switzerland": ["zurich_basel"]}


def patients_of(site: str, folder: Path) -> Path:
    """Write a hospital's own patients into its own folder."""
    held, columns = HeartDisease(standardise="none").data(site), []
    for split in ("train", "test"):
        features, labels = getattr(held, split).tensors
        rows = dict(zip(FEATURES, features.T.numpy(), strict=True))
        columns.append({**rows, "disease": labels.numpy().astype(int), "split": [split] * len(labels)})
    folder.mkdir()
    place = folder / "patients.parquet"
    pq.write_table(pa.concat_tables(pa.table(each) for each in columns), place)
    return place


@pytest.mark.slow
def test_each_hospital_has_a_process_and_a_folder_of_its_own(tmp_path: Path) -> None:
    """The root has hubs and no patient, a hospital is killed, and the model is that of one machine with all folders."""
    port = free_port()
    hubs = [
        {
            "name": hub,
            "members": [
                {"name": site, "data": {"path": "patients.parquet"}, "link": {"address": f"localhost:{port}"}}
                for site in sites
            ],
        }
        for hub, sites in TREE.items()
    ]
    task = {"kind": "parquet", "features": list(FEATURES), "label": "disease", "split": "split"}
    hospitals = {site: f"{hub}/{site}" for hub, sites in TREE.items() for site in sites}
    folders = {site: patients_of(site, tmp_path / f"at_{site}") for site in hospitals}
    with Links(tmp_path, {"rounds": 6, "members": hubs}, task=task) as links:
        links.serve()

        def join(site: str) -> None:
            kit = f"pki/kits/world__{hospitals[site].replace('/', '__')}"
            words = ("--data", str(folders[site]), "--approve", links.plan(hospitals[site]))
            links.start(site, "join", "--kit", kit, *words)

        for site in hospitals:
            join(site)
        links.until("world", " 2/6 ")
        links.kill("long_beach")
        join("long_beach")
        for name in ("world", *hospitals):
            assert links.wait(name) == 0, links.said(name)
        assert not any("patients.parquet" in str(file) for file in (tmp_path / "runs").rglob("*"))
        own = (f"federation.members.{hospitals[s].replace('/', '.members.')}.data.path={p}" for s, p in folders.items())
        assert links.digest == links.simulated(*own)

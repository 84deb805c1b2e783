"""Artefacts of models: what is written loads again and predicts the same; everything else is refused."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from ct_assets.adapters import artefacts
from ct_assets.adapters.artefacts import Artefact, ArtefactRefused
from ct_assets.adapters.storage import LocalStorage


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "storage")


def fitted():
    from sklearn.ensemble import HistGradientBoostingRegressor

    rng = np.random.default_rng(0)
    x = rng.random((400, 3))
    return HistGradientBoostingRegressor(loss="poisson", max_iter=5, random_state=0).fit(x, x[:, 0] * 10), x


def test_a_saved_model_loads_and_predicts_the_same(storage: LocalStorage) -> None:
    model, x = fitted()
    artefact = artefacts.save(storage, "demand", {"models": {"mean": model}, "factors": {"mean": 1.25}})
    back = artefacts.load(storage, artefact)
    assert back["factors"] == {"mean": 1.25}
    np.testing.assert_array_equal(back["models"]["mean"].predict(x), model.predict(x))


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


@pytest.mark.fault("F30")
def test_f30_a_pickle_is_never_loaded_even_with_the_right_digest(storage: LocalStorage, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    data = pickle.dumps(Bomb(str(trap)))
    pickle.loads(data)
    assert trap.is_dir(), "the bomb does not work: this test would prove nothing"
    trap.rmdir()
    storage.put("models/demand/bomb.skops", data)
    with pytest.raises(ArtefactRefused, match="pickle is never loaded"):
        artefacts.load(storage, Artefact("models/demand/bomb.skops", hashlib.sha256(data).hexdigest()))
    assert not trap.exists()


@pytest.mark.fault("F30")
def test_f30_a_type_that_is_not_on_our_list_is_refused_by_name(storage: LocalStorage) -> None:
    import skops.io as sio

    data = sio.dumps({"run": os.system})
    storage.put("models/demand/x.skops", data)
    with pytest.raises(ArtefactRefused, match="system"):
        artefacts.load(storage, Artefact("models/demand/x.skops", hashlib.sha256(data).hexdigest()))


def test_changed_bytes_are_refused(storage: LocalStorage) -> None:
    model, _ = fitted()
    artefact = artefacts.save(storage, "demand", model)
    data = bytearray(storage.get(artefact.key))
    data[len(data) // 2] ^= 1
    storage.put(artefact.key, io.BytesIO(bytes(data)))
    with pytest.raises(ArtefactRefused, match="the ledger says"):
        artefacts.load(storage, artefact)


def test_another_library_needs_its_types_declared(storage: LocalStorage) -> None:
    import lightgbm

    x = np.random.default_rng(0).random((200, 2))
    model = lightgbm.LGBMRegressor(n_estimators=3, verbose=-1, n_jobs=1).fit(x, x[:, 0])
    artefact = artefacts.save(storage, "demand", model)
    with pytest.raises(ArtefactRefused, match="lightgbm"):
        artefacts.load(storage, artefact)
    trusted = frozenset({"lightgbm.sklearn.LGBMRegressor", "lightgbm.basic.Booster", "collections.OrderedDict"})
    back = artefacts.load(storage, artefact, trusted)
    np.testing.assert_array_equal(back.booster_.predict(x), model.booster_.predict(x))

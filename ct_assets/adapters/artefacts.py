"""Model artefacts: skops files in the storage port, loaded only when digest and every type are known.

What goes here: writing, checking and loading bytes of models. What does not: which model leads (``champion``), what
is inside (``training``). Pickle is never loaded (F30): there is no code path that unpickles.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from typing import Any

from ct_assets.adapters.storage import Storage
from ct_assets.errors import CtError

# Types beyond those that skops itself trusts (numpy and scikit-learn estimators of a fixed list). A library of yours is
# added by the trainer's `trusted_types`, which is code under review; never from the model's own file.
ALLOWED_TYPES = frozenset({"sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"})


class ArtefactRefused(CtError):
    """The bytes are not what the ledger says, are no skops file, or hold a type that is not on the list."""


@dataclass(frozen=True)
class Artefact:
    """Where a model's bytes lie and what they must hash to."""

    key: str
    sha256: str


def save(storage: Storage, model: str, fitted: Any) -> Artefact:
    """Write ``fitted`` (estimators in dicts, lists, numpy arrays, numbers) under a key made of its digest.

    The digest is of these bytes: a refit of the same model has another one, because skops writes object ids.
    """
    import skops.io as sio

    data = sio.dumps(fitted)
    digest = hashlib.sha256(data).hexdigest()
    key = f"models/{model}/{digest}.skops"
    storage.put(key, data)
    return Artefact(key, digest)


def load(storage: Storage, artefact: Artefact, trusted_types: frozenset[str] = frozenset()) -> Any:
    """The object behind ``artefact``; :class:`ArtefactRefused` names what does not fit. Nothing runs before the checks."""
    import skops.io as sio

    data = storage.get(artefact.key)
    found = hashlib.sha256(data).hexdigest()
    if found != artefact.sha256:
        raise ArtefactRefused(
            f"{artefact.key}: sha256 is {found}, the ledger says {artefact.sha256}",
            hint="the artefact was changed after it was registered; retrain, or restore the bytes",
        )
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise ArtefactRefused(f"{artefact.key}: not a skops file (pickle is never loaded)", hint="save it with skops")
    unknown = sorted(set(sio.get_untrusted_types(data=data)) - ALLOWED_TYPES - trusted_types)
    if unknown:
        raise ArtefactRefused(
            f"{artefact.key}: holds types that are not allowed: {', '.join(unknown[:5])}",
            hint="a trainer declares the types of its own library in `trusted_types`",
        )
    return sio.loads(data, trusted=sorted(ALLOWED_TYPES | trusted_types))

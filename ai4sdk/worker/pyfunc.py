"""How MLflow loads and asks a model package: the loader that its ``MLmodel`` names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai4sdk.worker.model import Model, load_model

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PackagedModel"]


class PackagedModel:
    """A package behind MLflow's ``predict``.

    Parameters
    ----------
    model
        The loaded model.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> pd.DataFrame | Any:
        """Predict for a DataFrame or an array.

        Returns
        -------
        pandas.DataFrame or numpy.ndarray
            One row a sample, as `ai4sdk.worker.prediction.Prediction.to_records` names its columns; an array where
            the model answers with several numbers a sample.
        """
        import pandas as pd

        prediction = self.model(data)
        if prediction.labels is None and (prediction.task == "other" or prediction.values.ndim > 1):
            return prediction.values
        return pd.DataFrame.from_records(prediction.to_records())


def _load_pyfunc(path: str) -> PackagedModel:
    """Load a package for MLflow; who loads a model through MLflow has told it to run the package's code."""
    return PackagedModel(load_model(Path(path).resolve(), trust_code=True))

"""The patients are those of the UCI files, and the module learns to tell them apart."""

import pytest
import pytorch_lightning as pl
import torch
from heart_disease import FEATURES, HOSPITALS, HeartDisease, patients
from torch.utils.data import DataLoader


def test_there_are_as_many_patients_and_ill_ones_as_the_data_are_known_to_have():
    found = {name: (len(patients(name)), int(patients(name).targets.sum())) for name in HOSPITALS}
    assert found == {
        "cleveland": (303, 139),
        "hungary": (294, 106),
        "switzerland": (123, 115),
        "long_beach": (200, 149),
    }


def test_all_patients_are_those_of_each_hospital_one_after_the_other():
    every = patients()
    assert len(every) == 920
    assert [every.hospital.count(name) for name in HOSPITALS] == [len(patients(name)) for name in HOSPITALS]
    assert torch.equal(every.inputs[:303], patients("cleveland").inputs)


def test_the_first_patient_is_described_as_in_the_file():
    x, y = patients("cleveland")[0]
    facts = dict(zip(FEATURES, x.tolist(), strict=True))
    assert facts["age"] == pytest.approx(0.8)
    assert (facts["male"], facts["typical angina"], facts["no pain"], facts["hypertrophy"]) == (1, 1, 0, 1)
    assert (facts["blood pressure"], facts["heart rate"]) == (pytest.approx(0.75), pytest.approx(0.4))
    assert facts["ST depression"] == pytest.approx(2.3)
    assert int(y) == 0


def test_what_was_not_recorded_is_what_is_usual():
    unknown = patients("long_beach").inputs[:, FEATURES.index("blood pressure")] == 0
    assert int(unknown.sum()) >= 56
    assert torch.isfinite(patients().inputs).all()


def test_an_unknown_hospital_is_refused_by_name():
    with pytest.raises(ValueError, match="no hospital 'boston'; there are cleveland"):
        patients("boston")


def test_it_learns_and_one_seed_gives_the_same_weights(tmp_path):
    def train():
        pl.seed_everything(0, verbose=False)
        model = HeartDisease()
        trainer = pl.Trainer(
            max_epochs=5, accelerator="cpu", deterministic=True, logger=False, default_root_dir=tmp_path,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        data = patients()
        trainer.fit(model, DataLoader(data, 16, shuffle=True), DataLoader(data, 64))
        return model.state_dict(), float(trainer.callback_metrics["val_accuracy"])

    (first, accuracy), (second, _) = train(), train()
    assert accuracy > 0.78
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_it_has_no_buffers_that_noise_could_not_cover():
    assert not list(HeartDisease().buffers())


def test_the_hidden_layers_are_those_asked_for():
    widths = [layer.out_features for layer in HeartDisease(hidden=[7, 3]).network if hasattr(layer, "out_features")]
    assert widths == [7, 3, 2]
    assert HeartDisease(hidden=[])(torch.zeros(1, 12)).shape == (1, 2)

"""A module is judged over whatever loaders give, and is left exactly as it was found."""

import json
import random

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ai4sdk.worker.evaluate import evaluate


class Linear(pl.LightningModule):
    """Batch norm, dropout and a counting buffer: everything that a careless evaluation would change."""

    def __init__(self, features=4, outputs=3):
        super().__init__()
        self.norm = nn.BatchNorm1d(features)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(features, outputs)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        return self.head(self.drop(self.norm(x)))


def pairs(x, y, batch=4):
    return DataLoader(TensorDataset(x, y), batch_size=batch)


@pytest.fixture
def x():
    return torch.randn(10, 4, generator=torch.Generator().manual_seed(1))


LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])


def test_a_classifier_is_recognised_and_judged(x):
    module = Linear()
    found = evaluate(module, pairs(x, LABELS), class_names=["a", "b", "c"])
    module.eval()
    expected = module(x).argmax(1)
    assert found.task == "classification"
    assert found.samples == 10
    assert found.outputs.shape == (10, 3)
    assert found.scores["accuracy"] == pytest.approx((expected == LABELS).float().mean().item())
    assert found.notes == []


def test_a_regressor_is_recognised_and_judged(x):
    found = evaluate(Linear(outputs=1), pairs(x, x.sum(1)))
    assert found.task == "regression"
    assert found.scores["mae"] > 0
    assert found.targets.shape == (10,)


def test_module_and_random_numbers_are_left_as_found(x):
    module = Linear()
    module.train()
    module.drop.eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    expected = torch.rand(2), np.random.rand(2), random.random()
    torch.manual_seed(3), np.random.seed(3), random.seed(3)

    class Noisy(torch.utils.data.Dataset):
        def __len__(self):
            return 10

        def __getitem__(self, index):
            return x[index] + torch.rand(1) + np.random.rand() + random.random(), LABELS[index]

    generator = torch.Generator().manual_seed(7)
    state = generator.get_state()
    evaluate(module, DataLoader(Noisy(), batch_size=3, shuffle=True, generator=generator))
    assert module.training
    assert module.norm.training
    assert not module.drop.training
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert torch.equal(expected[0], torch.rand(2))
    assert (expected[1] == np.random.rand(2)).all()
    assert expected[2] == random.random()
    assert torch.equal(state, generator.get_state())


def test_the_module_is_restored_when_the_data_fails(x):
    def broken():
        yield x[:4], LABELS[:4]
        raise OSError("the disk went away")

    module = Linear().train()
    with pytest.raises(OSError, match="went away"):
        evaluate(module, broken())
    assert module.training
    assert module.calls.item() == 0


def test_no_gradients_and_evaluation_mode(x):
    seen = []

    class Watched(Linear):
        def forward(self, x):
            seen.append((self.training, torch.is_grad_enabled()))
            return super().forward(x)

    evaluate(Watched(), pairs(x, LABELS))
    assert set(seen) == {(False, False)}


class StepOverBatch(Linear):
    def predict_step(self, batch, batch_idx):
        x, _ = batch
        return {"logits": self(x) * 2, "x": x}


class StepOverInputs(Linear):
    def predict_step(self, batch):
        return self(batch).argmax(1)


def test_predict_step_is_used_where_the_user_wrote_one(x):
    module = StepOverBatch()
    found = evaluate(module, pairs(x, LABELS))
    assert found.call == "predict_step_batch"
    with torch.no_grad():
        assert np.allclose(found.outputs, module.eval()(x).numpy() * 2, atol=1e-6)
    numbers = evaluate(StepOverInputs(), pairs(x, LABELS))
    assert numbers.call == "predict_step"
    assert numbers.scores["outputs"] == "labels"
    assert numbers.scores["log_loss"] is None


@pytest.mark.parametrize(
    "keys", [("x", "y"), ("input", "target"), ("inputs", "targets"), ("image", "label"), ("features", "label")]
)
def test_batches_may_be_mappings(x, keys):
    found = evaluate(Linear(), [{keys[0]: x, keys[1]: LABELS, "id": list(range(10))}])
    assert found.task == "classification"
    assert found.scores["samples"] == 10


@pytest.mark.parametrize("kind", [tuple, list])
def test_batches_may_carry_more_than_inputs_and_targets(x, kind):
    assert evaluate(Linear(), [kind((x, LABELS, ["note"] * 10))]).scores["samples"] == 10


@pytest.mark.parametrize(
    ("batch", "word"),
    [
        ("text", "of type str"),
        ({"tokens": 1}, "keys tokens"),
        ((), "of type tuple"),
        ((None, LABELS), "gives no predictions"),
    ],
)
def test_unknown_batches_are_noted(batch, word):
    found = evaluate(Linear(), [batch])
    assert found.task == "other"
    assert found.scores == {}
    assert word in found.notes[0]


def test_batches_without_targets_give_outputs_and_a_note(x):
    found = evaluate(Linear(), [x])
    assert found.outputs.shape == (10, 3)
    assert "no targets" in found.notes[0]


def test_answers_of_a_form_without_figures_are_noted(x):
    class Pictures(Linear):
        def forward(self, x):
            return super().forward(x)[:, :, None, None].expand(-1, -1, 5, 5)

    found = evaluate(Pictures(), pairs(x, torch.zeros(10, 5, 5, dtype=torch.long)))
    assert found.task == "other"
    assert "(10, 3, 5, 5)" in found.notes[0]


def test_a_module_without_forward_is_noted(x):
    found = evaluate(pl.LightningModule(), pairs(x, LABELS))
    assert "gives no predictions" in found.notes[0]


def test_a_failure_in_a_later_batch_is_raised(x):
    class Tired(Linear):
        def forward(self, x):
            if self.calls > 1:
                raise RuntimeError("tired")
            return super().forward(x)

    with pytest.raises(RuntimeError, match="tired"):
        evaluate(Tired(), pairs(x, LABELS))


def test_an_empty_split_is_noted():
    assert "no samples" in evaluate(Linear(), []).notes[0]


def test_outputs_that_do_not_fit_together_are_noted(x):
    class Growing(Linear):
        def forward(self, x):
            super().forward(x)
            return torch.zeros(len(x), 2 + int(self.calls))

    assert "different shapes" in evaluate(Growing(), pairs(x, LABELS)).notes[0]


def test_one_output_and_labels_of_two_classes_are_a_classifier(x):
    assert evaluate(Linear(outputs=1), pairs(x, LABELS % 2)).task == "classification"
    floats = evaluate(Linear(outputs=1), pairs(x, (LABELS % 2).float()))
    assert floats.task == "regression"
    assert "task: classification" in floats.notes[0]
    named = evaluate(Linear(outputs=1), pairs(x, (LABELS % 2).float()), class_names=["no", "yes"])
    assert named.task == "classification"
    assert evaluate(Linear(outputs=1), pairs(x, (LABELS % 2).float()), task="classification").scores["accuracy"] >= 0


def test_whole_numbers_to_be_guessed_by_one_output_are_a_regression(x):
    assert evaluate(Linear(outputs=1), pairs(x, LABELS * 10)).task == "regression"


def test_one_hot_targets_are_read_as_classes(x):
    found = evaluate(Linear(), pairs(x, nn.functional.one_hot(LABELS)))
    assert found.task == "classification"
    assert "One-hot" in found.notes[0]


def test_a_task_that_does_not_fit_is_noted(x):
    found = evaluate(Linear(outputs=1), pairs(x, x[:, :2]), task="regression")
    assert "as many outputs as targets" in found.notes[0]
    assert found.scores == {}
    assert evaluate(Linear(), pairs(x, LABELS), task="other").notes == []


def test_predictions_that_are_no_numbers_are_noted(x):
    module = Linear()
    nn.init.constant_(module.head.bias, float("nan"))
    found = evaluate(module, pairs(x, LABELS))
    assert found.scores["non_finite"] == 10
    assert "10 of 10 predictions are not finite" in found.notes[0]


def test_half_and_double_precision_modules_get_their_own_numbers(x):
    for dtype in (torch.float64, torch.bfloat16):
        found = evaluate(Linear().to(dtype), pairs(x, LABELS))
        assert found.task == "classification"
        assert found.outputs.dtype == (np.float64 if dtype is torch.float64 else np.float32)


def test_what_is_saved_can_be_read_without_this_package(x, tmp_path):
    found = evaluate(Linear(), pairs(x, LABELS))
    found.save(tmp_path / "evaluation")
    written = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert written["task"] == "classification"
    assert written["accuracy"] == found.scores["accuracy"]
    with np.load(tmp_path / "evaluation" / "predictions.npz", allow_pickle=False) as arrays:
        assert arrays["outputs"].shape == (10, 3)
        assert (arrays["targets"] == LABELS.numpy()).all()
    assert sorted(path.name for path in (tmp_path / "evaluation").iterdir()) == ["metrics.json", "predictions.npz"]

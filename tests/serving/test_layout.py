"""Convolutions have their channels last only where that is faster and changes no answer."""

import pytest
import torch
from torch import nn

from ai4sdk.serving.layout import lay_out

X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Viewing(nn.Module):
    """Works only on tensors that lie as they came."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x).view(len(x), -1)


class Counting(Viewing):
    """Answers by how a tensor lies."""

    def forward(self, x):
        return torch.tensor([self.conv(x).stride(1)])


def laid_out(module, *seconds):
    times = iter(seconds)
    with torch.no_grad():
        return lay_out(module, lambda: [module(X[:1]), module(X)], alike, lambda: next(times))


def alike(found, exact):
    return found.shape == exact.shape and torch.allclose(found, exact, atol=1e-4)


def is_last(module):
    return all(each.is_contiguous(memory_format=torch.channels_last) for each in module.parameters() if each.ndim == 4)


@pytest.fixture
def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten()).eval()


@torch.no_grad()
def test_channels_are_last_where_that_is_faster(network):
    exact = network(X)
    assert laid_out(network, 0.02, 0.01)
    assert is_last(network)
    assert alike(network(X), exact)


@torch.no_grad()
def test_all_stays_as_it_was_where_it_is_not(network):
    exact, lay = network(X), [each.stride() for each in network.parameters()]
    assert not laid_out(network, 0.01, 0.00999)
    assert [each.stride() for each in network.parameters()] == lay
    assert torch.equal(network(X), exact)


@pytest.mark.parametrize("kind", [Viewing, Counting])
def test_a_module_that_minds_keeps_its_layout(kind):
    module = kind().eval()
    assert not laid_out(module, 0.02, 0.01)
    assert not is_last(module)
    module(X)


def test_what_has_no_convolution_of_pictures_is_not_measured():
    assert not laid_out(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)))


@torch.no_grad()
def test_weights_that_two_layers_share_stay_shared():
    twice = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)).eval()
    twice[1].weight = twice[0].weight
    assert laid_out(twice, 0.02, 0.01)
    assert twice[1].weight is twice[0].weight
    assert is_last(twice)

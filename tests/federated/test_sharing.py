"""Only what is to be shared travels."""

from __future__ import annotations

import pytest
from torch import nn

from ai4sdk.errors import RunFailed
from ai4sdk.federated.sharing import Sharing


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def travelling(*patterns: str, batchnorm: str = "average") -> set[str]:
    module = network()
    sharing = Sharing(module, patterns or ("*",), batchnorm)  # type: ignore[arg-type]
    state = sharing.shared_of(module)
    names = {*state.parameters, *state.buffers}
    assert names.isdisjoint(sharing.own_of(module))
    assert names | set(sharing.own_of(module)) == set(network().state_dict())
    return names


def test_all_is_shared_unless_it_is_said_otherwise() -> None:
    assert travelling() == set(network().state_dict())


def test_batch_normalisation_may_stay_at_the_sites_whole_or_its_statistics_alone() -> None:
    assert travelling(batchnorm="local") == {"0.weight", "0.bias", "2.weight", "2.bias"}
    statistics = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert travelling(batchnorm="local_statistics") == set(network().state_dict()) - statistics


def test_patterns_name_what_is_shared() -> None:
    assert travelling("0.*") == {"0.weight", "0.bias"}
    assert travelling("?.weight", "1.*", batchnorm="local") == {"0.weight", "2.weight"}


def test_frozen_parameters_never_travel() -> None:
    module = network()
    module[0].requires_grad_(False)  # type: ignore[index]
    state = Sharing(module, ("*",), "average").shared_of(module)
    assert not any(name.startswith("0.") for name in state.parameters)


def test_a_pattern_that_fits_nothing_is_named_with_what_there_is() -> None:
    with pytest.raises(RunFailed, match=r"'backbone.\*' fits no parameter") as raised:
        Sharing(network(), ("backbone.*",), "average")
    assert "0.weight" in str(raised.value.hint)


def test_a_federation_that_shares_no_parameter_is_none() -> None:
    with pytest.raises(RunFailed, match="no parameter is shared"):
        Sharing(network(), ("1.*",), "local")

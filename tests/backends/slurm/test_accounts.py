"""Accounts and qualities of service that Slurm would refuse are refused before, and those it would take never are."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ai4sdk
from ai4sdk.backends.slurm.accounts import Accounting, problems, read_associations

# As sacctmgr of Slurm 22.05 answers of a user, with a row more for a second cluster of the same database.
SACCTMGR = """\
tests|fish|fish||normal,short
tests|fish|deep|urgent|long,normal,short
tests|fish|root||normal
other|birds|birds||normal,heron
"""
QUALITIES = frozenset(("normal", "short", "long", "heron"))
ENFORCED = frozenset(("associations", "limits", "qos"))


def found(*overrides: str, enforced: frozenset[str] = ENFORCED, account: str | None = None) -> dict[str, str]:
    plan = ai4sdk.plan("train", "+backend={kind: slurm}", *(f"++backend.{word}" for word in overrides))
    known = Accounting(read_associations(SACCTMGR, "tests"), QUALITIES, enforced)
    return {f"{one.key}": f"{one.message} → {one.fix}" for one in problems(plan, known, ["main"], account)}


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("account=fish",),
        ("account=FISH", "qos=Short"),
        ("qos=short",),
        ("account=deep", "partition=urgent", "qos=long"),
        ("account=deep", "partition='main,urgent'"),
        ("account=birds", "directives={clusters: other}"),
    ],
)
def test_what_the_user_may_have_is_never_refused(project: Path, overrides: tuple[str, ...]) -> None:
    assert found(*overrides) == {}


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ("account=fsh",),
            "you may use no account fsh on this cluster; there are deep, fish, root → backend.account=fish",
        ),
        (("account=birds",), "you may use no account birds on this cluster; there are deep, fish, root → None"),
        (
            ("account=deep",),
            "account deep may not be used in partition main, only in urgent → backend.partition=urgent",
        ),
        (
            ("qos=shrt",),
            "the cluster has no quality of service shrt; account fish may have normal, short → backend.qos=short",
        ),
        (
            ("qos=long",),
            "quality of service long is for deep; account fish may have normal, short → backend.account=deep",
        ),
        (("qos=heron",), "you may not have quality of service heron; account fish may have normal, short → None"),
        (("account=root", "qos=short"), "quality of service short is for deep, fish; account root may have normal"),
    ],
)
def test_what_is_wrong_is_told_with_what_there_is(project: Path, overrides: tuple[str, ...], told: str) -> None:
    ((key, text),) = found(*overrides).items()
    assert text.startswith(told)
    assert key == f"backend.{overrides[-1].partition('=')[0]}"


def test_both_are_told_at_once(project: Path) -> None:
    assert set(found("account=deep", "partition=main", "qos=heron", account="fish")) == {"backend.account"}
    assert set(found("qos=long", account="root")) == {"backend.qos"}, "the account of the environment counts"
    assert found("qos=long", "partition=urgent", account="deep") == {}


@pytest.mark.parametrize("enforced", [frozenset(), frozenset(("wckeys",))])
def test_where_slurm_takes_any_name_nothing_is_refused(project: Path, enforced: frozenset[str]) -> None:
    assert found("account=nobody", "qos=never", enforced=enforced) == {}
    assert set(found("account=nobody", "qos=never", enforced=frozenset(("associations",)))) == {"backend.account"}


@given(st.text())
def test_an_answer_that_is_not_understood_says_nothing(text: str) -> None:
    assert read_associations(text, "tests") == []

"""For tests of what others add to ai4sdk: contracts to keep, and a small project to keep them with."""

import pytest

pytest.register_assert_rewrite("ai4sdk.testing.backends", "ai4sdk.testing.helpers")

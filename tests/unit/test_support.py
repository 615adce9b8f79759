import pytest
from support import require


def test_a_missing_requirement_skips_a_test_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    require(True, "unused")
    with pytest.raises(pytest.skip.Exception, match="no engine"):
        require(False, "no engine")


def test_a_missing_requirement_fails_a_test_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    require(True, "unused")
    with pytest.raises(pytest.fail.Exception, match="no engine"):
        require(False, "no engine")

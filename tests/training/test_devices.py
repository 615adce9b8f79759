"""The precision of a fit depends on the CPU flags in Linux' /proc/cpuinfo."""

from pathlib import Path

import pytest

from training.devices import cpu_has_bfloat16, supported_precision

X86 = "processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_vnni {}\n"
ARM = "processor\t: 0\nBogoMIPS\t: 2100.00\nFeatures\t: fp asimd asimddp sve i8mm {}\n"


@pytest.fixture
def cpu_info(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr("training.devices._CPU_INFO", path)
    monkeypatch.setattr("training.devices._has_accelerator", lambda: False)
    return path


@pytest.mark.parametrize("text", [X86.format("avx512_bf16"), X86.format("amx_bf16 amx_int8"), ARM.format("bf16 dgh")])
def test_a_cpu_with_bfloat16_instructions_uses_them(text: str, cpu_info: Path) -> None:
    cpu_info.write_text(text)
    assert cpu_has_bfloat16()
    assert supported_precision("mixed_bfloat16") == "mixed_bfloat16"


@pytest.mark.parametrize("text", [X86.format(""), ARM.format(""), ARM.format("svebf16"), None])
def test_any_other_cpu_falls_back_to_float32_with_a_message(
    text: str | None, cpu_info: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        cpu_info.write_text(text)
    assert supported_precision("mixed_bfloat16") == "float32"
    assert capsys.readouterr().out == "This CPU has no bfloat16 instructions: fitting in float32 instead.\n"


def test_an_accelerator_uses_bfloat16_whatever_the_cpu_has(cpu_info: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu_info.write_text(X86.format(""))
    monkeypatch.setattr("training.devices._has_accelerator", lambda: True)
    assert supported_precision("mixed_bfloat16") == "mixed_bfloat16"


def test_float32_stays_float32(cpu_info: Path) -> None:
    cpu_info.write_text(X86.format("avx512_bf16"))
    assert supported_precision("float32") == "float32"

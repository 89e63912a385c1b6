"""What a machine has, told without torch."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune_rnn import machine


@pytest.mark.parametrize(
    ("cpuinfo", "bf16", "name"),
    [
        ("model name\t: Fast 9000\nflags\t: avx512f avx512_bf16 amx_tile\n", True, "Fast 9000"),
        ("model name : Slow 1 \nmodel name : Slow 1\nflags : avx512f bf16x\n", False, "Slow 1"),
        ("Features : fp asimd bf16 i8mm\n", True, None),
        ("", True, None),
    ],
)
def test_a_processor_tells_its_name_and_whether_it_has_bf16(
    cpuinfo: str, bf16: bool, name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_cpuinfo", lambda: cpuinfo)
    assert machine.computes_bf16() is bf16
    assert name is None or machine.processor_name() == name


def test_a_gpu_is_told_by_its_device_or_by_its_vendor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr(machine, "GPU_DEVICES", (str(tmp_path / "device"),))
    monkeypatch.setattr(machine, "PCI", tmp_path / "pci")
    vendor = tmp_path / "pci" / "0000:00:02.0" / "vendor"
    vendor.parent.mkdir(parents=True)
    vendor.write_text("0x8086\n")
    assert not machine.may_have_gpu()
    vendor.write_text("0x10de\n")
    assert machine.may_have_gpu()
    vendor.unlink()
    (tmp_path / "device").touch()
    assert machine.may_have_gpu()


def test_only_linux_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Windows")
    assert machine.may_have_gpu()

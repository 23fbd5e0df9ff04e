"""Where training could run: cards by name (`configs/devices.yaml`), and this machine as it was measured."""

from pydantic import Field

from pocketloop.contracts.parts import Name, Part, Share


class Device(Part):
    """A card, or this machine's processor.

    `memory_gb` (10^9 bytes) is what a program sees of it; `reserved_gb` of that is taken before training holds
    anything (driver context and libraries). `tflops` (10^12 a second, dense) as published; `bf16: null` means that it
    has no bfloat16 in hardware and trains in float32. `bandwidth_gbs` (10^9 bytes a second) bounds generation.
    `utilisation` is the share of `tflops` that training is expected to reach.
    """

    title: str
    memory_gb: float = Field(gt=0)
    reserved_gb: float = Field(default=1.0, ge=0)
    tflops_bf16: float | None = Field(default=None, gt=0)
    tflops_fp32: float = Field(gt=0)
    bandwidth_gbs: float = Field(gt=0)
    utilisation: Share = 0.35
    gpu: bool = True

    @property
    def half(self) -> bool:
        """Whether training runs in bfloat16 on it."""
        return self.tflops_bf16 is not None

    @property
    def usable_bytes(self) -> float:
        """What training may hold."""
        return (self.memory_gb - self.reserved_gb) * 1e9

    @property
    def flops(self) -> float:
        """Floating point operations a second that training is expected to reach."""
        return (self.tflops_bf16 or self.tflops_fp32) * 1e12 * self.utilisation


class Devices(Part):
    """`configs/devices.yaml`."""

    devices: dict[Name, Device] = Field(min_length=1)

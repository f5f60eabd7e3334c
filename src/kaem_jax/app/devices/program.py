"""The cost of a compiled program on one chip, read from its text: products, cycles, messages.

XLA's own analysis counts the body of a loop once. Here every computation is counted as often as it runs: trip counts
are read from the loops' conditions.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8,
    "u64": 8, "f64": 8,
}  # fmt: skip
_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.+?) ([a-z][\w\-]*)\((.*)$")
_SHAPE = re.compile(r"([a-z]\w*)\[([\d,]*)\]")
_OPERAND = re.compile(r"%([\w.\-]+)")
_TRIPS = re.compile(r'known_trip_count[":{\s]+n[":\s]+(\d+)')
_NAME = re.compile(r'op_name="([^"]*)"')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


class Collective(NamedTuple):
    """Messages between chips.

    Attributes:
      kind: the operation, such as `all-reduce`.
      num_bytes: size of its result on one chip.
      times: how often it runs in a call.
      is_asynchronous: whether the chip can compute meanwhile.
    """

    kind: str
    num_bytes: float
    times: int
    is_asynchronous: bool = False


@dataclasses.dataclass
class Cost:
    """The cost of one call on one chip.

    Attributes:
      flops: operations of matrix products and convolutions; a multiplication and an addition count as two.
      cycles: cycles in XLA's own schedule, 0 if the compiler does not count them (it does for TPUs).
      collectives: messages.
      parts: cycles by the name of the operation in the traced program.
    """

    flops: float = 0.0
    cycles: float = 0.0
    collectives: list[Collective] = dataclasses.field(default_factory=list)
    parts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)


class _Instruction(NamedTuple):
    name: str
    shape: str
    opcode: str
    rest: str  # operands and attributes
    is_root: bool

    @property
    def operands(self) -> list[str]:
        return _OPERAND.findall(self.rest.split("), ")[0])

    def called(self, attribute: str) -> list[str]:
        match = re.search(attribute + r"=(\{[^}]*\}|%?[\w.\-]+)", self.rest)
        return re.findall(r"[\w.\-]+", match.group(1)) if match else []

    def sizes(self, attribute: str) -> list[int]:
        match = re.search(attribute + r"=\{?([\d,x]*)", self.rest)
        return [int(size) for size in re.findall(r"\d+", match.group(1))] if match else []


_Program = dict[str, dict[str, _Instruction]]


def measure(text: str) -> Cost:
    """The cost of a compiled program, `compiled.as_text()`."""
    program, entry = _parse(text)
    cost = Cost()
    _add(cost, program, entry, 1)
    return cost


def _parse(text: str) -> tuple[_Program, str]:
    program: _Program = {}
    entry, current = "", None
    for line in re.sub(r"/\*.*?\*/", "", text).splitlines():
        if current is None or not line.startswith(" "):
            if (match := _COMPUTATION.match(line)) and "=" not in line.split("(")[0]:
                current = program.setdefault(match.group(2), {})
                entry = match.group(2) if match.group(1) else entry
        elif match := _INSTRUCTION.match(line):
            root, name, shape, opcode, rest = match.groups()
            current[name] = _Instruction(name, shape, opcode, rest, bool(root))
    return program, entry


def _add(cost: Cost, program: _Program, name: str, times: int) -> None:
    """Adds computation `name`, which runs `times` times."""
    here = program[name]
    for instruction in here.values():
        opcode = instruction.opcode
        if opcode == "while":
            for body in instruction.called("body"):
                _add(cost, program, body, times * _num_trips(program, instruction))
        elif opcode in ("call", "async-start"):
            for called in instruction.called("to_apply") + instruction.called("calls"):
                _add(cost, program, called, times)
        elif opcode == "conditional":
            branches = instruction.called("branch_computations") or [
                *instruction.called("true_computation"), *instruction.called("false_computation")
            ]  # fmt: skip
            _add_largest(cost, program, branches, times)
        cost.flops += times * _flops(program, here, instruction)
        if found := _CYCLES.search(instruction.rest):
            cost.cycles += times * int(found.group(1))
            named = _NAME.search(instruction.rest)
            cost.parts[named.group(1) if named else opcode] += times * int(found.group(1))
        kind = opcode.removesuffix("-start")
        if kind in _COLLECTIVES:
            cost.collectives.append(Collective(kind, _result_size(here, instruction), times, kind != opcode))


def _result_size(here: dict[str, _Instruction], instruction: _Instruction) -> float:
    """Bytes of a collective's result. The shape at a start may include the source too."""
    size = _size(instruction.shape)
    names_source = instruction.opcode in ("all-gather-start", "collective-permute-start")
    if names_source or (instruction.opcode.endswith("-start") and instruction.shape.startswith("((")):
        size -= sum(_size(here[name].shape) for name in instruction.operands if name in here)
    return size


def _add_largest(cost: Cost, program: _Program, branches: list[str], times: int) -> None:
    """Adds the branch with most products, since only one branch runs."""
    costs = [Cost() for _ in branches]
    for branch, found in zip(branches, costs, strict=True):
        _add(found, program, branch, times)
    largest = max(costs, key=lambda found: (found.flops, found.cycles), default=Cost())
    cost.flops += largest.flops
    cost.cycles += largest.cycles
    cost.collectives += largest.collectives
    cost.parts += largest.parts


def _num_trips(program: _Program, loop: _Instruction) -> int:
    if match := _TRIPS.search(loop.rest):
        return int(match.group(1))
    # Without the compiler's own count: the loop counts from 0, and its condition compares with a constant.
    for condition in loop.called("condition"):
        here = program[condition]
        for compare in (i for i in here.values() if i.is_root and i.opcode == "compare" and "direction=LT" in i.rest):
            constants = [here[name] for name in compare.operands if name in here and here[name].opcode == "constant"]
            if constants and (number := re.match(r"(\d+)\)", constants[-1].rest)):
                return int(number.group(1))
    return 1


def _flops(program: _Program, here: dict[str, _Instruction], instruction: _Instruction) -> float:
    if instruction.opcode == "fusion":
        return sum(
            _flops(program, program[called], inner)
            for called in instruction.called("calls")
            for inner in program[called].values()
        )
    opcode = instruction.opcode
    library = re.search(r'custom_call_target="(__cudnn\$conv|__cublas)(\w*)', instruction.rest)
    if opcode not in ("dot", "convolution") and not (opcode == "custom-call" and library):
        return 0.0
    shapes = [_dims(here[name].shape) for name in instruction.operands if name in here]
    if len(shapes) < 2:
        return 0.0
    left, right, result = *shapes[:2], _dims(instruction.shape)
    if opcode == "dot" or (library and library.group(1) == "__cublas"):
        contracted = instruction.sizes("lhs_contracting_dims") or _contracted_by_library(instruction)
        return 2.0 * math.prod(result) * math.prod(left[i] for i in contracted)
    # GPUs call a library. Its calls for gradients also have the labels and window of the forward convolution.
    direction = library.group(2) if library else ""
    if direction == "BackwardInput":
        return _flops_of_convolution(instruction, data=result, kernel=right, out=left)
    if direction == "BackwardFilter":
        return _flops_of_convolution(instruction, data=left, kernel=result, out=right)
    return _flops_of_convolution(instruction, data=left, kernel=right, out=result)


def _contracted_by_library(product: _Instruction) -> list[int]:
    found = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', product.rest)
    return [int(axis) for axis in re.findall(r"\d+", found.group(1))] if found else []


def _flops_of_convolution(instruction: _Instruction, data: list[int], kernel: list[int], out: list[int]) -> float:
    found = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.rest)
    assert found is not None
    of_data, of_kernel, of_out = found.groups()
    flops = 2.0 * math.prod(out) * kernel[of_kernel.index("i")]
    for axis, (size, stride, padding, data_step, kernel_step) in enumerate(_windows(instruction)):
        # Zeros of margins and between dilated data are not multiplied. Batched products are written in this way, too.
        num_data, num_out = data[of_data.index(str(axis))], out[of_out.index(str(axis))]
        positions = (i * stride - padding + k * kernel_step for i in range(num_out) for k in range(size))
        used = sum(p % data_step == 0 and 0 <= p // data_step < num_data for p in positions)
        flops *= used / num_out
    return flops


def _windows(convolution: _Instruction) -> Iterator[tuple[int, int, int, int, int]]:
    """Size, stride, padding before, dilation of the data and of the kernel, for each spatial dimension."""
    window = re.search(r"window=\{([^}]*)\}", convolution.rest)
    fields = dict(re.findall(r"(\w+)=(\S+)", window.group(1))) if window else {}
    sizes = fields.get("size", "").split("x") if "size" in fields else []
    for axis, size in enumerate(sizes):

        def of_axis(name: str, default: str, axis: int = axis) -> int:
            values = fields.get(name, "x".join([default] * len(sizes))).split("x")
            return int(values[axis].split("_")[0])

        yield (
            int(size), of_axis("stride", "1"), of_axis("pad", "0_0"), of_axis("lhs_dilate", "1"),
            of_axis("rhs_dilate", "1"),
        )  # fmt: skip


def _dims(shape: str) -> list[int]:
    match = _SHAPE.search(shape)
    return [int(size) for size in match.group(2).split(",") if size] if match else []


def _size(shape: str) -> float:
    """Bytes of a shape, all parts of a tuple together."""
    return sum(
        _BYTES[kind] * math.prod(int(size) for size in dims.split(",") if size)
        for kind, dims in _SHAPE.findall(shape)
        if kind in _BYTES
    )

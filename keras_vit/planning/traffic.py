"""What a program reads from and writes to a device's memory."""

from keras_vit.planning.hlo import INSTRUCTION, Program, arrays, operands

# What hands on what is there, or ends what another has begun.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "partition-id"),
    *("while", "conditional", "call", "iota", "after-all", "opt-barrier"),
}
_ON_CHIP = "S("  # of a layout: in one of the memories beside HBM


def moved_bytes(program: Program) -> int:
    """Bytes that the instructions of a program read from and write to HBM.

    Each instruction reads its operands and writes its result, both as a whole; what the
    compiler keeps in the memories of the chip itself does not count.

    Args:
        program: `Program`, of one of the devices.
    """
    total = 0
    for name, lines in program.computations.items():
        if program.times[name] and name not in program.inner:
            moved = sum(_moved(line, program.instructions) for line in lines)
            total += program.times[name] * moved
    return total


def _moved(line, instructions) -> int:
    match = INSTRUCTION.match(line)
    if not match:
        return 0
    _, shape, operation = match.groups()
    if operation in _FREE or operation.endswith("-done") or 'Bitcast"' in line:
        return 0
    results = arrays(shape)
    if operation == "copy-start":  # from and to
        return _in_memory(results)
    if operation == "slice-start":  # of the operand, which comes first, a slice
        (_, source), *_, (size, result) = results
        return size * sum(_ON_CHIP not in layout for layout in (source, result))
    if operation.endswith("-start"):  # operands stand beside the results
        return _in_memory(results)
    read = 0
    for operand in operands(line):
        if operand in instructions:
            read += _in_memory(arrays(INSTRUCTION.match(instructions[operand])[2]))
    return read + _in_memory(results)


def _in_memory(found) -> int:
    return sum(size for size, layout in found if _ON_CHIP not in layout)

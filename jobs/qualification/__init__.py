"""Finds out whether a pool can do what it is wanted for: as ordinary attempts on its own nodes.

    host_reference.py what the model does on the host: a stage of its own, before the others
    nodes.py          one worker a node, with all its chips: what each chip can do by itself
    all_chips.py      one worker a chip, over the whole pool: what they can do together
    bench.py          what every check works with, and how it says what it found
    report.py         what all workers found, as a table, as JSON, as metrics
    devices.py        the chips that are there, their bandwidth
    memory.py         the memory that they have, and keep
    maker.py          the diagnostic of the chip's maker
    memory_errors.py  what errors of memory the chips have counted meanwhile
    products.py       matrix products, element by element, and their rate
    exact.py          whole numbers whose products are exact
    number_types.py   the kinds of numbers that a pool relies on
    reduced.py        the pipeline's own model, cut to two layers of its width
    vocabulary.py     stands for its tokenizer
    operators.py      its operators, one by one
    coverage.py       how each is tried where it comes up
    absolute_error.py how far results are from the right ones, infinite ones too
    ties.py           operators that give places of values
    fused.py          operators that do several things at once (`fused_table.py`), against theirs
    composites.py     what those are made of
    attention.py      the kernels of attention against what it is made of
    rounded.py        arithmetic as accelerators may have it, done by the host
    logits.py         what the model says, against the host
    collectives.py    right, how fast, who comes late
    patterns.py       what goes into them, and must come out
    links.py          what they carry, and how fast, in pairs and in each node
    curve.py          a short training, of a gang or of the host
    training.py       the same seed twice, the losses of the host, checkpoints
    layers.py         work that gives the same bits each time
    pace.py           whether one chip lags behind the others, and all of them for a while

A check that fails says so and lets the next one go on; what breaks a chip or a link ends the
attempt, and is classified as any failure is. No figure of an emulated pool is the chip's.
"""

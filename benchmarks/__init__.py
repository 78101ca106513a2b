"""The scripts behind every figure that is quoted: ``python -m benchmarks.NAME --help``, from the repository's root.

A script writes a record to ``benchmarks/results/``. Pages and pictures in ``docs/measured/`` are made of the record
alone; the option ``--table`` makes both again of the stored record.
"""

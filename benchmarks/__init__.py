"""The scripts behind every figure that is quoted: ``python -m benchmarks.NAME --help``, from the repository's root.

A script writes a record to ``benchmarks/results/`` and, of that record alone, its pages and pictures to
``docs/measured/``; with ``--table`` it makes them again of the record that is there. ``common`` has what scripts share.
"""

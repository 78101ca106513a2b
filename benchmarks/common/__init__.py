"""What benchmarks share.

``harness`` runs an experiment and writes its record, its page and its picture (``record``, ``table``, ``picture``).
``variants`` measures versions of one network: cost, score, and latency in interleaved runs. ``networks`` has the
trained networks and their images, ``transferring`` trains, ``commands`` runs ``edgekron`` as a user would.
"""

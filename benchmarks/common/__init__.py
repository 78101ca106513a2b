"""What benchmarks share.

``harness`` runs an experiment and writes what comes of it (``record``, ``table``, ``picture``). ``variants`` takes
versions of one network to their cost, score and latency in interleaved runs. ``networks`` has the trained networks and
their images, ``transferring`` trains, ``commands`` runs ``edgekron`` as a user would.
"""

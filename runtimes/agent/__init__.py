"""The agent: exactly the code that runs on a board, be it this machine, a Raspberry Pi or a phone.

``edgekron.runtimes.archive`` packs this folder, and nothing else, into one file that is copied there. So every module
here keeps to Python 3.9 and imports only its neighbours, the standard library and numpy; ``backends`` and ``arena``
alone import the runtimes of model files.

    main        the commands of the packed file; ``requests`` carries out the long ones
    worker      the process that runs one model; ``connection`` is the near end of its pipe
    rounds      several files measured against each other; ``proof``, ``profile``, ``arena``, ``marks``: one file
    messages    the types of all that the agent answers
    store       files, jobs and the lock that the agent keeps on the board
    backends    one module a runtime
"""

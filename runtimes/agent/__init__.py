"""What runs on a board: Python 3.9, its standard library, numpy and a runtime; nothing else of the project."""

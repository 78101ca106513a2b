"""The budget of this project as a test: ``pytest``, or ``pytest --edgekron-on emulated:pi4``."""


def test_the_small_file_keeps_its_budget(edgekron_check):
    edgekron_check("budget.toml", model="small")

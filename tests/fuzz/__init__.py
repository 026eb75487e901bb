"""Properties that hold for any bytes, each in a module with `opened`: a check that takes bytes and raises where one
does not hold.

`python -m tests.fuzz NAME -runs=N` searches with atheris; tests/unit/test_fuzz.py plays what hypothesis draws and what
was found before (tests/data/corpus/NAME/).
"""

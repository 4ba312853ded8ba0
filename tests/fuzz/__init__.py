"""Files from strangers: whatever is in them, a text or a model comes out, or one line that says why not.

targets.py has the readers, and what of them must hold for any bytes; seeds.py the files that mutations begin with;
found.py what was found. `python -m tests.fuzz TARGET --minutes 10` searches for more, guided by coverage.
"""

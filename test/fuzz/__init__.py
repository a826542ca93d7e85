"""
Feeds damaged input to everything in this package that reads what others wrote.

    cd test && python -m fuzz --runs 1000000 --json fuzz.json

Every target is a function of bytes. It ends quietly if the reader refuses the input with its own
documented error, or accepts it and returns what it promises; anything else is a finding.
"""

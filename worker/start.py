"""Start a process quickly: `python -m worker.start MODULE ARGUMENTS…` runs `main()` of a module or package.

A process that loads torch or scipy makes millions of objects. Meanwhile Python looks for garbage a hundred times and
finds none, because modules stay. Without that it starts sooner.
"""

import gc
import sys
from importlib import import_module
from importlib.util import find_spec


def main() -> None:
    """Import the module without collections of garbage, and run its `main()` with the other arguments."""
    gc.disable()
    name = sys.argv.pop(1)
    if (found := find_spec(name)) is not None and found.submodule_search_locations is not None:
        name += ".__main__"
    run = import_module(name).main
    gc.freeze()  # what was loaded is never garbage; later collections need not look at it
    gc.enable()
    run()


if __name__ == "__main__":
    main()

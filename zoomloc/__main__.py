"""``python -m zoomloc`` is ``zoomloc``."""

from zoomloc.cli import main

main()

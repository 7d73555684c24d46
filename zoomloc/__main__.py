"""``python -m zoomloc`` is ``zoomloc``."""

from zoomloc.cli import main

if __name__ == "__main__":
    main()

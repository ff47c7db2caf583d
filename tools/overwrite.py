"""overwrite.py - the Python tools make files of the repository anew; anywhere else they write over nothing unless --force says so."""
import os


def add_flag(parser):
    parser.add_argument("--force", action="store_true", help="write over existing files outside the repository's own place for them")


def check(parser, args, given, own, names=("",)):
    """Ends the program with status 2 if a file or folder `given`/name exists, --force was not given, and `given` is not the place `own`."""
    for path in (os.path.join(given, name) if name else given for name in names):
        if os.path.exists(path) and not args.force and os.path.abspath(given) != os.path.abspath(own):
            parser.error(f"{path}: not overwritten without --force: it exists")

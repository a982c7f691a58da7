"""What the programs share: one-line errors, exit codes, progress, files that appear whole."""
import argparse
import contextlib
import hashlib
import os
import re
import shutil
import sys
import time
from pathlib import Path

USAGE, INPUT = 2, 3


class Failure(Exception):
    """An error that the user can act on; `main` prints it as one line and exits with `code`."""

    def __init__(self, what, where, remedy, code=INPUT):
        line = f"error: {what}, {where}, {remedy}"
        super().__init__(re.sub(r"\s+", " ", line))
        self.code = code


class ArgumentParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def __init__(self, description, example):
        super().__init__(description=description, epilog=f"example:\n  {example}",
                         formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message):
        raise Failure(message, "command line", f"see {self.prog} --help", USAGE)


def run(main):
    """Run `main()` as the whole program."""
    try:
        main()
    except Failure as failure:
        print(failure, file=sys.stderr)
        sys.exit(failure.code)
    except OSError as error:
        print(f"error: {error.strerror or error}, {error.filename or 'file system'}, "
              "check the path, its permissions and the free space", file=sys.stderr)
        sys.exit(INPUT)


class Progress:
    """Prints count, rate and time left every five seconds; silent for anything shorter."""

    def __init__(self, name, total, unit):
        self.name, self.total, self.unit = name, total, unit
        self.start = self.printed = time.monotonic()

    def update(self, done, note=""):
        """Say that `done` of `total` units are finished."""
        now = time.monotonic()
        if now - self.printed < 5 or done == 0:
            return
        self.printed = now
        rate = done / (now - self.start)
        left = (self.total - done) / rate
        print(f"{self.name}: {done}/{self.total} {self.unit}, {rate:.3g} {self.unit}/s, "
              f"{left:.0f} s left{note}", flush=True)


def sha256(path):
    """SHA-256 of a file, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path):
    """Flush a file or a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def complete_file(path):
    """Yield a temporary sibling of `path`, which replaces `path` if the block succeeds."""
    path = Path(path)
    if not path.parent.is_dir():
        raise Failure("folder of the output is missing", path.parent, "create it")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def complete_folder(path):
    """The same for a folder that does not exist yet."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        for entry in [*temporary.rglob("*"), temporary]:
            sync(entry)
        os.rename(temporary, path)
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)

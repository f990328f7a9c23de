"""Causes of a file that cannot be used, for all files that outlive a process.

Each cause gives a path and the expected error, and repairs the file in the end.
"""

import contextlib
import sqlite3

import pytest


def run_sql(path, *statements):
    database = sqlite3.connect(path)
    for statement in statements:
        database.execute(statement)
    database.commit()
    database.close()


@contextlib.contextmanager
def no_database(directory):
    path = directory / "hints"
    path.write_text("no database" * 500)
    yield path, "file is not a database"
    path.unlink()


@contextlib.contextmanager
def damaged(directory):
    path = directory / "hints"
    run_sql(path, "CREATE TABLE hints (a)", f"INSERT INTO hints VALUES ('{'x' * 5000}')")
    path.write_bytes(path.read_bytes()[:100] + b"\xa5" * 8000)
    yield path, "database disk image is malformed"
    path.unlink()


@contextlib.contextmanager
def other_kind(directory):
    path = directory / "hints"
    run_sql(path, "CREATE TABLE users (name TEXT)")
    yield path, "file of another kind or format"
    path.unlink()


@contextlib.contextmanager
def a_directory(directory):
    path = directory / "hints"
    path.mkdir()
    yield path, "it is a directory"
    path.rmdir()


@contextlib.contextmanager
def no_directory(directory):
    path = directory / "no" / "hints"
    yield path, "its directory does not exist"
    path.parent.mkdir()


@contextlib.contextmanager
def full_disk(directory):
    connect = sqlite3.connect

    def connect_full(*arguments, **options):
        database = connect(*arguments, **options)
        database.execute("PRAGMA max_page_count = 1")
        return database

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sqlite3.connect", connect_full)
        yield directory / "hints", "database or disk is full"


@contextlib.contextmanager
def another_process(directory):
    holder = sqlite3.connect(directory / "hints")
    holder.execute("BEGIN EXCLUSIVE")
    yield directory / "hints", "another process uses it"
    holder.close()


CAUSES = [no_database, damaged, other_kind, a_directory, no_directory, full_disk, another_process]

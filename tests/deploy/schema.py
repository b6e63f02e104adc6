"""Judges documents by a JSON schema.

Standard input is {"schema": …, "documents": […]}; standard output a list with, for each document, what is
wrong with it: a list of [place, problem], where the place reads like "chain.on_route[0].mode".
"""

import json
import sys

from jsonschema import Draft202012Validator

task = json.load(sys.stdin)
Draft202012Validator.check_schema(task["schema"])
validator = Draft202012Validator(task["schema"])


def place(error):
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    return "".join(parts).lstrip(".")


def judged(document):
    return [[place(error), error.message] for error in validator.iter_errors(document)]


json.dump([judged(document) for document in task["documents"]], sys.stdout)

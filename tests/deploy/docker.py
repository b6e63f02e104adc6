"""Looks for what is wrong with the Dockerfile, without an engine.

    docker.py LAYOUT

A linter judges it; then the sources that its first stage copies are laid out in LAYOUT/src, and what its
last stage copies from the repository in LAYOUT/root. Prints the last stage's settings as JSON.
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys

from dockerfile_parse import DockerfileParser

FILE = pathlib.Path("deploy/docker/Dockerfile")
problems = []
layout = pathlib.Path(sys.argv[1])

hadolint = pathlib.Path(sys.executable).parent / "hadolint"
linted = subprocess.run([hadolint, "--failure-threshold", "style", FILE], capture_output=True, text=True)
if linted.returncode != 0:
    problems.append(linted.stdout + linted.stderr)


def patterns():
    lines = FILE.with_name("Dockerfile.dockerignore").read_text().split("\n")
    return [line for line in lines if line and not line.startswith("#")]


def ignored(path):
    """As far as these patterns go: all but what is let through by its beginning, less what is named."""
    let_through = [pattern[1:] for pattern in patterns() if pattern.startswith("!")]
    through = any(pathlib.PurePath(path).match(it) or str(path).startswith(it + "/") for it in let_through)
    return not through


assert patterns()[0] == "*"

stages, settings = [], {}
for step in DockerfileParser(str(FILE)).structure:
    instruction, value = step["instruction"], step["value"]
    if instruction == "FROM":
        stages.append([])
        settings = {}
    elif instruction == "COPY":
        stages[-1].append(value.split())
    elif instruction in ("WORKDIR", "USER", "STOPSIGNAL"):
        settings[instruction] = value
    elif instruction in ("ENTRYPOINT", "VOLUME"):
        settings[instruction] = json.loads(value)
    elif instruction == "HEALTHCHECK":
        settings[instruction] = json.loads(value.partition("CMD ")[2])
    elif instruction == "ENV":
        settings.setdefault("ENV", {}).update(re.findall(r"(\S+)=(\S+)", value))


def lay_out(copies, root, workdir):
    for copy in copies:
        if any(part.startswith("--from") for part in copy):
            continue
        *sources, target = copy
        into = root / (workdir / target).relative_to("/")
        for source in sources:
            if not pathlib.Path(source).exists():
                problems.append(f"COPY {source}: does not exist")
            elif ignored(source):
                problems.append(f"COPY {source}: .dockerignore leaves it out")
            elif pathlib.Path(source).is_dir():
                shutil.copytree(source, into, ignore=shutil.ignore_patterns("target", "*.key"), dirs_exist_ok=True)
            else:
                many = target.endswith("/") or len(sources) > 1
                path = into / pathlib.Path(source).name if many else into
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, path)


first, last = stages
lay_out(first, layout, pathlib.PurePosixPath("/src"))
lay_out(last, layout / "root", pathlib.PurePosixPath(settings["WORKDIR"]))
if problems:
    sys.exit("\n".join(problems))
json.dump(settings, sys.stdout)

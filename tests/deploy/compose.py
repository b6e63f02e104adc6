"""Looks for what is wrong with the compose file, without an engine.

    compose.py SECRETS

SECRETS is a folder that deploy/compose/setup made. Whatever is referred to must be there, and each
container must be confined as far as it goes. Prints, as JSON, the gateway's files: where in its container,
and where on this machine.
"""

import json
import pathlib
import re
import sys

import yaml

FILE = pathlib.Path("deploy/compose/compose.yaml")
problems = []


def expect(holds, problem):
    if not holds:
        problems.append(problem)


def on_this_machine(path):
    return (FILE.parent / path).resolve()


compose = yaml.safe_load(FILE.read_text())
made = pathlib.Path(sys.argv[1])
volumes, secrets = compose["volumes"], compose["secrets"]
used_volumes, used_secrets, gateway = set(), set(), {}

for name, secret in secrets.items():
    path = pathlib.PurePath(secret["file"])
    expect(path.parent == pathlib.PurePath("secrets"), f"secret {name} is not in secrets/")
    expect((made / path.name).is_file(), f"setup makes no {path}")
    expect((made / path.name).stat().st_size > 0, f"setup leaves {path} empty")

for name, service in compose["services"].items():
    expect(service.get("read_only") is True, f"{name} writes to its root")
    expect(service.get("cap_drop") == ["ALL"], f"{name} keeps capabilities")
    expect("no-new-privileges:true" in service.get("security_opt", []), f"{name} may gain privileges")
    expect("restart" in service, f"{name} is not restarted")
    expect(re.fullmatch(r"[a-z0-9./-]+:[a-z0-9.-]+", service["image"]), f"{name}: {service['image']} has no tag")
    expect(name == "coturn" or "healthcheck" in service, f"{name} has no healthcheck")
    for other, how in service.get("depends_on", {}).items():
        expect(other in compose["services"], f"{name} depends on {other}")
        expect("healthcheck" in compose["services"].get(other, {}), f"{other} cannot be {how}")
    for port in service.get("ports", []):
        expect(port.startswith("127.0.0.1:"), f"{name} is published beyond this machine: {port}")
    for volume in service.get("volumes", []):
        source, target, *mode = volume.split(":")
        if source.startswith("."):
            expect(on_this_machine(source).exists(), f"{name}: {source} does not exist")
            expect(mode == ["ro"], f"{name} may change {source}")
        else:
            used_volumes.add(source)
            expect(source in volumes, f"{name}: no volume {source}")
        if name == "gateway":
            gateway[target] = str(on_this_machine(source)) if source.startswith(".") else None
    for secret in service.get("secrets", []):
        secret = secret if isinstance(secret, dict) else {"source": secret, "target": f"/run/secrets/{secret}"}
        used_secrets.add(secret["source"])
        expect(secret["source"] in secrets, f"{name}: no secret {secret['source']}")
        if name == "gateway":
            gateway[secret["target"]] = str(made / pathlib.PurePath(secrets[secret["source"]]["file"]).name)

build = compose["services"]["gateway"]["build"]
expect((on_this_machine(build["context"]) / build["dockerfile"]).is_file(), "no Dockerfile")
expect(used_volumes == set(volumes), f"volumes that nobody uses: {set(volumes) - used_volumes}")
expect(used_secrets == set(secrets), f"secrets that nobody uses: {set(secrets) - used_secrets}")

# Grafana is given its dashboard where its provisioning looks for it.
for path in pathlib.Path("deploy/grafana/provisioning").glob("*/*.yaml"):
    provisioned = yaml.safe_load(path.read_text())
    for source in provisioned.get("datasources", []):
        host = re.fullmatch(r"http://([a-z]+):\d+", source["url"])[1]
        expect(host in compose["services"], f"{path}: {host} is no service")
    for provider in provisioned.get("providers", []):
        mounted = provider["options"]["path"] + "/conexus.json"
        grafana = compose["services"]["grafana"]["volumes"]
        expect(f"../grafana/conexus.json:{mounted}:ro" in grafana, f"{path}: nothing in {mounted}")

if problems:
    sys.exit("\n".join(problems))
json.dump(gateway, sys.stdout)

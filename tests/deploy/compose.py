"""Looks for what is wrong with the compose files, without an engine.

    compose.py SECRETS [OVERRIDE...]

SECRETS is a folder that deploy/compose/setup made; each OVERRIDE is a file beside compose.yaml that goes on
top of it. Whatever is referred to must be there, and each container must be confined as far as it goes.
Prints, as JSON, each gateway: its variables, and its files, where in its container and where on this
machine; and the command of each other service.
"""

import json
import pathlib
import re
import sys

import yaml

FOLDER = pathlib.Path("deploy/compose")
problems = []


def expect(holds, problem):
    if not holds:
        problems.append(problem)


def on_this_machine(path):
    return (FOLDER / path).resolve()


def load(name):
    return yaml.safe_load((FOLDER / name).read_text())


# How Compose lays one file over another, as far as it is in use here.


def target_of(volume):
    return volume.split(":")[1]


def laid_over(below, above):
    for name, service in above.get("services", {}).items():
        known = below["services"].setdefault(name, {})
        for key, value in service.items():
            if key in ("environment", "depends_on"):
                known[key] = known.get(key, {}) | value
            elif key in ("ports", "secrets", "tmpfs"):
                known[key] = known.get(key, []) + value
            elif key == "volumes":
                taken = {target_of(volume) for volume in value}
                kept = [volume for volume in known.get(key, []) if target_of(volume) not in taken]
                known[key] = kept + value
            else:
                known[key] = value
    for part in ("volumes", "secrets", "networks"):
        below[part] = (below.get(part) or {}) | (above.get(part) or {})
    return below


made = pathlib.Path(sys.argv[1])
compose = load("compose.yaml")
for override in sys.argv[2:]:
    compose = laid_over(compose, load(override))
volumes, secrets, networks = compose["volumes"], compose["secrets"], compose.get("networks") or {}
used_volumes, used_secrets, used_networks, published = set(), set(), set(), []
gateways, commands = {}, {}

for name, secret in secrets.items():
    path = pathlib.PurePath(secret["file"])
    expect(path.parent == pathlib.PurePath("secrets"), f"secret {name} is not in secrets/")
    expect((made / path.name).is_file(), f"setup makes no {path}")
    expect((made / path.name).stat().st_size > 0, f"setup leaves {path} empty")

for name, service in compose["services"].items():
    is_gateway = service["image"].startswith("conexus:")
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
        published.append(port.rsplit(":", 1)[0])
    for network in service.get("networks", []):
        used_networks.add(network)
        expect(network == "default" or network in networks, f"{name}: no network {network}")
    files = {}
    for volume in service.get("volumes", []):
        source, target, *mode = volume.split(":")
        if source.startswith("."):
            expect(on_this_machine(source).exists(), f"{name}: {source} does not exist")
            expect(mode == ["ro"], f"{name} may change {source}")
        else:
            used_volumes.add(source)
            expect(source in volumes, f"{name}: no volume {source}")
        files[target] = str(on_this_machine(source)) if source.startswith(".") else None
    for secret in service.get("secrets", []):
        secret = secret if isinstance(secret, dict) else {"source": secret, "target": f"/run/secrets/{secret}"}
        used_secrets.add(secret["source"])
        expect(secret["source"] in secrets, f"{name}: no secret {secret['source']}")
        expect(secret["target"] not in files, f"{name}: {secret['target']} twice")
        files[secret["target"]] = str(made / pathlib.PurePath(secrets[secret["source"]]["file"]).name)
    if is_gateway:
        gateways[name] = {"files": files, "env": service.get("environment", {})}
        # A process that is killed before it has drained loses messages.
        expect(service.get("stop_grace_period") == "45s", f"{name} may be killed while it drains")
    else:
        commands[name] = service.get("command")

build = compose["services"]["gateway"]["build"]
expect((on_this_machine(build["context"]) / build["dockerfile"]).is_file(), "no Dockerfile")
expect(used_volumes == set(volumes), f"volumes that nobody uses: {set(volumes) - used_volumes}")
expect(used_secrets == set(secrets), f"secrets that nobody uses: {set(secrets) - used_secrets}")
expect(set(networks) <= used_networks, f"networks that nobody uses: {set(networks) - used_networks}")
expect(len(published) == len(set(published)), f"a port is published twice: {published}")

# Every gateway is scraped, and nobody else.
(scraped,) = [
    volume.split(":")[0]
    for volume in compose["services"]["prometheus"]["volumes"]
    if target_of(volume) == "/etc/prometheus/prometheus.yml"
]
(job,) = yaml.safe_load(on_this_machine(scraped).read_text())["scrape_configs"]
targets = sorted(target for config in job["static_configs"] for target in config["targets"])
expect(targets == sorted(f"{name}:9100" for name in gateways), f"{scraped}: scrapes {targets}")

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
json.dump({"gateways": gateways, "commands": commands}, sys.stdout)

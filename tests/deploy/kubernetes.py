"""Renders a kustomization and looks for what is wrong with it, without a cluster.

    kubernetes.py FOLDER LAYOUT

Each object is judged by the schemas of several versions of Kubernetes, strictly; then whatever one object
says of another is looked up. What the gateway's container would find in its file system is laid out in the
folder LAYOUT, and its environment is printed as JSON.
"""

import copy
import json
import pathlib
import sys

import kubernetes_validate
import yaml

# The oldest has a preStop that sleeps.
VERSIONS = ["1.30", "1.33", "1.37"]

# Made by hand, as deploy/README.md says: the keys that each of them has.
SECRETS = {
    "conexus-admin": {"admin.toml": '[admin_token.ops]\nsha256 = "' + "0" * 64 + '"\n'},
    "conexus-identity": {"conexus.key": ""},
    "conexus-tls": {"tls.crt": "", "tls.key": ""},
    "conexus-turn": {"secret": "sesame"},
    "conexus-redis": {"url": "rediss://redis.example:6379", "username": "conexus", "password": "sesame"},
}

problems = []


def expect(holds, problem):
    if not holds:
        problems.append(problem)


def load(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


# The part of Kustomize that is in use here; what it does not know, it refuses.


def render(folder):
    (kustomization,) = load(folder / "kustomization.yaml")
    known = {"apiVersion", "kind", "resources", "generatorOptions", "configMapGenerator", "images", "patches"}
    expect(not set(kustomization) - known, f"{folder}: {set(kustomization) - known} is not rendered here")
    objects = []
    for name in kustomization.get("resources", []):
        path = folder / name
        objects += render(path) if path.is_dir() else load(path)
    options = kustomization.get("generatorOptions", {})
    for generator in kustomization.get("configMapGenerator", []):
        expect(options.get("disableNameSuffixHash"), f"{folder}: names with hashes are not rendered here")
        data = {}
        for name in generator["files"]:
            # Kustomize reads nothing outside of the folder.
            expect(".." not in name and not name.startswith("/"), f"{folder}: {name} is outside")
            data[pathlib.Path(name).name] = (folder / name).read_text()
        metadata = {"name": generator["name"], "labels": options.get("labels", {})}
        objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    for patch in kustomization.get("patches", []):
        target = patch["target"]
        found = [it for it in objects if it["kind"] == target["kind"] and it["metadata"]["name"] == target["name"]]
        expect(len(found) == 1, f"{folder}: {target} is {len(found)} objects")
        for operation in yaml.safe_load((folder / patch["path"]).read_text()):
            apply(operation, found[0])
    for image in kustomization.get("images", []):
        named = [it for it in containers(objects) if it["image"] == image["name"]]
        expect(named, f"{folder}: no container has the image {image['name']}")
        for container in named:
            container["image"] = f"{image.get('newName', image['name'])}:{image['newTag']}"
    return objects


def apply(operation, target):
    """JSON Patch, RFC 6902: add and replace."""
    *way, last = operation["path"].strip("/").split("/")
    for part in way:
        target = target[int(part) if isinstance(target, list) else part]
    value = copy.deepcopy(operation["value"])
    if operation["op"] == "add" and isinstance(target, list):
        target.insert(len(target) if last == "-" else int(last), value)
    elif operation["op"] == "add":
        target[last] = value
    elif operation["op"] == "replace":
        key = int(last) if isinstance(target, list) else last
        target[key]  # must be there
        target[key] = value
    else:
        raise ValueError(operation["op"])


def containers(objects):
    pods = [it["spec"]["template"]["spec"] for it in objects if it["kind"] == "Deployment"]
    return [container for pod in pods for container in pod["containers"]]


def validate(objects):
    for it in objects:
        name = f"{it['kind']} {it['metadata']['name']}"
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(it, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                problems.append(f"{name}, by {version}: {'.'.join(map(str, error.path))}: {error.message}")


def names(objects, kind):
    found = [it["metadata"]["name"] for it in objects if it["kind"] == kind]
    expect(len(found) == len(set(found)), f"a {kind} twice: {found}")
    return found


def check_references(objects):
    (deployment,) = [it for it in objects if it["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]
    labels = pod["metadata"]["labels"]
    (container,) = pod["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}

    def selects(selector, who):
        expect(selector and selector.items() <= labels.items(), f"{who} selects no pod: {selector}")

    selects(deployment["spec"]["selector"]["matchLabels"], "the Deployment")
    for constraint in pod["spec"]["topologySpreadConstraints"]:
        selects(constraint["labelSelector"]["matchLabels"], "a topology constraint")
    for it in objects:
        name = f"{it['kind']} {it['metadata']['name']}"
        if it["kind"] == "Service":
            selects(it["spec"]["selector"], name)
            for port in it["spec"]["ports"]:
                expect(port["targetPort"] in ports, f"{name}: no port {port['targetPort']}")
        if it["kind"] == "PodDisruptionBudget":
            selects(it["spec"]["selector"]["matchLabels"], name)
        if it["kind"] == "NetworkPolicy":
            selects(it["spec"]["podSelector"]["matchLabels"], name)
            for rule in it["spec"]["ingress"]:
                for port in rule["ports"]:
                    expect(port["port"] in ports, f"{name}: no port {port['port']}")
    expect(pod["spec"]["serviceAccountName"] in names(objects, "ServiceAccount"), "no such ServiceAccount")
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"]:
        expect(container[probe]["httpGet"]["port"] in ports, f"{probe}: no such port")
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    expect(volumes == mounts, f"volumes {volumes}, mounted {mounts}")
    paths = sorted(mount["mountPath"] for mount in container["volumeMounts"])
    for above, below in zip(paths, paths[1:]):
        expect(not below.startswith(above + "/"), f"{below} is mounted within {above}")
    check_security(pod["spec"], container)
    stop = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    told = {
        "patience": pod["spec"]["terminationGracePeriodSeconds"] - stop,
        "replicas": deployment["spec"]["replicas"],
    }
    return pod["spec"], container, told


def check_security(pod, container):
    """What Pod Security's profile "restricted" asks for, and a root that nobody writes to."""
    own = container["securityContext"]
    expect(pod["securityContext"]["runAsNonRoot"] is True, "runs as root")
    expect(pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", "no seccomp profile")
    expect(own["allowPrivilegeEscalation"] is False, "escalates privileges")
    expect(own["readOnlyRootFilesystem"] is True, "writes to its root")
    expect(own["capabilities"] == {"drop": ["ALL"]}, "keeps capabilities")
    expect(pod["automountServiceAccountToken"] is False, "has a token of its service account")
    expect("memory" in container["resources"]["limits"], "takes any amount of memory")


def value_from(variable):
    source = variable["valueFrom"]
    if "fieldRef" in source:
        return "pod"
    wanted = source["secretKeyRef"]
    expect(wanted["key"] in SECRETS.get(wanted["name"], {}), f"{variable['name']}: nobody is told of {wanted}")
    return SECRETS.get(wanted["name"], {}).get(wanted["key"], "")


def lay_out(objects, pod, container, layout):
    maps = {it["metadata"]["name"]: it["data"] for it in objects if it["kind"] == "ConfigMap"}
    where = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    files = {}

    def take(volume, data, items):
        chosen = {it["key"]: it["path"] for it in items} if items else {key: key for key in data}
        for key, path in chosen.items():
            expect(key in data, f"volume {volume}: no key {key}")
            files[f"{where[volume]}/{path}"] = data.get(key, "")

    for volume in pod["volumes"]:
        name = volume["name"]
        for source in volume.get("projected", {}).get("sources", [volume]):
            if "configMap" in source:
                wanted = source["configMap"]
                expect(wanted["name"] in maps, f"volume {name}: no ConfigMap {wanted['name']}")
                take(name, maps.get(wanted["name"], {}), wanted.get("items"))
            elif "secret" in source:
                wanted = source["secret"]
                secret = wanted.get("secretName") or wanted["name"]
                expect(secret in SECRETS, f"volume {name}: nobody is told of the Secret {secret}")
                take(name, SECRETS.get(secret, {}), wanted.get("items"))
            elif "emptyDir" not in source:
                problems.append(f"volume {name} is of a kind that is not laid out here")

    def moved(text):
        # Nothing is laid out in a folder that is empty.
        for path in {str(where[volume["name"]]) for volume in pod["volumes"] if "emptyDir" not in volume}:
            text = text.replace(f'"{path}', f'"{layout}{path}')
        return text

    for path, text in files.items():
        path = pathlib.Path(f"{layout}{path}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(moved(text))
    env = {}
    for variable in container["env"]:
        value = moved(variable.get("value") or value_from(variable))
        env[variable["name"]] = layout + value if value.startswith("/") else value
    return env


def main():
    folder, layout = sys.argv[1:]
    objects = render(pathlib.Path(folder))
    validate(objects)
    pod, container, told = check_references(objects)
    env = lay_out(objects, pod, container, layout)
    if problems:
        sys.exit("\n".join(problems))
    json.dump({"env": env, **told}, sys.stdout)


main()

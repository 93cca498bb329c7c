#!/usr/bin/env python3
"""What a cluster would have around the two pods of the bench, made through the embedded API.

objects.py prepare         namespaces, nodes, the mesh's pods, their tokens, the agents' kubeconfigs, the root file
objects.py enrol           the pods' objects, further workloads, CNI ADD for the pods' namespaces, the pods' status

Environment as for peers/NAME, and TREFOIL, the folder of the mesh's binaries. Nothing of the mesh's own work is done
here: the agent redirects, the control plane tells, the node proxy asks for its certificates."""
import base64
import http.client
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.parse

RUN = os.environ["RUN"]
SYSTEM = "trefoil-system"
PODS = {
    "c": ("client", os.environ["CNS"], os.environ["CIP"]),
    "s": ("server", os.environ["SNS"], os.environ["SIP"]),
}
# What a pod may be delayed by: the agent has to hear of the pod, the node proxy to listen.
PATIENCE = 30


class Api:
    """The embedded API, as the kubeconfig of its owner reaches it."""

    def __init__(self):
        with open(f"{RUN}/kubeconfig") as file:
            config = json.load(file)
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        address = urllib.parse.urlparse(cluster["server"])
        self.token = user["token"]
        context = ssl.create_default_context(cadata=authority)
        self.connection = http.client.HTTPSConnection(address.hostname, address.port, context=context)

    def ask(self, method, path, body=None, kind="application/json"):
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": kind}
        self.connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = self.connection.getresponse()
        text = answer.read()
        if (method, answer.status) in (("GET", 404), ("POST", 409)):
            return None
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {answer.status} {text.decode()[:400]}")
        return json.loads(text)

    def create(self, collection, body):
        return self.ask("POST", collection, body)

    def set_status(self, path, status):
        return self.ask("PATCH", f"{path}/status", {"status": status}, "application/merge-patch+json")

    def create_pod(self, namespace, name, spec, labels=None):
        metadata = {"name": name, "namespace": namespace, "labels": labels or {}}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        return self.create(f"/api/v1/namespaces/{namespace}/pods", body)["metadata"]["uid"]

    def pod_runs(self, namespace, name, address):
        status = {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        self.set_status(f"/api/v1/namespaces/{namespace}/pods/{name}", status)

    def token_for(self, account, pod, uid, audiences):
        spec = {
            "audiences": audiences,
            "expirationSeconds": 3600,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid},
        }
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/{account}/token"
        return self.create(path, body)["status"]["token"]

    def create_account(self, namespace, name):
        body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
        self.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", body)


def await_it(what, ask):
    """Asks until it is there."""
    end = time.time() + PATIENCE
    while time.time() < end:
        if found := ask():
            return found
        time.sleep(0.02)
    raise SystemExit(f"no {what} within {PATIENCE} s")


def write(path, text):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)


def prepare_node(api, side):
    """A node, and on it the pods of the agent and of the node proxy with their tokens."""
    node = f"node-{side}"
    api.create("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})
    for account in ("trefoil-cni", "trefoil-node"):
        folder, pod = f"{RUN}/{side}/{account}", f"{account}-{side}"
        os.makedirs(folder)
        containers = [{"name": account, "image": account}]
        spec = {"nodeName": node, "hostNetwork": True, "serviceAccountName": account, "containers": containers}
        uid = api.create_pod(SYSTEM, pod, spec)
        api.pod_runs(SYSTEM, pod, "10.76.0.1")
        write(f"{folder}/token", api.token_for(account, pod, uid, ["trefoil-ca"]))
        if account == "trefoil-cni":
            write(f"{folder}/api-token", api.token_for(account, pod, uid, []))
            with open(f"{RUN}/kubeconfig") as file:
                config = json.load(file)
            config["users"][0]["user"] = {"tokenFile": f"{folder}/api-token"}
            write(f"{folder}/kubeconfig", json.dumps(config))


def prepare():
    await_it("kubeconfig", lambda: os.path.exists(f"{RUN}/kubeconfig"))
    api = Api()
    for name, labels in ((SYSTEM, {}), ("default", {"trefoil.dev/dataplane-mode": "ambient"})):
        if api.ask("GET", f"/api/v1/namespaces/{name}") is None:
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
            api.create("/api/v1/namespaces", body)
        else:
            body = {"metadata": {"labels": labels}}
            api.ask("PATCH", f"/api/v1/namespaces/{name}", body, "application/merge-patch+json")
    for account in ("trefoil-cni", "trefoil-node"):
        api.create_account(SYSTEM, account)
    for name, _, _ in PODS.values():
        api.create_account("default", name)
    for side in PODS:
        prepare_node(api, side)
    path = f"/api/v1/namespaces/{SYSTEM}/configmaps/trefoil-ca-root"
    root = await_it("root certificate", lambda: api.ask("GET", path))
    write(f"{RUN}/root-cert.pem", root["data"]["root-cert.pem"])


def add(side, uid):
    """CNI ADD, as a container runtime calls it after the plugin that made the network."""
    name, namespace, address = PODS[side]
    netns = f"/run/netns/{namespace}"
    interfaces = [{"name": "eth0", "sandbox": netns}]
    configuration = {
        "cniVersion": "1.1.0",
        "name": "bench",
        "type": "trefoil-cni",
        "runDir": f"{RUN}/{side}",
        "stateDir": f"{RUN}/{side}/trefoil-cni",
        "excludeNamespaces": ["kube-system", SYSTEM],
        "prevResult": {
            "cniVersion": "1.1.0",
            "interfaces": interfaces,
            "ips": [{"interface": 0, "address": f"{address}/24"}],
        },
    }
    call = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": uid,
        "CNI_NETNS": netns,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": os.environ["TREFOIL"],
        "CNI_ARGS": f"K8S_POD_NAMESPACE=default;K8S_POD_NAME={name};K8S_POD_UID={uid}",
    }
    program, told = f"{os.environ['TREFOIL']}/trefoil-cni", {}

    def called():
        done = subprocess.run(
            [program], input=json.dumps(configuration), env=call, capture_output=True, text=True
        )
        told["last"] = done.stdout + done.stderr
        # Code 11 asks to come again: a runtime does.
        return done.returncode == 0 or (None if '"code":11' in done.stdout.replace(" ", "") else told["last"])

    if (result := await_it(f"CNI ADD ({name})", called)) is not True:
        raise SystemExit(f"CNI ADD for {name}: {result}")


def crowd(api, count):
    """Workloads that take no part: ten pods to a service, five hundred nodes, as a cluster has them."""
    for index in range(count):
        address = f"10.{128 + (index >> 16)}.{(index >> 8) & 255}.{index & 255}"
        app = f"app-{index // 10}"
        name = f"{app}-7d9f8b6c5d-{index:05x}"
        containers = [{"name": "main", "image": "main"}]
        spec = {"nodeName": f"node-{index % 500}", "serviceAccountName": "default", "containers": containers}
        if index % 10 == 0:
            metadata = {"name": app, "namespace": "default"}
            ports = [{"name": "http", "port": 80, "targetPort": 8080}]
            api.create(
                "/api/v1/namespaces/default/services",
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": metadata,
                    "spec": {"selector": {"app": app}, "ports": ports},
                },
            )
        api.create_pod("default", name, spec, {"app": app})
        api.pod_runs("default", name, address)


def enrol():
    api = Api()
    crowd(api, int(os.environ.get("NWL") or 0))
    for side, (name, _, address) in PODS.items():
        containers = [{"name": "main", "image": "main"}]
        spec = {"nodeName": f"node-{side}", "serviceAccountName": name, "containers": containers}
        add(side, api.create_pod("default", name, spec, {"app": name}))
        api.pod_runs("default", name, address)


{"prepare": prepare, "enrol": enrol}[sys.argv[1]]()

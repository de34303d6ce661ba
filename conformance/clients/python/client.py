"""What programs on PyPI's `kubernetes` do: `client.py STEP...`, with a pod `talks` to talk to."""

import sys
import threading

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import portforward, stream

NAMESPACE = "default"


def refused(call):
    try:
        call()
    except ApiException as error:
        return error.status
    raise AssertionError("not refused")


def config_map(name, value="a"):
    metadata = client.V1ObjectMeta(name=name, labels={"from": "python"})
    return client.V1ConfigMap(metadata=metadata, data={"key": value})


def objects():
    core = client.CoreV1Api()
    assert client.VersionApi().get_code().minor == "35"
    core.create_namespaced_config_map(NAMESPACE, config_map("one"))
    assert refused(lambda: core.create_namespaced_config_map(NAMESPACE, config_map("one"))) == 409
    seen = core.patch_namespaced_config_map("one", NAMESPACE, {"data": {"other": "b"}})
    assert seen.data == {"key": "a", "other": "b"}
    operations = [{"op": "remove", "path": "/data/key"}]
    seen = core.patch_namespaced_config_map("one", NAMESPACE, operations)
    assert seen.data == {"other": "b"}
    stale, seen.data = seen.metadata.resource_version, {"other": "c"}
    core.replace_namespaced_config_map("one", NAMESPACE, seen)
    seen.metadata.resource_version = stale
    assert refused(lambda: core.replace_namespaced_config_map("one", NAMESPACE, seen)) == 409
    for page in range(2):
        core.create_namespaced_config_map(NAMESPACE, config_map(f"page-{page}"))
    first = core.list_namespaced_config_map(NAMESPACE, label_selector="from=python", limit=2)
    rest = core.list_namespaced_config_map(
        NAMESPACE, label_selector="from=python", limit=2, _continue=first.metadata._continue
    )
    assert (len(first.items), len(rest.items)) == (2, 1)
    core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="from=python")
    assert refused(lambda: core.read_namespaced_config_map("one", NAMESPACE)) == 404


def watches():
    """What informers are made of here: a list, then a watch from its revision."""
    core = client.CoreV1Api()
    core.create_namespaced_config_map(NAMESPACE, config_map("early"))
    options = {"namespace": NAMESPACE, "label_selector": "from=python"}
    revision = core.list_namespaced_config_map(**options).metadata.resource_version

    def change():
        core.create_namespaced_config_map(NAMESPACE, config_map("late"))
        core.patch_namespaced_config_map("late", NAMESPACE, {"data": {"key": "b"}})
        core.delete_namespaced_config_map("late", NAMESPACE)

    changes = threading.Thread(target=change)
    changes.start()
    seen, watcher = [], watch.Watch()
    for event in watcher.stream(
        core.list_namespaced_config_map, resource_version=revision, timeout_seconds=30, **options
    ):
        seen.append((event["type"], event["object"].metadata.name))
        if event["type"] == "DELETED":
            watcher.stop()
    changes.join()
    assert seen == [("ADDED", "late"), ("MODIFIED", "late"), ("DELETED", "late")], seen
    # From nowhere: what is there comes first.
    for event in watch.Watch().stream(core.list_namespaced_config_map, timeout_seconds=30, **options):
        assert (event["type"], event["object"].metadata.name) == ("ADDED", "early"), event
        break
    core.delete_namespaced_config_map("early", NAMESPACE)


def apply():
    maps = dynamic.DynamicClient(client.ApiClient()).resources.get(api_version="v1", kind="ConfigMap")

    def body(value):
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "applied", "namespace": NAMESPACE},
            "data": {"key": value},
        }

    def by(manager, value, **options):
        return maps.server_side_apply(body=body(value), name="applied", field_manager=manager, **options)

    first = by("mine", "a")
    assert first.metadata.managedFields[0].manager == "mine", first
    assert refused(lambda: by("other", "b")) == 409
    assert by("other", "b", force_conflicts=True).data.key == "b"
    maps.delete(name="applied", namespace=NAMESPACE)


def streams():
    core = client.CoreV1Api()
    assert core.read_namespaced_pod_log("talks", NAMESPACE) == "said\n"
    options = {"stderr": True, "stdin": False, "stdout": True, "tty": False}
    said = stream(
        core.connect_get_namespaced_pod_exec, "talks", NAMESPACE, command=["echo", "hello"], **options
    )
    assert said == "hello\n", said

    options.update(stdin=True)
    shell = stream(
        core.connect_get_namespaced_pod_exec, "talks", NAMESPACE, command=["sh"], _preload_content=False, **options
    )
    shell.write_stdin("echo out; echo err >&2\n")
    assert shell.readline_stdout(timeout=20) == "out"
    assert shell.readline_stderr(timeout=20) == "err"
    shell.write_stdin("exit 3\n")
    shell.run_forever(timeout=20)
    assert shell.returncode == 3, shell.returncode

    forward = portforward(core.connect_get_namespaced_pod_portforward, "talks", NAMESPACE, ports="9000")
    through = forward.socket(9000)
    through.settimeout(20)
    through.sendall(b"through")
    back = b""
    while len(back) < 7:
        back += through.recv(7)
    assert back == b"through", back
    through.close()
    assert forward.error(9000) is None, forward.error(9000)


STEPS = {"objects": objects, "watch": watches, "apply": apply, "streams": streams}

config.load_kube_config()
for step in sys.argv[1:]:
    STEPS[step]()
    print(f"{step}: done", flush=True)

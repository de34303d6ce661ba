// What programs on `@kubernetes/client-node` do: `client.js STEP...`, with a pod `talks` to talk to.

import assert from 'node:assert/strict';
import net from 'node:net';
import { once } from 'node:events';
import { PassThrough } from 'node:stream';

import * as k8s from '@kubernetes/client-node';

const namespace = 'default';
const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);

function configMap(name, data = { key: 'a' }) {
    return { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, namespace, labels: { from: 'node' } }, data };
}

/** The code with which the server refuses. */
async function refused(call) {
    try {
        await call();
    } catch (error) {
        return error.code;
    }
    assert.fail('not refused');
}

async function objects() {
    assert.equal((await config.makeApiClient(k8s.VersionApi).getCode()).minor, '35');
    await core.createNamespacedConfigMap({ namespace, body: configMap('one') });
    assert.equal(await refused(() => core.createNamespacedConfigMap({ namespace, body: configMap('one') })), 409);
    const kinds = k8s.PatchStrategy;
    const patch = (body, kind) =>
        core.patchNamespacedConfigMap(
            { name: 'one', namespace, body },
            k8s.setHeaderOptions('Content-Type', kind),
        );
    const merged = await patch({ data: { other: 'b' } }, kinds.MergePatch);
    assert.deepEqual(merged.data, { key: 'a', other: 'b' });
    await patch([{ op: 'remove', path: '/data/key' }], kinds.JsonPatch);
    const last = await patch({ data: { third: 'c' } }, kinds.StrategicMergePatch);
    assert.deepEqual(last.data, { other: 'b', third: 'c' });
    const stale = () => core.replaceNamespacedConfigMap({ name: 'one', namespace, body: merged });
    assert.equal(await refused(stale), 409);
    for (const page of [1, 2]) await core.createNamespacedConfigMap({ namespace, body: configMap(`page-${page}`) });
    const ours = { namespace, labelSelector: 'from=node', limit: 2 };
    const first = await core.listNamespacedConfigMap(ours);
    const rest = await core.listNamespacedConfigMap({ ...ours, _continue: first.metadata._continue });
    assert.deepEqual([first.items.length, rest.items.length], [2, 1]);
    await core.deleteCollectionNamespacedConfigMap({ namespace, labelSelector: 'from=node' });
    assert.equal(await refused(() => core.readNamespacedConfigMap({ name: 'one', namespace })), 404);
}

/** An informer: what is there, what comes, and what it keeps. */
async function watch() {
    await core.createNamespacedConfigMap({ namespace, body: configMap('early') });
    const labels = 'from=node';
    const list = () => core.listNamespacedConfigMap({ namespace, labelSelector: labels });
    const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/configmaps`, list, labels);
    const events = new PassThrough({ objectMode: true });
    for (const kind of ['add', 'update', 'delete']) {
        informer.on(kind, (object) => events.write([kind, object.metadata.name]));
    }
    informer.on('error', (error) => events.destroy(error));
    const next = events[Symbol.asyncIterator]();
    const sees = async (...expect) => assert.deepEqual((await next.next()).value, expect);
    await informer.start();
    await sees('add', 'early');
    const late = await core.createNamespacedConfigMap({ namespace, body: configMap('late') });
    await sees('add', 'late');
    assert.equal(informer.get('late', namespace).data.key, 'a');
    await core.replaceNamespacedConfigMap({ name: 'late', namespace, body: { ...late, data: { key: 'b' } } });
    await sees('update', 'late');
    await core.deleteNamespacedConfigMap({ name: 'late', namespace });
    await sees('delete', 'late');
    assert.equal(informer.list(namespace).length, 1);
    await informer.stop();
    await core.deleteNamespacedConfigMap({ name: 'early', namespace });
}

async function apply() {
    const objects = k8s.KubernetesObjectApi.makeApiClient(config);
    const body = (data) => ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'applied', namespace }, data });
    const by = (manager, data, force) =>
        objects.patch(body(data), undefined, undefined, manager, force, k8s.PatchStrategy.ServerSideApply);
    const first = await by('mine', { key: 'a' });
    assert.equal(first.metadata.managedFields[0].manager, 'mine');
    assert.equal(await refused(() => by('other', { key: 'b' })), 409);
    const forced = await by('other', { key: 'b' }, true);
    assert.equal(forced.data.key, 'b');
    await objects.delete(body({}));
}

async function text(stream) {
    let all = '';
    for await (const chunk of stream) all += chunk;
    return all;
}

async function streams() {
    assert.equal(await core.readNamespacedPodLog({ name: 'talks', namespace }), 'said\n');

    const exec = async (command, input) => {
        const [stdout, stderr, stdin] = [new PassThrough(), new PassThrough(), new PassThrough()];
        const said = Promise.all([text(stdout), text(stderr)]);
        const status = await new Promise((resolve, reject) => {
            const done = new k8s.Exec(config).exec(
                namespace, 'talks', 'main', command, stdout, stderr, input ? stdin : null, false, resolve,
            );
            done.catch(reject);
            if (input) stdin.end(input);
        });
        stdout.end();
        stderr.end();
        return [...(await said), status];
    };
    const [out, err, status] = await exec(['sh', '-c', 'echo out; echo err >&2; exit 3']);
    assert.deepEqual([out, err, status.reason], ['out\n', 'err\n', 'NonZeroExitCode']);
    const [back, , success] = await exec(['head', '-n', '1'], 'hello\n');
    assert.deepEqual([back, success.status], ['hello\n', 'Success']);

    const forward = new k8s.PortForward(config, true);
    const server = net.createServer((socket) => forward.portForward(namespace, 'talks', [9000], socket, null, socket));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const socket = net.connect(server.address().port, '127.0.0.1');
    socket.write('through');
    assert.equal(String((await once(socket, 'data'))[0]), 'through');
    socket.destroy();
    server.close();
}

const steps = { objects, watch, apply, streams };
for (const step of process.argv.slice(2)) {
    await steps[step]();
    console.log(`${step}: done`);
}
process.exit(0);

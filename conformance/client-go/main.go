// What programs on client-go do: `client-go STEP...`, with a pod `talks` to talk to.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
)

const namespace = "default"

// Clients of one cluster.
type clients struct {
	config *rest.Config
	typed  kubernetes.Interface
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	check(err)
	c := clients{config, kubernetes.NewForConfigOrDie(config)}
	steps := map[string]func(context.Context) error{
		"objects": c.objects, "watch": c.watch, "apply": c.apply, "streams": c.streams, "elections": c.elections,
	}
	for _, name := range os.Args[1:] {
		step, known := steps[name]
		if !known {
			check(fmt.Errorf("no step %s", name))
		}
		if err := step(ctx); err != nil {
			check(fmt.Errorf("%s: %w", name, err))
		}
		fmt.Printf("%s: done\n", name)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func expect(is bool, what string, args ...any) error {
	if is {
		return nil
	}
	return fmt.Errorf("not so: "+what, args...)
}

func configMap(name string) *corev1.ConfigMap {
	meta := metav1.ObjectMeta{Name: name, Labels: map[string]string{"from": "go"}}
	return &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"key": "a"}}
}

// Typed, in protobuf and in JSON, and untyped.
func (c clients) objects(ctx context.Context) error {
	protobuf := rest.CopyConfig(c.config)
	protobuf.ContentType = "application/vnd.kubernetes.protobuf"
	protobuf.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	for _, config := range []*rest.Config{c.config, protobuf} {
		maps := kubernetes.NewForConfigOrDie(config).CoreV1().ConfigMaps(namespace)
		made, err := maps.Create(ctx, configMap("one"), metav1.CreateOptions{})
		if err != nil {
			return err
		}
		if _, err := maps.Create(ctx, configMap("one"), metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("created twice: %v", err)
		}
		patch := []byte(`{"data":{"other":"b"}}`)
		seen, err := maps.Patch(ctx, "one", types.StrategicMergePatchType, patch, metav1.PatchOptions{})
		if err != nil || len(seen.Data) != 2 {
			return fmt.Errorf("patched to %v: %w", seen, err)
		}
		if _, err := maps.Update(ctx, made, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
			return fmt.Errorf("updated from a stale one: %v", err)
		}
		if err := maps.Delete(ctx, "one", metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions("x")}); !apierrors.IsConflict(err) {
			return fmt.Errorf("deleted as another: %v", err)
		}
		all := metav1.ListOptions{LabelSelector: "from=go"}
		if err := maps.DeleteCollection(ctx, metav1.DeleteOptions{}, all); err != nil {
			return err
		}
		if _, err := maps.Get(ctx, "one", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("still there: %v", err)
		}
	}
	untyped := dynamic.NewForConfigOrDie(c.config).Resource(schema.GroupVersionResource{Version: "v1", Resource: "pods"})
	pod, err := untyped.Namespace(namespace).Get(ctx, "talks", metav1.GetOptions{})
	if err != nil {
		return err
	}
	phase, _, _ := unstructured.NestedString(pod.Object, "status", "phase")
	return expect(phase == "Running", "phase %q", phase)
}

// An informer, which asks for what is there by its watch.
func (c clients) watch(ctx context.Context) error {
	maps := c.typed.CoreV1().ConfigMaps(namespace)
	if _, err := maps.Create(ctx, configMap("early"), metav1.CreateOptions{}); err != nil {
		return err
	}
	ours := informers.WithTweakListOptions(func(options *metav1.ListOptions) { options.LabelSelector = "from=go" })
	factory := informers.NewSharedInformerFactoryWithOptions(c.typed, 0, informers.WithNamespace(namespace), ours)
	informer := factory.Core().V1().ConfigMaps()
	events := make(chan string, 16)
	tell := func(kind string) func(any) {
		return func(object any) { events <- kind + " " + object.(*corev1.ConfigMap).Name }
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    tell("add"),
		UpdateFunc: func(_, object any) { tell("update")(object) },
		DeleteFunc: tell("delete"),
	}
	if _, err := informer.Informer().AddEventHandler(handler); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	sees := func(expected string) error {
		select {
		case is := <-events:
			return expect(is == expected, "%q instead of %q", is, expected)
		case <-ctx.Done():
			return fmt.Errorf("%q did not come", expected)
		}
	}
	change := []func() error{
		func() error { return nil },
		func() error { _, err := maps.Create(ctx, configMap("late"), metav1.CreateOptions{}); return err },
		func() error {
			_, err := maps.Patch(ctx, "late", types.MergePatchType, []byte(`{"data":{"key":"b"}}`), metav1.PatchOptions{})
			return err
		},
		func() error { return maps.Delete(ctx, "late", metav1.DeleteOptions{}) },
		func() error { return maps.Delete(ctx, "early", metav1.DeleteOptions{}) },
	}
	for i, expected := range []string{"add early", "add late", "update late", "delete late", "delete early"} {
		if err := change[i](); err != nil {
			return err
		}
		if err := sees(expected); err != nil {
			return err
		}
	}
	return nil
}

func (c clients) apply(ctx context.Context) error {
	maps := c.typed.CoreV1().ConfigMaps(namespace)
	body := func(value string) *applycorev1.ConfigMapApplyConfiguration {
		return applycorev1.ConfigMap("applied", namespace).WithData(map[string]string{"key": value})
	}
	first, err := maps.Apply(ctx, body("a"), metav1.ApplyOptions{FieldManager: "mine"})
	if err != nil {
		return err
	}
	again, err := maps.Apply(ctx, body("a"), metav1.ApplyOptions{FieldManager: "mine"})
	if err != nil || again.ResourceVersion != first.ResourceVersion {
		return fmt.Errorf("the same twice: %v %w", again, err)
	}
	if _, err := maps.Apply(ctx, body("b"), metav1.ApplyOptions{FieldManager: "other"}); !apierrors.IsConflict(err) {
		return fmt.Errorf("applied what another manages: %v", err)
	}
	// What is taken out of a live object says who manages it.
	mine, err := applycorev1.ExtractConfigMap(first, "mine")
	if err != nil || mine.Data["key"] != "a" {
		return fmt.Errorf("extracted %v: %w", mine, err)
	}
	untyped := dynamic.NewForConfigOrDie(c.config).Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"})
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "applied"}, "data": map[string]any{"key": "b"},
	}}
	forced, err := untyped.Namespace(namespace).Apply(ctx, "applied", object, metav1.ApplyOptions{FieldManager: "other", Force: true})
	if err != nil {
		return err
	}
	if value, _, _ := unstructured.NestedString(forced.Object, "data", "key"); value != "b" {
		return fmt.Errorf("forced to %q", value)
	}
	return maps.Delete(ctx, "applied", metav1.DeleteOptions{})
}

// Exec over SPDY and WebSockets, a log, and a port.
func (c clients) streams(ctx context.Context) error {
	pods := c.typed.CoreV1().Pods(namespace)
	log, err := pods.GetLogs("talks", &corev1.PodLogOptions{}).DoRaw(ctx)
	if err != nil || string(log) != "said\n" {
		return fmt.Errorf("logged %q: %w", log, err)
	}
	for _, overWebSockets := range []bool{false, true} {
		var out, errors bytes.Buffer
		input := strings.NewReader("hello")
		options := remotecommand.StreamOptions{Stdin: input, Stdout: &out, Stderr: &errors}
		if err := c.exec(ctx, overWebSockets, options, "sh", "-c", "cat; echo wrong >&2; exit 3"); true {
			code, failed := err.(exec.CodeExitError)
			if !failed || code.Code != 3 || out.String() != "hello" || errors.String() != "wrong\n" {
				return fmt.Errorf("%q %q: %v", out.String(), errors.String(), err)
			}
		}
	}
	url := c.typed.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name("talks").SubResource("portforward").URL()
	transport, upgrader, err := spdy.RoundTripperFor(c.config)
	if err != nil {
		return err
	}
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, url)
	stop, ready := make(chan struct{}), make(chan struct{})
	defer close(stop)
	forwarder, err := portforward.New(dialer, []string{"0:9000"}, stop, ready, io.Discard, os.Stderr)
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- forwarder.ForwardPorts() }()
	select {
	case err := <-failed:
		return err
	case <-ready:
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		return err
	}
	connection, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[0].Local))
	if err != nil {
		return err
	}
	defer connection.Close()
	back := make([]byte, 7)
	if _, err := connection.Write([]byte("through")); err != nil {
		return err
	}
	if _, err := io.ReadFull(connection, back); err != nil {
		return err
	}
	return expect(string(back) == "through", "%q came back", back)
}

func (c clients) exec(ctx context.Context, overWebSockets bool, options remotecommand.StreamOptions, command ...string) error {
	wanted := &corev1.PodExecOptions{Command: command, Stdin: true, Stdout: true, Stderr: true}
	request := c.typed.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name("talks").SubResource("exec")
	url := request.VersionedParams(wanted, scheme.ParameterCodec).URL()
	executor, err := remotecommand.NewSPDYExecutor(c.config, http.MethodPost, url)
	if overWebSockets {
		executor, err = remotecommand.NewWebSocketExecutor(c.config, http.MethodGet, url.String())
	}
	if err != nil {
		return err
	}
	return executor.StreamWithContext(ctx, options)
}

// Two candidates: when the first steps down, the other leads.
func (c clients) elections(ctx context.Context) error {
	leads := make(chan string, 4)
	run := func(ctx context.Context, name string) error {
		lock := &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Name: "elected", Namespace: namespace},
			Client:     c.typed.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: name},
		}
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: lock, LeaseDuration: 5 * time.Second, RenewDeadline: 3 * time.Second, RetryPeriod: 500 * time.Millisecond,
			ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) { leads <- name },
				OnStoppedLeading: func() {},
			},
		})
		if err == nil {
			go elector.Run(ctx)
		}
		return err
	}
	for _, name := range []string{"first", "second"} {
		term, stepDown := context.WithCancel(ctx)
		defer stepDown()
		if err := run(term, name); err != nil {
			return err
		}
		if name == "first" {
			if leader := <-leads; leader != "first" {
				return fmt.Errorf("%s leads", leader)
			}
			defer func(begin time.Time) { fmt.Printf("elections took %v\n", time.Since(begin)) }(time.Now())
			time.AfterFunc(time.Second, stepDown)
		}
	}
	select {
	case leader := <-leads:
		return expect(leader == "second", "%s leads", leader)
	case <-ctx.Done():
		return ctx.Err()
	}
}

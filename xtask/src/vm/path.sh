# What a person does: start, load, apply, look at the page, stop, start, delete. Says how long each takes and what memory is left.
set -u
fail() { echo "failed: $*"; tail -n 30 /var/lib/oxikube/oxikube/log/daemon.log 2>/dev/null; dmesg | tail -n 20; exit 1; }
now() { cut -d' ' -f1 /proc/uptime; }
step() { # NAME COMMAND...
  name=$1; shift; begin=$(now)
  "$@" >/tmp/said 2>&1 || { cat /tmp/said; fail "$name"; }
  available=$(awk '/MemAvailable/{print int($2/1024)}' /proc/meminfo)
  echo "$name: $(echo "$begin $(now)" | awk '{printf "%.1f", $2-$1}') s, $available MiB of memory available"
}
page() {
  for try in $(seq 300); do
    # busybox's wget asks a library that a static program has not.
    printf 'GET / HTTP/1.0\r\n\r\n' | timeout 10 nc 127.0.0.1 30080 >/tmp/page 2>&1
    grep -q 'visits: ' /tmp/page && return 0
    sleep 0.2
  done
  return 1
}
load() { for image in /images/*.tar; do oxikube image load "$image" || return 1; done; }
rolled() { kubectl rollout status deployment/redis --timeout=300s && kubectl rollout status deployment/frontend --timeout=300s; }
inside() {
  pod=$(kubectl get pods -l component=frontend -o jsonpath='{.items[0].metadata.name}')
  [ "$(kubectl exec "$pod" -- cat /www/healthz)" = ok ] && kubectl logs "$pod" >/dev/null
}
traces() {
  grep -E 'oxikube|overlay .*merged' /proc/mounts | grep -v ' /data ' | grep -v ' /var/lib '
  ls /sys/class/net | grep -vx lo
  find /sys/fs/cgroup -mindepth 1 -maxdepth 1 -type d
  ls /run/oxikube /var/lib/oxikube 2>/dev/null
  ps -o comm,args | grep -E '[o]xikube'
}
ours() { # the memory of our processes, in MiB
  cat /sys/fs/cgroup/oxikube-oxikube/memory.current 2>/dev/null | awk '{print int($1/1048576)}'
}
echo "kernel $(uname -r), $(awk '/MemTotal/{print int($2/1024)}' /proc/meminfo) MiB of memory, cgroups: $(awk '$2 ~ "^/sys/fs/cgroup"{print $3}' /proc/mounts | tr '\n' ' ')"
step 'start' oxikube start
step 'images loaded' load
step 'applied' kubectl apply -f /visits
step 'rolled out' rolled
step 'the page' page
step 'exec and logs' inside
echo "memory of the cluster's control group: $(ours) MiB"
step 'scaled to 5' kubectl scale deployment/frontend --replicas=5
step 'rolled out again' rolled
step 'stop' oxikube stop
step 'start again' oxikube start
step 'the page again' page
step 'delete' oxikube delete --yes
left=$(traces); [ -z "$left" ] || fail "left behind: $left"
dmesg | grep -i 'out of memory' && fail 'the kernel killed for want of memory'
echo 'nothing is left behind'

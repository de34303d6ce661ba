# Starts the cluster on the disk, and lets the guest program check and write.
export HOME=/data/home
mkdir -p $HOME
begin=$(cut -d' ' -f1 /proc/uptime)
if ! oxikube start >/tmp/said 2>&1; then
  cat /tmp/said; tail -n 30 /var/lib/oxikube/oxikube/log/daemon.log
  exit 1
fi
echo "started $(cut -d' ' -f1 /proc/uptime | awk -v begin="$begin" '{printf "%.1f", $1 - begin}')"
if ! xtask guest cluster $REVISION $ROUND; then
  tail -n 30 /var/lib/oxikube/oxikube/log/daemon.log
  exit 1
fi

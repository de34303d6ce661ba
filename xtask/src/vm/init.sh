#!/bin/sh
# The first process of an emulated machine: mounts what a machine has, runs /command, tells how it ended.
export PATH=/bin:/usr/bin HOME=/root
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm; mount -t devpts devpts /dev/pts; mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp; mount -t tmpfs run /run; mount -t cgroup2 none /sys/fs/cgroup
for module in virtio_console virtio_net virtio_rng veth bridge vxlan wireguard nf_tables nft_chain_nat nft_masq nft_redir \
  nft_numgen nft_ct nft_fib_inet nf_conntrack_netlink br_netfilter ip_vs
do modprobe -q $module; done
modprobe -q dummy numdummies=0
if [ -b /dev/vdb ]; then mount -t ext4 -o noauto_da_alloc /dev/vdb /data; else mount -t tmpfs -o size=70% data /data; fi
# Without a disk of its own, what programs keep in /var/lib is lost with the rest.
mkdir -p /data/lib; mount --bind /data/lib /var/lib
hostname vm; ip link set lo up
port=$(ls /dev/vport* | head -n 1)
sh -c 'sh /command; echo "vm-exit $?"' >"$port" 2>&1 </dev/null
sync; poweroff -f

#!/bin/busybox sh
# Finds the disk with the real root, covers it with memory so that it can be written, and goes on there.
b=/bin/busybox
for module in /modules/*.ko; do $b insmod $module; done
$b mount -t devtmpfs dev /dev
$b mount -t ext4 -o ro /dev/vda /lower
$b mount -t tmpfs rw /rw
$b mkdir /rw/upper /rw/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work root /root
$b cp /command /root/command
$b umount /dev
exec $b switch_root /root /init

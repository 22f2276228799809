#!/bin/bash
# Becomes systemd as process 1 of a host of its own. The caller (sdbox.py) has put this process into
# new pid, mount, uts, ipc, net and cgroup namespaces; all that is mounted here vanishes with them.
# usage: sdbox_init.sh NAME FOLDER [FROM:TO ...] -- [v1 hierarchy ...]
set -euo pipefail
name=$1 folder=$2
shift 2

mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$folder"
mkdir "$folder"/{upper,work,root}
# The host's own root, below a layer that takes all writes.
mount -t overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" overlay "$folder/root"
cd "$folder/root"
while [ "$1" != -- ]; do
    to=.${1##*:}
    mkdir -p "$to"
    mount --bind "${1%:*}" "$to"
    mount -o remount,bind,ro "$to"
    shift
done
shift

mount -t proc proc proc
# Else systemd would set sysctls of the real kernel.
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755,nosuid tmpfs dev
for node in null zero full random urandom tty; do
    touch "dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
if [ $# -eq 0 ]; then
    mount -t cgroup2 cgroup sys/fs/cgroup
else
    mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
    for hierarchy in "$@"; do
        mkdir "sys/fs/cgroup/$hierarchy"
        case $hierarchy in
            unified) mount -t cgroup2 cgroup "sys/fs/cgroup/$hierarchy" ;;
            systemd) mount -t cgroup -o none,name=systemd cgroup "sys/fs/cgroup/$hierarchy" ;;
            *) mount -t cgroup -o "$hierarchy" cgroup "sys/fs/cgroup/$hierarchy" ;;
        esac
    done
fi

ip link set lo up
hostname "$name"
echo "$name" >etc/hostname
echo "$name" | md5sum | cut -c1-32 >etc/machine-id
: >etc/fstab # the real host's disks are none of this one's
mkdir .old
pivot_root . .old
cd /
umount -l /.old
# No further than the basic target: the real host's own services are not started.
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=sdbox \
    /lib/systemd/systemd --system --unit=basic.target

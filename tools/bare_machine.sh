#!/usr/bin/env bash
# Prove the two commands on a bare machine: a fresh debootstrap directory, a fresh clone, then
# `./dev.sh up` and `./dev.sh test`, with the time each takes. A check by hand, not part of the suite;
# docs/set-up.md has what it printed. Needs root, debootstrap and this machine's network.
#
# usage: tools/bare_machine.sh [--user] [SUITE]      SUITE: bookworm (default), trixie or noble
#
# --user runs both commands as an ordinary user with sudo. The bare system is kept as an archive in
# ~/.cache/netstack, so that the next run does not download it again.

set -euo pipefail

clone=$(readlink -f "$(dirname "${BASH_SOURCE[0]}")/..")
as_user=
[ "${1:-}" != --user ] || { as_user=yes; shift; }
suite=${1:-bookworm}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/netstack
archive=$cache/bare-$suite.tar
machine=$cache/machine.$$

say() { printf '\n### %s\n' "$*"; }

# --- outside: make the machine --------------------------------------------------------------

bootstrap() {
    local from=("$suite" "$machine" http://deb.debian.org/debian)
    if [ "$suite" = noble ]; then
        # Debian's debootstrap may not know the name; all suites of Ubuntu are made alike.
        from=(--components="main,universe" --keyring=/usr/share/keyrings/ubuntu-archive-keyring.gpg)
        from+=("$suite" "$machine" http://archive.ubuntu.com/ubuntu gutsy)
    fi
    say "debootstrap $suite"
    mkdir -p "$cache"
    debootstrap --variant=minbase "${from[@]}" >"$cache/debootstrap.log"
    tar -C "$machine" -cf "$archive.new" .
    mv "$archive.new" "$archive"
    rm -rf "$machine"
}

# A mirror is reached from inside as it is from here: proxies, certificates and indexes are copied as
# found, and directories that pip's settings name are shown inside at the same place.
copy_network_settings() {
    local file
    cp -L /etc/resolv.conf /etc/hosts "$machine/etc/"
    install -D -m 0644 /etc/ssl/certs/ca-certificates.crt "$machine/etc/ssl/certs/of-the-host.crt"
    for file in /etc/pip.conf /etc/apt/apt.conf /etc/apt/apt.conf.d/*{proxy,registry}*; do
        [ ! -e "$file" ] || install -D -m 0644 "$file" "$machine$file"
    done
    for file in "$HOME/.pip/pip.conf" "$HOME/.config/pip/pip.conf"; do # for every user in there
        [ ! -e "$file" ] || install -D -m 0644 "$file" "$machine/etc/xdg/pip/pip.conf"
    done
    # The package ca-certificates, once installed, writes its own list; ours has another name.
    env | grep -iE '^(pip_|(https?|no|all)_proxy=)' | grep -v '^PIP_CERT=' >"$machine/etc/network.env" || true
    echo "PIP_CERT=/etc/ssl/certs/of-the-host.crt" >>"$machine/etc/network.env"
}

local_indexes() {
    { pip config list 2>/dev/null || true; env | grep -i '^pip_' || true; } \
        | grep -oE "(file://)?/[^ ',]+" | sed 's,^file://,,' | sort -u \
        | while read -r path; do [ ! -d "$path" ] || readlink -f "${path%/simple}"; done
}

make_machine() {
    [ -e "$archive" ] || bootstrap
    mkdir -p "$machine"
    tar -C "$machine" -xf "$archive"
    copy_network_settings
    local_indexes >"$machine/etc/indexes"
    git clone -q --no-hardlinks "$clone" "$machine/srv/netstack"
    cp "${BASH_SOURCE[0]}" "$machine/srv/bare_machine.sh"
}

# --- inside: a namespace of mounts and processes, so that nothing is left behind ------------

# pivot_root rather than chroot: in a chroot the kernel refuses user namespaces, which a rootless host needs.
enter() {
    local index
    mount --bind "$machine" "$machine"
    mount -t proc proc "$machine/proc"
    mount -t sysfs sysfs "$machine/sys" || true
    mount -t tmpfs tmpfs "$machine/dev"
    mkdir -p "$machine"/dev/{pts,shm,net} "$machine/old"
    chmod 1777 "$machine/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666 devpts "$machine/dev/pts"
    ln -s pts/ptmx "$machine/dev/ptmx"
    ln -s /proc/self/fd "$machine/dev/fd"
    for node in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0"; do
        read -r name major minor <<<"$node"
        mknod -m 0666 "$machine/dev/$name" c "$major" "$minor"
    done
    while read -r index; do
        mkdir -p "$machine$index"
        mount --bind "$index" "$machine$index"
    done <"$machine/etc/indexes"
    cd "$machine"
    pivot_root . old
    # shellcheck disable=SC2016 # expanded by the shell in there
    exec chroot . bash -c 'umount -l /old && exec env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb \
        $(cat /etc/network.env) bash /srv/bare_machine.sh --inside '"${as_user:-no}"
}

timed() {
    local started=$SECONDS status=0
    say "$*"
    "$@" </dev/null || status=$?
    say "$* : exit status $status, $((SECONDS - started)) s"
    return "$status"
}

# Bring the host up, wait until it answers, and end it.
up() {
    local log=/tmp/up.log started=$SECONDS job
    say "./dev.sh up tap0 (${1:-first} call)"
    "${run_as[@]}" ./dev.sh up tap0 >"$log" 2>&1 </dev/null &
    job=$!
    until grep -q '10\.0\.0\.2' "$log"; do
        kill -0 "$job" 2>/dev/null || { cat "$log"; say "./dev.sh up ended early"; return 1; }
        [ $((SECONDS - started)) -lt 600 ] || { cat "$log"; say "./dev.sh up: nothing after 600 s"; return 1; }
        sleep 0.2
    done
    say "up after $((SECONDS - started)) s"
    ! command -v ping >/dev/null || ping -c 2 -W 2 10.0.0.2
    end_up
    wait "$job" || true
    cat "$log"
}

# Only the host that was started here: the process that has this log open.
end_up() {
    local process
    for process in /proc/[0-9]*; do
        [ "$(readlink "$process/fd/1" 2>/dev/null)" = /tmp/up.log ] || continue
        grep -aq 'bin/netstack' "$process/cmdline" || continue
        kill -TERM "${process#/proc/}"
        return
    done
}

inside() {
    run_as=(env)
    cd /srv/netstack
    say "$(sed -n 's/^PRETTY_NAME=//p' /etc/os-release), Linux $(uname -r), $(nproc) CPUs, $(dpkg -l | grep -c ^ii) packages"
    if [ "$1" = yes ]; then
        apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends sudo >/dev/null
        useradd -m -s /bin/bash someone
        echo 'someone ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/someone
        chown -R someone: /srv/netstack
        run_as=(setpriv --reuid=someone --regid=someone --init-groups env HOME=/home/someone USER=someone)
    fi
    local status=0
    up first || status=1
    timed "${run_as[@]}" ./dev.sh test || status=1
    up second || status=1
    timed "${run_as[@]}" ./dev.sh build || status=1
    return "$status"
}

case ${1:-} in
--inside) inside "$2" ;;
--enter) machine=$2 as_user=$3; enter ;;
*)
    [ "$(id -u)" = 0 ] || { echo "needs root; type: sudo $0" >&2; exit 1; }
    command -v debootstrap >/dev/null || { echo "needs debootstrap; type: apt-get install debootstrap" >&2; exit 1; }
    trap 'rm -rf "$machine"' EXIT
    make_machine
    unshare --mount --pid --fork --propagation private bash "${BASH_SOURCE[0]}" --enter "$machine" "$as_user"
    ;;
esac
